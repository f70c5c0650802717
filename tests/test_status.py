"""The allocation in `loop status`: what is judged, from when on, and what the next start may do apart from it."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    Happening,
    Story,
    after,
    configured,
    decides,
    gate,
    given,
    over,
    ranking,
    requested,
    running,
    tick,
)

from loop.commands.status import render
from loop.output import console
from loop.status import status
from projections import feedback

THIRDS: dict[str, dict[str, Any]] = {"code": {"target": 0.2}, "docs": {"target": 0.5}, "news": {"target": 0.3}}


def line(story: Story, name: str) -> dict[str, Any]:
    [found] = [each for each in status(story.state, story.now)["categories"] if each["name"] == name]
    return dict(found)


def problems(story: Story) -> dict[str, dict[str, str]]:
    return {each["code"]: each for each in status(story.state, story.now)["problems"]}


def ran(*names: str, minutes: float = 1) -> list[Happening]:
    """Sessions one after another, each over before the next."""
    return [
        step
        for number, name in enumerate(names)
        for step in (running(f"h{number}", name), over(f"h{number}", proved=False), after(minutes=minutes))
    ]


def test_the_figures_have_their_sample_and_are_not_judged_before_it_is_enough() -> None:
    story = given(configured(categories=THIRDS), *ran(*["code"] * 12, *["docs"] * 12))
    code = line(story, "code")
    assert (code["spawned"], code["share"], code["target"]) == (12, 0.5, pytest.approx(0.2))
    assert (code["ratio"], code["entitlement"]) == (pytest.approx(2.5), pytest.approx(4.8))
    assert (code["enough_data"], code["over_allocated"]) == (False, False)
    assert "over_allocated" not in problems(story)
    story.happens(*ran("code", "docs"))
    code = line(story, "code")
    assert (code["entitlement"], code["enough_data"], code["over_allocated"]) == (pytest.approx(5.2), True, True)


def test_who_has_twice_its_target_is_a_problem_with_the_command_that_explains_it() -> None:
    story = given(configured(categories=THIRDS, max_ratio=1.75), *ran(*["code"] * 14, *["docs"] * 13))
    found = problems(story)["over_allocated"]
    assert found["command"] == "loop why-not code"
    assert found["text"] == "code has 2.6 times its target; the cap lets it start no more"
    free = given(configured(categories=THIRDS), *ran(*["code"] * 14, *["docs"] * 13))
    assert problems(free)["over_allocated"]["text"].endswith("; nothing caps it: allocation.max_ratio = 1.75 would")


def test_the_standing_ratio_rises_without_any_start_as_the_window_moves_on() -> None:
    """The cap binds starts; what leaves the window is no start. So both are told, and apart."""
    early = ran(*["docs"] * 14, *["news"] * 6)
    late = [after(hours=24), *ran(*["code"] * 6, *["docs"] * 3)]
    story = given(configured(categories=THIRDS, max_ratio=1.75), *early, *late)
    before = line(story, "code")
    story.happens(after(hours=25))
    behind = line(story, "code")
    assert before["spawned"] == behind["spawned"] == 6
    assert (before["ratio"] < 1.75, before["capped"]) == (True, False)
    assert (behind["ratio"] > 2, behind["capped"]) == (True, True)


def test_what_is_granted_and_not_yet_started_counts_for_the_cap() -> None:
    config = configured(categories={"code": {"target": 0.1, "lanes": 2}, "docs": {"target": 0.9}}, max_ratio=1.75)
    story = given(config, *ran("docs", "docs"))
    assert line(story, "code")["capped"] is False
    story.happens(requested("s1", "code", keys=["code#1"]))
    assert (line(story, "code")["spawned"], line(story, "code")["capped"]) == (0, True)


def test_without_a_cap_or_a_target_nothing_is_capped() -> None:
    assert line(given(configured(categories=THIRDS)), "code")["capped"] is None
    assert line(given(configured(categories=("code", "docs"), max_ratio=1.75)), "code")["capped"] is None


def test_supply_is_what_the_gate_says_and_else_unknown() -> None:
    gated = {"code": {"gate": True}, "docs": {"gate": True}, "news": {}}
    story = given(configured(categories=gated), tick(), gate("code"), gate("docs", "no_work"), ranking("code", "news"))
    assert [line(story, name)["supply"] for name in gated] == ["work", "none", "unknown"]


def test_who_has_no_work_is_not_neglected_and_is_shown_so(monkeypatch: pytest.MonkeyPatch) -> None:
    story = given(configured(categories=THIRDS), *ran(*["code"] * 7))
    assert line(story, "docs")["neglected"] is True
    assert "neglected" in problems(story)
    monkeypatch.setattr(feedback, "supply", lambda *_: "none")
    assert (line(story, "docs")["supply"], line(story, "docs")["neglected"]) == ("none", False)
    assert "neglected" not in problems(story)
    assert "no work" in shown(story)


def test_the_credit_is_shown_under_fair() -> None:
    story = given(configured(categories=THIRDS, policy="fair", slots=1), tick(), ranking(*THIRDS), decides())
    assert [line(story, name)["credit"] for name in THIRDS] == [0.2, -0.5, 0.3]
    assert line(given(configured(categories=THIRDS)), "code")["credit"] is None


def test_the_screen_says_who_is_at_its_cap() -> None:
    story = given(configured(categories=THIRDS, max_ratio=1.75), *ran(*["code"] * 14, *["docs"] * 13))
    assert "at its cap" in shown(story)
    assert "loop why-not code" in shown(story)


def shown(story: Story) -> str:
    out = console()
    with out.capture() as captured:
        out.print(render(status(story.state, story.now)))
    return " ".join(captured.get().split())
