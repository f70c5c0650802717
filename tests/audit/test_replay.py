"""`loop replay`: an untouched log decides the same, other rules differ where they must, and figures are exact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from given import Happening, after, config, configured, decides, over, ranking, tick
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from logged import Logged, LoggedWorld, told

from events import catalog
from events.errors import UsageError
from loop import policies
from loop.audit.replay import ITEMS, Other, Tally, allocation_error, compared, other_config, other_policy, replay
from loop.commands import replay as command
from loop.decider import Decision, decide
from projections.view import View

CONFIG = """
[loop]
slots = {slots}
every = "30m"
max_starts_per_hour = 100
[selector]
command = ["./selector"]
[categories.code]
command = ["agent"]
target = 0.5
[categories.docs]
command = ["agent"]
target = 0.5
"""


def of(story: Logged, other: Other | None = None, **options: Any) -> Tally:
    return replay(story.log, 0, len(story.events), other=other, **options)


def ran(*asked: str) -> list[Happening]:
    """A fire after which everything that started ends before the next."""

    def ends(story: Any) -> None:
        for session in list(story.state.sessions["live"]):
            over(session, "unproven")(story)

    return [tick(), ranking(*asked), decides(), ends, after(hours=2)]


def two_fires(**settings: Any) -> Logged:
    categories = {"code": {"target": 0.5, "cooldown": 0.0}, "docs": {"target": 0.5, "cooldown": 0.0}}
    return told(
        configured(slots=2, categories=categories, **settings), *ran("code", "docs"), *ran("docs"), *ran("docs", "code")
    )


# ── the same rules ────────────────────────────────────────────────────────────────────────────────────────────────────


@for_all(st.integers(0, 10_000))
@settings(max_examples=10)
def test_an_untouched_history_decides_the_same(seed: int) -> None:
    story = LoggedWorld(seed, steps=False)
    story.run(150)
    tally = of(story)
    assert (tally.decisions, tally.same, tally.other_version) == (len(story.decisions), len(story.decisions), 0)
    assert (tally.first, tally.items) == (None, [])


def test_a_decider_that_changed_diverges_at_the_position_where_it_did() -> None:
    story = two_fires()
    second = story.decisions[1].position

    def patched(view: View) -> Decision:
        if view.position == second - 1:
            view = view._replace(slots=0)
        return decide(view)

    tally = of(story, decide=patched)
    assert (tally.decisions, tally.same, tally.first) == (3, 2, second)
    (item,) = tally.items
    assert item["position"] == second
    assert [choice["category"] for choice in item["recorded"]] == ["docs"]
    assert item["now"] == []
    assert item["verdicts"] == [{"category": "docs", "then": "chosen", "now": "no_slot"}]
    assert item["command"] == f"loop why {second}"


def test_a_decision_that_starts_the_same_for_another_reason_diverges() -> None:
    story = told(configured(slots=1), *ran("code", "docs"))

    def patched(view: View) -> Decision:
        decision = decide(view)
        last = replace(decision.candidates[-1], verdict="paused")
        return replace(decision, candidates=(*decision.candidates[:-1], last))

    tally = of(story, decide=patched)
    assert tally.first == story.decisions[0].position
    assert tally.items[0]["recorded"] == tally.items[0]["now"]


def test_decisions_of_another_version_are_counted_and_not_compared() -> None:
    story = told(configured(), tick(), ranking("code"))
    decision = {**decide(story.view()).as_dict(), "decider": 99, "chosen": []}
    story.append(catalog.FanoutDecided.model_validate(decision), tick=story.tick)
    tally = of(story)
    assert (tally.decisions, tally.same, tally.other_version, tally.first) == (1, 0, 1, None)


def test_no_more_divergences_are_kept_than_a_bound() -> None:
    story = told(configured(), *(step for _ in range(ITEMS + 5) for step in (tick(), ranking("code"), decides())))
    tally = of(story, decide=lambda view: decide(view._replace(slots=view.slots + 1)))
    assert tally.diverged == ITEMS + 5
    assert len(tally.items) == ITEMS


def test_only_the_decisions_asked_for_are_made_again() -> None:
    story = two_fires()
    first, second, third = (event.position for event in story.decisions)
    made = [replay(story.log, after, upto).decisions for after, upto in ((0, second), (first, third), (third, third))]
    assert made == [2, 2, 0]


# ── other rules ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_config_changes_the_counts_as_computed_by_hand() -> None:
    """With one slot the fires (code, docs), (docs), (docs, code) start code, docs, docs and not all that is asked."""
    story = two_fires()
    data = {**config(categories={"code": {"target": 0.5}, "docs": {"target": 0.5}}), "slots": 1}
    tally = of(story, other_config("one-slot", data))
    assert tally.then == {"code": 2, "docs": 3}
    assert tally.now == {"code": 1, "docs": 2}
    assert (tally.decisions, tally.same, tally.first) == (3, 1, story.decisions[0].position)
    figures = compared(tally)
    assert [(line["name"], line["then"], line["now"], line["difference"]) for line in figures["categories"]] == [
        ("code", 2, 1, -1),
        ("docs", 3, 2, -1),
    ]
    # |2/5 - 1/2| = |3/5 - 1/2| = 1/10, half their sum 1/10; |1/3 - 1/2| = |2/3 - 1/2| = 1/6
    assert figures["allocation_error"] == {"then": 0.1, "now": round(1 / 6, 6), "label": "exact"}
    assert figures["starts"] == {"then": 5, "now": 3, "label": "exact"}


def test_every_recorded_state_keeps_its_own_facts_under_another_config() -> None:
    """One step is decided again: sessions that the other config would not have started still hold their keys."""
    story = told(configured(), tick(), ranking("code"), decides(), tick(), ranking("code"), decides())
    closed = {**config(), "categories": {**config()["categories"]}}
    closed["categories"]["code"] = {**closed["categories"]["code"], "parallel": False}
    tally = of(story, other_config("closed", closed))
    assert tally.now == {}
    assert tally.same == 1, "the second started nobody then either: the recorded session held the lock"
    before = story.state.dump()
    other_config("closed", closed).seen(story.state, story.now)
    assert story.state.dump() == before


def test_another_policy_is_served_at_every_recorded_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_first(view: View, asked: Sequence[Any], /) -> list[Any]:
        return list(reversed(asked))

    monkeypatch.setitem(policies.POLICIES, "last_first", last_first)  # type: ignore[misc]
    story = told(configured(slots=1, categories=("code", "docs")), *ran("code", "docs"), *ran("docs"))
    tally = of(story, other_policy("last_first"))
    assert (tally.then, tally.now) == ({"code": 1, "docs": 1}, {"docs": 2})
    assert (tally.same, tally.first) == (1, story.decisions[0].position)


def rounds(count: int) -> list[Happening]:
    """Fires one after another, each with one free slot and both categories asked for, code first."""
    again = (tick(), ranking("code", "docs"), decides())
    ends = [over(f"s{number}", "productive", proved=False) for number in range(1, count + 1)]
    return [step for end in ends for step in (*again, end)]


def test_fair_is_replayed_on_a_ledger_carried_from_decision_to_decision() -> None:
    categories = {"code": {"target": 0.75}, "docs": {"target": 0.25}}
    story = told(configured(slots=1, categories=categories), *rounds(8))
    tally = of(story, other_policy("fair"))
    assert (tally.then, tally.now) == ({"code": 8}, {"code": 6, "docs": 2})
    told_of = compared(tally)
    assert {line["label"] for line in told_of["categories"]} == {"modelled"}
    assert (told_of["allocation_error"]["then"], told_of["allocation_error"]["now"]) == (0.25, 0)


def test_fair_on_a_log_of_fair_is_exact() -> None:
    categories = {"code": {"target": 0.75}, "docs": {"target": 0.25}}
    story = told(configured(slots=1, policy="fair", categories=categories), *rounds(8))
    tally = of(story, other_policy("fair"))
    assert (tally.same, tally.label, tally.now) == (8, "exact", {"code": 6, "docs": 2})
    assert of(story, other_policy("intent")).now == {"code": 8}


def test_the_recorded_policy_changes_nothing() -> None:
    tally = of(two_fires(), other_policy("intent"))
    assert tally.same == tally.decisions
    assert tally.then == tally.now


def test_an_unknown_policy_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(UsageError) as refused:
        other_policy("luck")
    assert "luck" in refused.value.message
    assert "intent" in refused.value.hint
    with pytest.raises(UsageError):
        other_config("file", {**config(), "policy": "luck"})


@for_all(
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)),
    st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9)),
)
def test_the_allocation_error_is_a_share_and_nought_where_targets_are_met(
    counts: dict[str, int], targets: dict[str, int]
) -> None:
    error = allocation_error(counts, targets)
    if not sum(counts.values()) or not sum(targets.values()):
        assert error is None
        return
    assert error is not None
    assert 0 <= error <= 1
    total, whole = sum(counts.values()), sum(targets.values())
    met = all(
        Fraction(counts.get(name, 0), total) == Fraction(targets.get(name, 0), whole) for name in {*counts, *targets}
    )
    assert (error == 0) is met


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


NOTHING: dict[str, Any] = {"since": None, "until": None, "at": None, "policy": None, "config": None, "as_json": True}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "s" / "loop.db"
    categories = {"code": {"target": 0.5, "cooldown": 0.0}, "docs": {"target": 0.5, "cooldown": 0.0}}
    told(configured(slots=2, categories=categories), *ran("code", "docs"), *ran("docs"), path=path).log.close()
    return path


def printed(capsys: pytest.CaptureFixture[str], db: Path, **options: Any) -> dict[str, Any]:
    assert command.run(db, **{**NOTHING, **options}) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_the_command_reports_what_a_plain_replay_found(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = printed(capsys, db)
    wanted = ("schema", "decisions", "same", "other_version", "first_divergence", "items")
    assert [report[name] for name in wanted] == ["loop.replay/1", 2, 2, 0, None, []]
    assert report["command"] == f"loop replay --at {report['as_of']['at']}"
    assert "categories" not in report


def test_a_config_file_is_compared_and_every_figure_has_its_label(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.toml"
    file.write_text(CONFIG.format(slots=1))
    report = printed(capsys, db, config=file)
    assert [(line["name"], line["then"], line["now"]) for line in report["categories"]] == [
        ("code", 1, 1),
        ("docs", 2, 1),
    ]
    assert {figure["label"] for figure in (*report["categories"], report["starts"], report["allocation_error"])} == {
        "exact"
    }
    assert str(file) in report["command"]
    command.run(db, **{**NOTHING, "config": file, "as_json": False})
    text = " ".join(capsys.readouterr().out.split())
    for words in ("1 the same", "exact: one step from each recorded state", "allocation error: 16.7 % then, 0.0 % now"):
        assert words in text


def test_since_and_until_bound_the_decisions_and_are_in_the_command(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    everything = printed(capsys, db, until="2026-11-23T14:00:00Z")
    assert everything["decisions"] == 1
    assert "--until 2026-11-23T14:00:00.000000Z" in everything["command"]
    assert printed(capsys, db, since="2026-11-23T15:00:00Z")["decisions"] == 1
    assert printed(capsys, db, since="2026-11-23T19:00:00Z")["decisions"] == 0
    assert printed(capsys, db, at="1")["decisions"] == 0


def test_a_window_with_no_position_in_it_says_so(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(db, **{**NOTHING, "since": "2026-11-23T19:00:00Z", "as_json": False}) == 0
    assert "no position after" in capsys.readouterr().out


def test_a_policy_and_a_config_together_are_refused(db: Path) -> None:
    with pytest.raises(UsageError):
        command.run(db, **{**NOTHING, "policy": "intent", "config": Path("x.toml")})
