"""What gates, NOOPs, blocks, tasks and the host say against a start, and who passes all the same."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    Happening,
    after,
    by_hand,
    configured,
    failed,
    gate,
    given,
    granted,
    measured,
    over,
    ranking,
    running,
    tick,
)

from loop.decider import Candidate, decide

GATED: dict[str, Any] = {"code": {"gate": True, "cooldown": 0.0}, "docs": {}}
PLAIN: dict[str, Any] = {"code": {"cooldown": 0.0}, "docs": {"cooldown": 0.0}}


def verdict(
    *happenings: Happening, of: str = "code", categories: dict[str, Any] | None = None, **config: Any
) -> Candidate:
    """The verdict for one category at the end of a story; there are no cool-downs unless said."""
    story = given(configured(categories=categories or PLAIN, **config), *happenings)
    [found] = [each for each in decide(story.view()).candidates if each.category == of]
    return found


def ends(*outcomes: str, **about: Any) -> list[Happening]:
    """Sessions of `code`, one after another."""
    found: list[Happening] = []
    for number, outcome in enumerate(outcomes):
        found += [running(f"e{number}", "code", **about), over(f"e{number}", outcome)]
    return found


def fire(*asked: Any) -> list[Happening]:
    return [tick(), ranking(*(asked or ("code",)))]


# ── gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_work_lets_it_start() -> None:
    assert verdict(*fire(), gate("code"), categories=GATED).verdict == "chosen"


def test_no_work_is_no_start_with_the_age_of_the_answer() -> None:
    found = verdict(*fire(), gate("code", "no_work"), categories=GATED)
    assert (found.verdict, found.detail) == ("no_work", {"because": "gate", "age": 0, "exit_code": 1})


def test_an_error_is_no_start_either_with_the_exit_code() -> None:
    found = verdict(*fire(), gate("code", "error", 3), categories=GATED)
    assert (found.verdict, found.detail) == ("gate_error", {"because": "error", "age": 0, "exit_code": 3})


def test_a_gate_that_never_answered_is_no_silent_yes() -> None:
    assert verdict(*fire(), categories=GATED).detail == {"because": "not_asked"}


def test_an_answer_for_a_category_whose_gate_was_taken_away_says_nothing() -> None:
    assert verdict(*fire(), gate("code", "no_work")).verdict == "chosen"


@pytest.mark.parametrize(("minutes", "expected"), [(14, "chosen"), (16, "gate_error")])
def test_at_a_sessions_end_the_answer_counts_as_long_as_a_ranking(minutes: float, expected: str) -> None:
    story = [*fire(), gate("code"), running("s1"), after(minutes=minutes), over("s1"), tick("session_end", ended="s1")]
    found = verdict(*story, categories=GATED)
    assert (found.rule, found.verdict) == ("respawn", expected)
    if expected == "gate_error":
        assert found.detail == {"because": "too_old", "age": 960, "exit_code": 0}


@pytest.mark.parametrize("said", ["no_work", "error"])
def test_whoever_starts_by_hand_knows_better_than_a_gate(said: str) -> None:
    assert verdict(*fire("docs"), gate("code", said), by_hand("code"), categories=GATED).verdict == "chosen"


# ── NOOP back-off ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_three_noops_back_off_two_periods_and_say_so() -> None:
    story = ends("noop", "noop", "noop")
    found = verdict(*story, after(minutes=59), *fire())
    assert found.verdict == "cooling_down"
    assert found.detail == {"until": "2026-11-23T15:00:00.000000Z", "noops": 3, "of": 3}
    assert verdict(*story, after(minutes=60), *fire()).verdict == "chosen"
    assert verdict(*story[:-2], after(minutes=1), *fire()).verdict == "chosen", "two are none"


def test_a_filler_success_counts_as_one_of_n_and_resets_nothing() -> None:
    found = verdict(*ends("noop", "productive", "noop", "productive", "noop", "productive"), *fire())
    assert (found.verdict, found.detail["noops"], found.detail["of"]) == ("cooling_down", 3, 6)
    plenty = ends(*["productive"] * 7, "noop", "noop", "noop")
    assert verdict(*plenty, *fire()).verdict == "chosen", "three in ten are no reason"


def test_the_longer_of_cool_down_and_back_off_is_named() -> None:
    story = [*ends("noop", "noop", "noop"), *fire()]
    assert "noops" in verdict(*story, categories={"code": {"cooldown": 1800.0}}).detail
    found = verdict(*story, categories={"code": {"cooldown": 7200.0}})
    assert found.detail == {"until": "2026-11-23T16:00:00.000000Z"}


def test_a_respawn_is_bound_by_the_back_off_and_a_start_by_hand_is_not() -> None:
    story = ends("noop", "noop", "noop", "productive")
    found = verdict(*story, tick("session_end", ended="e3"))
    assert (found.rule, found.verdict) == ("respawn", "cooling_down")
    assert verdict(*story, by_hand("code")).verdict == "chosen"


# ── blocked ───────────────────────────────────────────────────────────────────────────────────────────────────────────

TASK = {"category": "code", "task": "issue-7"}


def test_an_empty_lane_is_assessed_once_and_not_at_every_fire() -> None:
    story = [*fire(), *ends("blocked")]
    for _ in range(7):
        story += [after(minutes=30), *fire()]
        found = verdict(*story)
        assert (found.verdict, found.detail["because"], found.detail["session"]) == ("no_work", "blocked", "e0")
        assert found.detail["until"] == "2026-11-23T18:00:00.000000Z"
    assert verdict(*story, after(minutes=30), *fire()).verdict == "chosen", "a bounded time"


def test_another_task_is_something_else() -> None:
    story = [*fire(TASK), *ends("blocked", task="issue-7"), after(minutes=30)]
    assert verdict(*story, *fire(TASK)).detail["task"] == "issue-7"
    assert verdict(*story, *fire()).verdict == "no_work", "no task is no other task"
    assert verdict(*story, *fire({**TASK, "task": "issue-8"})).verdict == "chosen"


def test_a_gate_that_turns_to_work_lifts_it_and_one_that_repeats_itself_does_not() -> None:
    story = [*fire(), gate("code"), *ends("blocked"), after(minutes=30), *fire(), gate("code")]
    assert verdict(*story, categories=GATED).detail["because"] == "blocked"
    story += [after(minutes=30), *fire(), gate("code", "no_work"), after(minutes=30), *fire(), gate("code")]
    assert verdict(*story, categories=GATED).verdict == "chosen"


@pytest.mark.parametrize("outcome", ["productive", "noop", "failed"])
def test_only_a_productive_session_shows_that_it_is_over(outcome: str) -> None:
    found = verdict(*ends("blocked", outcome), after(minutes=30), *fire())
    assert found.verdict == ("chosen" if outcome == "productive" else "no_work")


def test_blocked_waits_in_its_own_category_and_binds_nobody_by_hand() -> None:
    story = ends("blocked")
    assert verdict(*story, *fire("docs"), of="docs").verdict == "chosen"
    assert verdict(*story, by_hand("code")).verdict == "chosen"


# ── tasks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_is_not_given_again_on_an_answer_from_before_its_session_ended() -> None:
    """docs was refused the task while s1 had it; s1 has ended, and may have done it."""
    same = {"task": "issue-7"}
    answer = ranking({"category": "code", **same}, {"category": "docs", **same})
    story = [tick(), answer, running("s1", **same), over("s1", "noop"), tick("session_end", ended="s1")]
    found = verdict(*story, of="docs")
    assert (found.verdict, found.detail) == ("task_taken", {"task": "issue-7", "session": "s1", "over": True})
    assert verdict(*story, tick(), ranking({"category": "docs", **same}), of="docs").verdict == "chosen", "a new answer"
    assert verdict(*story, by_hand("docs", task="issue-7"), of="docs").verdict == "chosen"


def test_a_task_that_was_in_work_when_the_answer_came_is_not_given_on_it() -> None:
    story = [running("s1", task="issue-7"), tick(), ranking({"category": "docs", "task": "issue-7"})]
    story += [over("s1", "noop")]
    assert verdict(*story, tick("session_end", ended="s1"), of="docs").verdict == "task_taken"


def test_a_voided_grant_gives_its_task_back() -> None:
    story = [tick(), ranking({"category": "docs", "task": "t"}), granted("s1", task="t"), failed("s1", "voided")]
    assert verdict(*story, tick("session_end", ended="s1"), of="docs").verdict == "chosen"


def test_a_respawn_goes_on_with_its_task_only_while_the_last_answer_names_it() -> None:
    def carried(*between: Happening) -> list[str]:
        story = given(configured(categories=PLAIN), *fire(TASK), running("s1", task="issue-7"), *between, over("s1"))
        return [choice.task for choice in decide(story.happens(tick("session_end", ended="s1")).view()).chosen]

    assert carried() == ["issue-7"]
    assert carried(after(minutes=1), *fire("docs")) == ["", ""], "and docs, which nobody served"
    assert carried(after(minutes=16)) == [""], "an answer that is too old names nothing"


# ── the host ──────────────────────────────────────────────────────────────────────────────────────────────────────────

BOUNDS: dict[str, Any] = {"max_load_per_cpu": 1.5, "min_memory_available": 0.1, "min_disk_free": 1 << 30}
CALM = {"load_per_cpu": 1.5, "memory_available": 0.1, "disk_free": 1 << 30}


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [("load_per_cpu", 1.51, "max_load_per_cpu"), ("memory_available", 0.09, "min_memory_available"),
     ("disk_free", 5, "min_disk_free"), ("disk_free", None, "min_disk_free")],
)  # fmt: skip
def test_a_busy_host_starts_nothing_and_one_that_cannot_be_measured_neither(name: str, value: Any, bound: str) -> None:
    story = [*fire(), measured(**{**CALM, name: value})]
    found = verdict(*story, **BOUNDS)
    assert (found.verdict, found.detail) == ("host_busy", {name: value, bound: BOUNDS[bound]})
    assert verdict(*story, by_hand("code"), **BOUNDS).verdict == "host_busy", "by hand neither"
    assert verdict(*story, **{key: each for key, each in BOUNDS.items() if key != bound}).verdict == "chosen"


def test_a_host_within_its_bounds_is_not_busy() -> None:
    assert verdict(*fire(), measured(**CALM), **BOUNDS).verdict == "chosen"


def test_an_old_measurement_is_none() -> None:
    found = verdict(tick(), measured(**CALM), after(minutes=16), *fire(), **BOUNDS)
    assert found.detail == {**dict.fromkeys(CALM), **BOUNDS}
