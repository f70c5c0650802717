"""When a pool or a backend takes sessions: one refusal closes all, one probe opens, failures count in a window."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    HOUR,
    MINUTE,
    Happening,
    Story,
    after,
    configured,
    failed,
    given,
    granted,
    limited,
    lost,
    over,
    running,
    seen,
    started,
)

from events import catalog
from events.envelope import to_micros
from projections.backends import BREAKER_WINDOW, FAILURES
from projections.pools import BREAK, JITTER, LONGEST, PROVEN, UNKNOWN_LIMIT, instants, is_limited
from projections.view import Backend

TWO = {"one": {"pool": "max"}, "two": {"pool": "max"}, "own": {"pool": "own"}}
AGENTS = {"code": {"own_command": False}, "docs": {"own_command": False}}


def backend(story: Story, name: str = "default", minutes: float = 0) -> Backend:
    return story.view(story.now + round(minutes * MINUTE)).backends[name]


def short(story: Story, name: str = "default", minutes: float = 0) -> tuple[str, str | None, bool]:
    """(state, because, whether one probe is due)"""
    found = backend(story, name, minutes)
    return found.state, found.because, bool(found.trial)


def failures(count: int, outcome: str = "failed", *, first: int = 0, apart: float = 1, **changes: Any) -> Happening:
    """Sessions of the backend's own command that end so, some minutes apart."""

    def happen(story: Story) -> None:
        for number in range(first, first + count):
            story.happens(running(f"f{number}", **changes), over(f"f{number}", outcome), after(minutes=apart))

    return happen


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_refusal_closes_the_pool_for_all_its_backends() -> None:
    story = given(configured(backends=TWO), limited("max", minutes=30))
    assert {name: each.state for name, each in story.view().backends.items()} == {
        "one": "limited", "two": "limited", "own": "available",
    }  # fmt: skip
    assert is_limited(story.state, "max", story.now)
    assert not is_limited(story.state, "own", story.now)


def test_when_its_time_has_come_one_session_tries_it_and_the_others_wait() -> None:
    story = given(configured(backends=TWO), limited("max", minutes=30), after(minutes=30))
    assert short(story, "one") == short(story, "two") == ("available", None, True)
    story.happens(running("s1", backend="one", pool="max"))
    assert short(story, "one") == short(story, "two") == ("limited", "probing", False)
    story.happens(over("s1"), seen(catalog.BackendRestored(pool="max", source="session")))
    assert short(story, "one") == short(story, "two") == ("available", None, False)


def test_a_probe_that_says_nothing_leaves_it_to_the_next() -> None:
    story = given(configured(), limited(minutes=30), after(minutes=30), running("s1"), lost("s1"))
    assert short(story) == ("available", None, True)
    story.happens(running("s2"), over("s2", "cancelled"), running("s3"), over("s3", "failed"))
    assert short(story) == ("available", None, True)


def test_a_probe_that_has_run_for_long_was_not_refused() -> None:
    story = given(configured(), limited(minutes=30), after(minutes=30), running("s1"))
    assert short(story, minutes=PROVEN / MINUTE - 0.1) == ("limited", "probing", False)
    assert short(story, minutes=PROVEN / MINUTE) == ("available", None, False)
    story.happens(after(minutes=10), running("s2", "docs"))
    assert short(story) == ("available", None, False), "whoever comes later is no probe"


def test_a_session_from_before_the_limit_does_not_lift_it() -> None:
    story = given(configured(), running("s1"), limited(minutes=30), over("s1"))
    assert short(story) == ("limited", "limited", False)


def test_a_sibling_that_was_not_told_when_does_not_make_a_known_reset_unknown() -> None:
    story = given(configured(), limited(minutes=30), after(minutes=1), limited())
    assert backend(story).until == story.now + 29 * MINUTE


