"""`loop report`: what each question answers, when it cannot, the ladder, and where idle slots went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given import (
    HOUR,
    MINUTE,
    Happening,
    Story,
    after,
    configured,
    decides,
    graded,
    lost,
    over,
    ranking,
    restrained,
    running,
    seen,
    tick,
)
from logged import Logged, LoggedWorld, told

from events import catalog
from events.envelope import to_micros, to_text
from events.errors import UsageError
from loop.commands.report import render, run
from loop.history import history
from loop.output import console
from loop.report import report
from loop.status import status
from projections.fold import HOURS_KEPT
from projections.view import counted

DAY = 24 * HOUR
THIRDS: dict[str, dict[str, Any]] = {"code": {"target": 0.2}, "docs": {"target": 0.5}, "news": {"target": 0.3}}


def of(story: Logged, hours: float = 48, upto: int | None = None) -> dict[str, Any]:
    return report(story.log, upto=upto or len(story.events), now=story.now, span=round(hours * HOUR))


def answer(story: Logged, name: str, hours: float = 48) -> dict[str, Any]:
    [found] = [each for each in of(story, hours)["questions"] if each["name"] == name]
    return dict(found)


def rung(story: Logged, name: str, hours: float = 48) -> dict[str, Any]:
    [found] = [each for each in of(story, hours)["ladder"] if each["name"] == name]
    return dict(found)


def ran(*names: str, minutes: float = 1, outcome: str = "productive", **end: Any) -> list[Happening]:
    """Sessions one after another, under the lock of their category."""

    def happen(name: str) -> Happening:
        def one(story: Story) -> None:
            session = f"r{len(story.category)}"
            story.happens(running(session, name), over(session, outcome, **end), after(minutes=minutes))

        return one

    return [happen(name) for name in names]


def idle(*slots: tuple[int, str], capacity: int = 3) -> Happening:
    """A fire whose decision leaves these slots idle."""

    def happen(story: Story) -> None:
        tick()(story)
        free = sum(count for count, _ in slots)
        values: dict[str, Any] = {
            "decider": 1,
            "basis": len(story.events),
            "now": to_text(story.now),
            "policy": "intent",
            "slots": {"capacity": capacity, "live": capacity - free, "free": free},
            "chosen": [],
            "candidates": [],
            "idle": [{"slots": count, "reason": reason} for count, reason in slots],
            "ledger": None,
        }
        story.append(catalog.FanoutDecided.model_validate(values), tick=story.tick)

    return happen


# ── neglected ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_neglected_category_that_started_and_did_its_work_is_served() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7, "docs", "news"))
    found = answer(story, "neglected")
    assert [item["category"] for item in found["items"]] == ["docs"], "7 starts owe docs 3.5 and news 2.1"
    assert (found["ok"], found["value"], found["bound"]) == (True, 1, 1)


def test_one_that_did_not_start_is_not() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7, "news"))
    found = answer(story, "neglected")
    assert (found["ok"], found["value"], found["bound"]) == (False, 0, 1)
    assert "docs did not start" in found["detail"]


def test_one_that_started_and_did_other_work_is_not() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7), *ran("docs", done_category="code"))
    found = answer(story, "neglected")
    assert found["items"][0]["did_other"] == {"code": 1}
    assert (found["ok"], "docs started 1 and did code instead" in found["detail"]) == (False, True)


@pytest.mark.parametrize("ends", [[], [lost("d1")]])
def test_while_it_runs_and_where_nobody_knows_how_it_ended_nothing_is_shown(ends: list[Happening]) -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7), running("d1", "docs"), *ends)
    assert answer(story, "neglected")["ok"] is None


def test_a_start_that_the_backend_refused_is_none() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7), *ran("docs", outcome="limited"))
    assert (answer(story, "neglected")["ok"], answer(story, "neglected")["items"][0]["started"]) == (False, 0)


def test_who_was_neglected_when_the_window_began_counts_though_served_at_its_beginning() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 7), after(hours=10), *ran("docs"))
    assert [item["category"] for item in answer(story, "neglected", 1)["items"]] == ["docs"]


def test_that_nobody_was_neglected_shows_something_only_where_somebody_could_have_been() -> None:
    few = told(configured(categories=THIRDS), *ran(*["code", "docs", "news"] * 5))
    assert (answer(few, "neglected")["ok"], "from 16 on" in answer(few, "neglected")["detail"]) == (None, True)
    assert answer(told(configured(categories=THIRDS), *ran(*["code", "docs", "news"] * 6)), "neglected")["ok"] is True


# ── over-allocation ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_category_must_be_under_twice_its_target_and_be_judged() -> None:
    even = told(configured(categories=THIRDS), *ran(*["code", "docs", "docs", "news"] * 7))
    assert (answer(even, "over_allocation")["ok"], answer(even, "over_allocation")["value"]) == (True, 1.25)
    over_it = told(configured(categories=THIRDS), *ran(*["code"] * 14, *["docs"] * 14))
    assert answer(over_it, "over_allocation")["ok"] is False
    assert answer(over_it, "over_allocation")["value"] == pytest.approx(2.5)
    few = told(configured(categories=THIRDS), *ran(*["code", "docs", "docs", "news"] * 6))
    assert answer(few, "over_allocation")["ok"] is None
    assert "too few starts to judge 1 of 3: 24 of 25" in answer(few, "over_allocation")["detail"]


def test_exactly_twice_is_not_under_twice() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 12, *["docs"] * 18))
    assert (answer(story, "over_allocation")["value"], answer(story, "over_allocation")["ok"]) == (2.0, False)


# ── locks, NOOPs, output ──────────────────────────────────────────────────────────────────────────────────────────────


def test_violations_are_those_of_the_window_with_the_bound_of_the_locks_taken_in_it() -> None:
    bad = seen(catalog.ViolationDetected(kind="test", key="code", token=1))
    story = told(configured(), *ran("code", "docs"), bad, after(hours=60), *ran(*["code"] * 20))
    found = answer(story, "same_lock")
    assert (found["ok"], found["value"], found["of"]) == (True, 0, 20)
    assert found["bound"] == pytest.approx(0.139, abs=1e-3)
    assert (answer(story, "same_lock", 72)["ok"], answer(story, "same_lock", 72)["value"]) == (False, 1)
    assert rung(story, "lock_safety", 72)["ok"] is False
    assert answer(told(configured()), "same_lock")["ok"] is None


@pytest.mark.parametrize(
    ("noops", "others", "ok", "says"),
    [
        (0, 20, None, "0 of 20 shows at most 13.9 %; 59 assessed without a NOOP would show under 5 %"),
        (0, 59, True, "0 of 59 shows at most 5 %"),
        (5, 5, False, "at least 22.2 %"),
        (0, 0, None, "no data; 59 assessed without a NOOP"),
    ],
)
def test_noops_are_near_zero_only_where_their_bound_is(noops: int, others: int, ok: bool | None, says: str) -> None:
    ends = [*ran(*["code"] * noops, outcome="noop"), *ran(*["code"] * others), *ran("code", outcome="unproven")]
    story = told(configured(), *ends)
    found = answer(story, "noop")
    assert (found["ok"], found["count"], found["of"], found["unproven"]) == (ok, noops, noops + others, 1)
    assert says in found["detail"]
    assert "1 unproven" in found["detail"]
    assert rung(story, "noop_rate")["ok"] is ok


def two_windows(before: list[Happening], now: list[Happening]) -> Logged:
    """Two windows of two hours, the later one up to now."""
    kinds: dict[str, dict[str, Any]] = {"code": {}, "chores": {"maintenance": True}}
    story = told(configured(categories=kinds), after(minutes=1), *before)
    story.now = to_micros(story.events[0].at) + 2 * HOUR
    story.happens(after(minutes=1), *now)
    story.now = to_micros(story.events[0].at) + 4 * HOUR
    return story


@pytest.mark.parametrize(
    ("before", "now", "ok"),
    [
        ((5, 0), (20, 0), True),
        ((5, 4), (20, 2), True),
        ((5, 2), (20, 3), None),
        ((5, 0), (20, 8), False),
        ((15, 0), (20, 0), None),
        ((20, 0), (5, 0), False),
        ((0, 0), (0, 0), None),
    ],
    ids=["rose", "maintenance fell", "maintenance may have risen", "maintenance rose", "too little", "fell", "nothing"],
)
def test_output_rose_only_where_its_interval_says_so_and_maintenance_did_not(
    before: tuple[int, int], now: tuple[int, int], ok: bool | None
) -> None:
    first, then = (
        [*ran(*["code"] * work, grade=0.5), *ran(*["chores"] * chores, outcome="failed")]
        for work, chores in (before, now)
    )
    found = answer(two_windows(first, then), "output", 2)
    assert (found["productive"]["before"], found["productive"]["count"]) == (before[0], now[0])
    assert (found["maintenance"]["before"], found["maintenance"]["count"]) == (before[1], now[1])
    assert found["ok"] is ok
    assert found["grade"]["of"] == now[0]


def test_without_a_window_before_output_is_not_compared() -> None:
    assert (answer(told(configured(), *ran("code")), "output")["ok"]) is None
    assert "no window before" in answer(told(configured(), *ran("code")), "output")["detail"]


def test_a_grade_given_later_is_that_of_its_session() -> None:
    story = two_windows([running("s1"), over("s1", grade=0.2)], [running("s2"), over("s2"), graded("s2", 0.9)])
    story.happens(graded("s1", 0.4))
    found = answer(story, "output", 2)
    assert (found["grade"], found["grade_before"]) == ({"mean": 0.9, "of": 1}, {"mean": 0.4, "of": 1})


# ── the ladder ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_rung_that_is_not_shown_holds_it_back() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 20))
    found = of(story)
    assert [each["name"] for each in found["ladder"]] == [
        "lock_safety", "noop_rate", "intent", "distribution", "more_slots",
    ]  # fmt: skip
    assert found["held_back_by"] == "lock_safety"
    assert "59 locks taken without a violation would show under 5 %" in rung(story, "lock_safety")["detail"]
    assert rung(story, "more_slots")["ok"] is False, "docs is neglected, so that the distribution is red"


def fleet(hours: int) -> Logged:
    """A fire every half hour, three sessions each, as the ranking has it."""
    story = told(configured(categories=THIRDS, slots=3))
    for _ in range(2 * hours):
        story.happens(tick(), ranking("docs", "news", "code"), decides())
        for session in list(story.state.sessions["live"]):
            story.happens(over(session, proved=False))
        story.happens(after(minutes=30))
    return story


def test_with_every_rung_shown_more_slots_are() -> None:
    story = fleet(25)
    found = of(story)
    assert [each["ok"] for each in found["ladder"]] == [True] * 5, found["ladder"]
    assert found["held_back_by"] is None
    assert "ready for more slots: yes" in shown(found)


def test_a_day_of_decisions_is_the_least() -> None:
    story = fleet(23)
    assert (rung(story, "distribution")["ok"], of(story)["held_back_by"]) == (None, "distribution")
    assert "23.0 of 24 to 48 hours measured" in rung(story, "distribution")["detail"]


# ── idle slots, windows, the screen ───────────────────────────────────────────────────────────────────────────────────


def test_a_reason_holds_until_the_next_decision_and_is_clipped_to_the_window() -> None:
    fires = [idle((2, "lock_held")), after(minutes=30), idle((1, "no_work"), (1, "lock_held")), after(minutes=45)]
    story = told(configured(), *fires)
    found = of(story)
    assert found["idle_slot_hours"] == {"lock_held": 1.75, "no_work": 0.75}
    assert found["slot_hours"] == 3.75
    assert of(story, 1)["idle_slot_hours"] == {"lock_held": 1.25, "no_work": 0.75}
    assert of(story, 0.5)["idle_slot_hours"] == {"lock_held": 0.5, "no_work": 0.5}


def test_two_periods_after_the_last_pass_nobody_looked() -> None:
    story = told(configured(), idle((2, "no_work")), after(hours=5))
    assert of(story)["idle_slot_hours"] == {"no_pass": 8.0, "no_work": 2.0}
    assert of(story, 2)["idle_slot_hours"] == {"no_pass": 4.0}
    assert of(story)["data"]["measured_hours"] == 1.0


def test_fires_that_a_pause_skips_say_so() -> None:
    skipped = seen(catalog.TickSkipped(trigger="timer", reason="paused"))
    half = after(minutes=30)
    story = told(configured(), idle((3, "no_work")), restrained("paused"), half, skipped, half)
    assert of(story)["idle_slot_hours"] == {"no_work": 1.5, "paused": 1.5}


@pytest.mark.parametrize("seed", [1, 2])
def test_it_says_what_status_says_of_the_same_window(seed: int) -> None:
    world = LoggedWorld(seed, steps=False)
    world.run(900)
    for hours in (1, 5, 48, 24 * 30):
        seen_by_status = status(world.state, world.now, world.now - hours * HOUR)["categories"]
        assert of(world, hours)["categories"] == seen_by_status


def test_it_counts_the_hours_that_the_fold_alone_lets_go_of() -> None:
    story = told(configured())
    for _ in range(300):
        story.happens(*ran("code", minutes=60))
    assert sum(count for count, _ in counted(story.state, story.now, 400 * HOUR).values()) == HOURS_KEPT
    found = of(story, 400)
    assert (found["categories"][0]["spawned"], found["data"]["sessions"], found["data"]["hours"]) == (300, 300, 300)


def test_the_past_is_the_report_of_then() -> None:
    story = told(configured(categories=THIRDS), *ran(*["code"] * 5))
    then = of(story)
    position, now = len(story.events), story.now
    story.happens(*ran(*["docs"] * 30))
    assert report(story.log, upto=position, now=now, span=48 * HOUR) == then


def test_nothing_is_known_of_an_empty_log() -> None:
    found = report(Logged().log, upto=0, now=DAY, span=HOUR)
    assert {each["ok"] for each in (*found["questions"], *found["ladder"])} == {None}
    assert (found["data"]["sessions"], found["idle_slot_hours"], found["categories"]) == (0, {}, [])
    assert "no decision was made" in shown(found)


def test_the_screen_has_80_columns_with_bars_about_the_target() -> None:
    lines = shown(of(fleet(25))).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 40
    [code] = [line for line in lines if line.startswith(" code ")]
    assert code.rstrip().endswith("33 %    20 %  ████████████│████████"), "1.67 times its target"


def shown(found: dict[str, Any]) -> str:
    out = console()
    with out.capture() as captured:
        out.print(render(found))
    return captured.get()


def test_the_command_prints_the_object_and_refuses_a_time_to_come(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = told(configured(), *ran("code"), path=tmp_path / "loop.db")
    at = str(len(story.events))
    assert run(tmp_path / "loop.db", since="48h", at=at, as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["as_of"]["position"]) == ("loop.report/1", len(story.events))
    names = [each["name"] for each in found["questions"]]
    assert names == ["neglected", "over_allocation", "same_lock", "noop", "output"]
    with pytest.raises(UsageError, match="not before"):
        run(tmp_path / "loop.db", since="2099-01-01", at=at, as_json=True)


def test_a_short_window_is_not_folded_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    from projections import snapshots

    story = told(configured())
    for _ in range(60):
        story.happens(*ran("code", minutes=30))
    snapshots.save(story.log, story.state.load(story.state.dump()))
    folded: list[int] = []
    real = story.log.events
    monkeypatch.setattr(
        story.log, "events", lambda *span: (folded.append(event.position) or event for event in real(*span))
    )
    story.happens(after(hours=3), *ran("code"))
    history(story.log, upto=len(story.events), now=story.now, span=MINUTE * 90)
    assert min(folded) > len(story.events) - 20
