"""`granted`, and why the rest was not: every place of the ranking is accounted for."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    MINUTE,
    Happening,
    Story,
    after,
    configured,
    failed,
    given,
    granted,
    lost,
    ranking,
    rejection,
    running,
    started,
    tick,
)
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events import catalog
from loop.decider import decide
from loop.status import status
from projections import figures

WINDOW = 48 * 60 * MINUTE


def decides() -> Happening:
    """The pass decides; nothing of it is acted on."""

    def happen(story: Story) -> None:
        story.append(catalog.FanoutDecided.model_validate(decide(story.view()).as_dict()), tick=story.tick)

    return happen


def losses(story: Story) -> dict[str, int]:
    found: dict[str, int] = figures.selection(story.state, story.now, WINDOW)["losses"]
    return found


def problem(story: Story, later: float = 1 / 60) -> str | None:
    """The problem `not_started`, in words, so many minutes later: at its own instant nothing can follow a decision."""
    found = status(story.state, story.now + round(later * MINUTE))["problems"]
    return next((each["text"] for each in found if each["code"] == "not_started"), None)


@for_all(st.integers(0, 10_000))
@settings(max_examples=30)
def test_granted_and_losses_are_all_that_was_wanted(seed: int) -> None:
    story = history(seed, 250)
    for cell in story.state.selection["hours"].values():
        assert cell["granted"] + sum(cell["losses"].values()) == cell["granted_of"]
        assert all(count > 0 for count in cell["losses"].values())
        assert cell["followed"] + cell["lost"] == cell["followed_of"]
        assert cell["ignored"] == 0, "the decider follows every answer that it can read"
        assert not {"not_considered", "not_ranked"} & cell["losses"].keys()


@for_all(st.integers(0, 10_000))
@settings(max_examples=15)
def test_a_task_is_taken_by_whom_it_was_given_to(seed: int) -> None:
    story = history(seed, 150)
    live = {id: each["task"] for id, each in story.state.sessions["live"].items() if each["task"]}
    assert story.state.selection["tasks"] == live
    last = story.state.selection["last"]
    assert last is None or set(live.values()) <= set(last["taken"])


def test_a_loss_is_the_verdict() -> None:
    categories: dict[str, Any] = {"code": {}, "docs": {"parallel": False}, "news": {}}
    story = given(configured(categories=categories, slots=4), running("s1"), tick())
    story.happens(ranking("code", "docs", "unheard-of"), decides())
    assert losses(story) == {"lock_held": 1, "not_allowed": 1, "unknown_category": 1}


def test_a_choice_goes_from_not_started_over_starting_to_granted() -> None:
    story = given(configured(), tick(), ranking("code"), decides())
    seen = [losses(story)]
    for step in (granted("s1"), started("s1")):
        story.happens(step)
        seen.append(losses(story))
    assert seen == [{"not_started": 1}, {"starting": 1}, {}]


@pytest.mark.parametrize("how", ["voided", "bad_cwd", "lost"])
def test_one_that_never_ran_says_how(how: str) -> None:
    end = lost("s1") if how == "lost" else failed("s1", how)
    assert losses(given(configured(), tick(), ranking("code"), decides(), granted("s1"), end)) == {how: 1}


def test_a_rejected_fire_loses_its_free_slots() -> None:
    story = given(configured(slots=3), running("s1"), tick(), rejection(), decides())
    assert losses(story) == {"rejected": 2}


def test_a_decision_that_did_not_hear_the_ranking_is_found_out() -> None:
    story = given(configured(), tick(), ranking("code", "docs"))
    deaf = catalog.FanoutDecided.model_validate({**decide(story.view()).as_dict(), "chosen": [], "candidates": []})
    story.append(deaf, tick=story.tick)
    assert losses(story) == {"not_considered": 2}
    assert "intent_ignored" in {each["code"] for each in status(story.state, story.now)["problems"]}


@pytest.mark.parametrize("rule", ["selected", "all_scores", "allowlist"])
def test_a_start_that_a_readable_answer_did_not_name_is_ignored_intent_whatever_its_rule(rule: str) -> None:
    story = given(configured(), tick(), ranking("code"), decides(), running("s1", "docs", rule=rule))
    found = figures.selection(story.state, story.now, WINDOW)
    assert (found["followed"], found["intent_lost"], found["ignored"]) == ({"count": 0, "of": 1}, 1, 1)


def test_the_safety_net_loses_intent_and_ignores_none() -> None:
    story = given(configured(), tick(), rejection(), decides(), running("s1", "docs", rule="allowlist"))
    found = figures.selection(story.state, story.now, WINDOW)
    assert (found["intent_lost"], found["ignored"]) == (1, 0)


# ── decided, and nothing done ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_choice_without_a_request_is_a_problem_at_once_also_beyond_the_free_slots() -> None:
    assert problem(given(configured(), tick(), ranking("code"), decides())) is not None
    far = given(configured(slots=2), running("s1"), tick(), ranking("code", "docs"), decides())
    assert losses(far) == {"lock_held": 1}, "docs is beyond the one slot that is free"
    assert "1 choice " in (problem(far) or "")


def test_at_the_position_of_a_decision_its_choices_are_not_missed() -> None:
    story = given(configured(), tick(), ranking("code", "docs"), decides())
    assert problem(story, 0) is None, "its grants are the next events of the same transaction"
    assert problem(story.happens(granted("s1")), 0) is None
    assert "1 choice " in (problem(story) or ""), "docs was not granted"


def test_a_start_may_take_as_long_as_a_session_and_a_period() -> None:
    story = given(configured(), tick(), ranking("code"), decides(), granted("s1"))
    assert [problem(story, minutes) is not None for minutes in (0, 80, 80.1)] == [False, False, True]
    assert problem(story.happens(started()), 90) is None


def test_while_the_newest_fire_starts_the_one_before_it_counts() -> None:
    story = given(configured(), tick(), ranking("code"), decides(), granted("s1"), failed("s1", "voided"))
    story.happens(after(minutes=30), tick(), ranking("docs"), decides(), granted("s2", "docs"))
    assert "voided" in (problem(story) or "")
    assert problem(story.happens(started("s2"))) is None


def test_what_the_user_broke_is_not_loops_fault() -> None:
    story = given(configured(), tick(), ranking("code"), decides(), granted("s1"), failed("s1", "command_not_found"))
    assert problem(story) is None
    assert losses(story) == {"command_not_found": 1}