def test_probes_that_are_refused_at_once_come_ever_later_whatever_reset_is_told() -> None:
    """An agent that tells a reset of a minute ago must not be asked again and again."""
    story, waits = given(configured(), limited(minutes=-1)), []
    for number in range(8):
        until = backend(story).until
        assert until is not None
        waits.append((until - story.now) // MINUTE)
        story.now = until
        story.happens(running(f"s{number}"), seen(catalog.BackendProbed(pool="default", source="session")))
        story.happens(over(f"s{number}", "limited"), limited(minutes=-1))
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_operator_has_a_pool_tried_before_its_time() -> None:
    story = given(configured(), limited(minutes=300), after(minutes=5))
    story.happens(seen(catalog.OperatorRequested(action="probe", backend="default")))
    assert short(story) == ("available", None, True)
    story.happens(running("s1"))
    assert short(story) == ("limited", "probing", False)
    story.happens(over("s1", "limited"), limited(minutes=295))
    assert short(story, minutes=200) == ("limited", "limited", False), "asked once, tried once"


# ── breakers ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_failures_in_a_window_open_the_breaker_and_a_success_between_them_does_not_hide_them() -> None:
    config = configured(categories=AGENTS)
    story = given(config, failures(1), failures(1, "productive", first=1), failures(1, first=2))
    assert short(story) == ("available", None, False)
    story.happens(failures(1, first=3))
    assert short(story) == ("limited", "breaker", False)


def test_as_many_failures_among_many_that_served_open_nothing() -> None:
    story = given(configured(categories=AGENTS), failures(4, "productive"), failures(FAILURES, first=4))
    assert short(story) == ("available", None, False)


def test_failures_further_apart_than_the_window_open_nothing() -> None:
    apart = BREAKER_WINDOW / MINUTE / (FAILURES - 1)
    story = given(configured(categories=AGENTS), failures(5, apart=apart))
    assert short(story) == ("available", None, False)


def test_what_a_category_runs_by_itself_says_nothing_of_the_backend() -> None:
    story = given(configured(), failures(5))
    assert short(story) == ("available", None, False)


@pytest.mark.parametrize("outcome", ["limited", "refused", "cancelled", "noop", "blocked"])
def test_other_ends_open_no_breaker(outcome: str) -> None:
    assert short(given(configured(categories=AGENTS), failures(6, outcome))) == ("available", None, False)


def test_a_missing_program_closes_its_backend_at_once_and_no_other() -> None:
    config = configured(categories=AGENTS, backends=TWO)
    story = given(config, granted("s1", backend="one", pool="max"), failed("s1", "command_not_found"))
    assert short(story, "one") == ("limited", "breaker", False)
    assert short(story, "two") == ("available", None, False)


def test_a_refused_login_closes_the_account_at_once() -> None:
    config = configured(categories=AGENTS, backends=TWO)
    story = given(config, running("s1", backend="one", pool="max"), over("s1", "refused", reason="unauthorised"))
    assert short(story, "one") == short(story, "two") == ("limited", "breaker", False)
    assert short(story, "own") == ("available", None, False)


@pytest.mark.parametrize(
    "end",
    [
        [failed("s1", "command_not_found")],
        [started("s1"), over("s1", "refused", reason="unauthorised")],
        [started("s1"), over("s1", "limited")],
    ],
    ids=["missing", "unauthorised", "limited"],
)
def test_what_the_backend_lacks_does_not_count_against_the_category(end: list[Happening]) -> None:
    story = given(configured(categories=AGENTS, backends=TWO), granted("s1", backend="one", pool="max"), *end)
    assert story.view().categories["code"].cooldown_until is None
    assert story.view().categories["code"].started == 0


def test_a_breaker_half_opens_unaided_and_one_success_closes_it() -> None:
    story = given(configured(categories=AGENTS), failures(FAILURES))
    until = backend(story).until
    assert until is not None
    story.now = until
    assert short(story) == ("available", None, True)
    story.happens(running("s1"))
    assert short(story) == ("limited", "probing", False)
    story.happens(over("s1"))
    assert short(story) == ("available", None, False)
    story.happens(failures(FAILURES - 1))
    assert short(story) == ("available", None, False), "it counts anew"


def test_each_time_in_a_row_it_stays_open_twice_as_long_up_to_a_bound() -> None:
    story, waits = given(configured(categories=AGENTS), failures(FAILURES, apart=0)), []
    for number in range(6):
        until = backend(story).until
        assert until is not None
        waits.append(until - story.now)
        story.now = until
        story.happens(running(f"s{number}"), over(f"s{number}", "failed"))
    for wait, times in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert times <= LONGEST
        assert BREAK * times <= wait < BREAK * times * (1 + 1 / JITTER)


def test_the_jitter_is_the_stores_own_and_the_same_for_whoever_looks() -> None:
    def until(store: str) -> int | None:
        migrated = catalog.StoreMigrated(store=store, schema_from=0, schema_to=1, sqlite="3", release="1")
        return backend(given(seen(migrated), configured(categories=AGENTS), failures(FAILURES))).until

    assert until("a") == until("a")
    assert len({until(store) for store in "abcdefgh"}) > 4


def test_a_session_that_was_live_when_the_breaker_opened_does_not_close_it() -> None:
    story = given(configured(categories=AGENTS), running("old", "docs"), failures(FAILURES), over("old"))
    assert short(story) == ("limited", "breaker", False)


def test_of_a_limit_and_a_breaker_the_later_counts() -> None:
    story = given(configured(categories=AGENTS), failures(FAILURES), limited(minutes=600))
    assert backend(story).until == story.now + 600 * MINUTE


# ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "happened",
    [
        [limited(minutes=30)],
        [limited()],
        [limited(minutes=10), after(minutes=10), running("s1")],
        [failures(FAILURES)],
        [failures(FAILURES), limited(minutes=33)],
    ],
    ids=["limit", "unknown", "probe", "breaker", "both"],
)
def test_it_changes_by_time_alone_at_the_instants_that_are_told(happened: list[Happening]) -> None:
    story = given(configured(categories=AGENTS), *happened)
    told = {instant for instant in instants(story.state, "default") if instant > story.now}
    assert told
    edges = sorted({*told, *(instant - 1 for instant in told)})
    states = {at: story.view(at).backends["default"] for at in range(story.now, story.now + 9 * HOUR, 30 * 1_000_000)}
    states |= {at: story.view(at).backends["default"] for at in edges}
    before = None
    for at in sorted(states):
        now = (states[at].state, bool(states[at].trial))
        if before is not None and now != before[1]:
            assert any(before[0] < instant <= at for instant in told)
        before = (at, now)


def test_an_unknown_limit_is_tried_after_an_hour() -> None:
    story = given(configured(), limited())
    assert short(story, minutes=UNKNOWN_LIMIT / MINUTE) == ("available", None, True)
    assert to_micros(story.state.backends["pools"]["default"]["since"]) == story.now
