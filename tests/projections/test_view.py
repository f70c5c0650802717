"""`view(State, now)`: everything that time alone changes, and nothing of it in the State."""

from __future__ import annotations

import copy

import pytest
from given import (
    HOUR,
    MINUTE,
    SECOND,
    START,
    Story,
    after,
    by_hand,
    configured,
    decided,
    failed,
    given,
    granted,
    limited,
    over,
    ranking,
    rejection,
    requested,
    running,
    seen,
    started,
    tick,
)
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events import catalog
from projections.pools import UNKNOWN_LIMIT
from projections.state import State
from projections.view import view


def test_there_is_no_view_before_the_first_config() -> None:
    with pytest.raises(ValueError, match="config"):
        view(State(), START)


@for_all(st.integers(0, 10_000), st.integers(-3 * HOUR, 100 * HOUR))
@settings(max_examples=25)
def test_a_view_changes_no_state_and_two_are_alike(seed: int, later: int) -> None:
    story = history(seed, 120)
    before = story.state.dump()
    assert view(story.state, story.now + later) == view(story.state, story.now + later)
    assert story.state.dump() == before


def test_a_view_stays_as_it_was_while_the_state_goes_on() -> None:
    """A pass keeps its view while it appends the grants decided on it."""
    story = given(configured(), tick(), ranking("code", "docs"), granted("s1"))
    seen_then = story.view()
    kept = copy.deepcopy(seen_then)
    story.happens(started("s1"), decided(1), running("s2", "docs"), over("s1"))
    assert seen_then == kept


# ── cool-downs ────────────────────────────────────────────────────────────────────────────────────────────────────────


def cooling(story: Story, minutes: float = 0) -> float | None:
    """For how many minutes after `minutes` more the category `code` cools down."""
    now = story.now + round(minutes * MINUTE)
    until = story.view(now).categories["code"].cooldown_until
    return None if until is None else (until - now) / MINUTE


@pytest.mark.parametrize(
    "outcome", ["noop", "unproven", "blocked", "failed", "refused", "timed_out", "stalled", "cancelled"]
)
def test_by_default_a_category_cools_down_for_one_period(outcome: str) -> None:
    story = given(configured(every=600), running("s1"), over("s1", outcome))
    assert cooling(story) == 10
    assert cooling(story, 9.5) == 0.5
    assert cooling(story, 10) is None


@pytest.mark.parametrize("outcome", ["productive", "limited"])
def test_by_default_it_does_not_after_a_productive_end_or_a_limit(outcome: str) -> None:
    assert cooling(given(configured(), running("s1"), over("s1", outcome))) is None


@pytest.mark.parametrize(("own_command", "minutes"), [(True, 30), (False, None)])
def test_a_missing_command_cools_down_only_whose_command_it_is(own_command: bool, minutes: float | None) -> None:
    config = configured(categories={"code": {"own_command": own_command}})
    assert cooling(given(config, granted("s1"), failed("s1", "command_not_found"))) == minutes


def test_a_configured_cool_down_follows_every_end() -> None:
    for outcome in ("productive", "noop", "limited"):
        config = configured(categories={"code": {"cooldown": 120.0}})
        assert cooling(given(config, running("s1"), over("s1", outcome))) == 2
    config = configured(categories={"code": {"cooldown": 0.0}})
    assert cooling(given(config, running("s1"), over("s1", "noop"))) is None


def test_a_request_that_was_voided_cools_nothing() -> None:
    assert cooling(given(configured(), granted("s1"), failed("s1", "voided"))) is None


def test_another_category_does_not_cool_down_with_it() -> None:
    story = given(configured(), running("s1", "docs"), over("s1", "noop"))
    assert cooling(story) is None
    assert story.view().categories["docs"].cooldown_until is not None


# ── pools ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pool(story: Story, minutes: float = 0) -> tuple[str, float | None]:
    now = story.now + round(minutes * MINUTE)
    backend = story.view(now).backends["default"]
    return backend.state, None if backend.until is None else (backend.until - now) / MINUTE


def test_a_limit_with_a_known_reset_ends_by_itself() -> None:
    story = given(configured(), limited(minutes=10))
    assert pool(story) == ("limited", 10)
    assert pool(story, 9) == ("limited", 1)
    assert pool(story, 10) == ("available", None)


def test_a_limit_without_a_reset_is_unknown_and_tried_again_in_time() -> None:
    story = given(configured(), limited())
    assert pool(story) == ("unknown", None)
    assert pool(story, UNKNOWN_LIMIT / MINUTE - 0.1) == ("unknown", None)
    assert pool(story, UNKNOWN_LIMIT / MINUTE) == ("available", None)


def test_a_pool_that_is_probed_shows_as_limited() -> None:
    story = given(configured(), limited(minutes=10), seen(catalog.BackendProbed(pool="default", source="x")))
    assert pool(story) == ("limited", 10)
    story = given(configured(), limited(), seen(catalog.BackendProbed(pool="default", source="x")))
    assert pool(story) == ("unknown", None)


def test_a_restored_pool_is_available_at_once() -> None:
    story = given(configured(), limited(minutes=10), seen(catalog.BackendRestored(pool="default", source="x")))
    assert pool(story) == ("available", None)


def test_backends_of_one_pool_share_its_limit() -> None:
    config = configured(backends={"one": {"pool": "max"}, "two": {"pool": "max"}, "own": {"pool": "own"}})
    story = given(config, limited("max", minutes=10))
    states = {name: backend.state for name, backend in story.view().backends.items()}
    assert states == {"one": "limited", "two": "limited", "own": "available"}


# ── respawns, answers, rates ──────────────────────────────────────────────────────────────────────────────────────────


def due(story: Story, minutes: float = 0) -> list[str]:
    return [each.session for each in story.view(story.now + round(minutes * MINUTE)).due]


def test_a_due_respawn_lapses_after_one_period() -> None:
    story = given(configured(every=600), running("s1"), over("s1"))
    assert due(story) == due(story, 9.9) == ["s1"]
    assert due(story, 10) == []


@pytest.mark.parametrize(("grade", "well"), [(None, True), (0.65, True), (0.64, False), (0.0, False)])
def test_a_grade_decides_where_there_is_one(grade: float | None, well: bool) -> None:
    assert due(given(configured(), running("s1"), over("s1", grade=grade))) == (["s1"] if well else [])


def test_an_answer_ages() -> None:
    story = given(configured(max_age=600), tick(), ranking("code"))
    for minutes, fresh in ((0, True), (10, True), (10.01, False), (-1, False)):
        answer = story.happens(tick("session_end")).view(START + round(minutes * MINUTE)).answer
        assert answer is not None
        assert (answer.age, answer.fresh, answer.asked_now) == (round(minutes * MINUTE), fresh, False)


def test_the_answer_of_this_pass_is_fresh_whatever_the_clock_says() -> None:
    answer = given(configured(max_age=0), tick(), ranking("code")).view(START + HOUR).answer
    assert answer is not None
    assert answer.asked_now
    assert answer.fresh


def test_scores_and_targets_are_integers() -> None:
    config = configured(categories={"code": {"target": 0.25}, "docs": {}})
    story = given(config, tick(), ranking({"category": "code", "score": 7.25}))
    seen_now = story.view()
    assert seen_now.categories["code"].target == 250_000
    assert seen_now.categories["docs"].target is None
    assert seen_now.answer is not None
    assert seen_now.answer.ranking[0].score == 7_250_000


def test_a_rejection_is_an_answer_without_a_ranking() -> None:
    answer = given(configured(), tick(), rejection("timeout")).view().answer
    assert answer is not None
    assert (answer.rejected, answer.reason, answer.ranking) == (True, "timeout", ())


def test_starts_of_the_last_hour_are_counted_to_the_instant() -> None:
    story = given(configured(), requested("s1"), after(minutes=30), requested("s2", "docs"))
    rates = [story.view(START + minutes * MINUTE).rates.hour for minutes in (30, 59, 60, 89, 90)]
    assert rates == [2, 2, 1, 1, 0]


def test_starts_of_the_last_day_are_counted_by_the_hours_touched() -> None:
    story = given(configured(), after(minutes=59), requested("s1"))  # at 14:59
    rates = [story.view(START + minutes * MINUTE).rates.day for minutes in (59, 24 * 60 + 59, 25 * 60)]
    assert rates == [1, 1, 0]


def test_starts_before_a_clock_was_set_back_are_not_in_the_last_hour() -> None:
    story = given(configured(), requested("s1"), after(hours=-3), requested("s2", "docs"))
    assert story.view().rates.hour == 1
    assert story.view().rates.day == 1


def test_a_start_by_hand_is_asked_for_only_in_its_own_pass() -> None:
    story = given(configured(), by_hand("code", task="t", backend="default"))
    manual = story.view().manual
    assert manual is not None
    assert (manual.category, manual.task, manual.backend) == ("code", "t", "default")
    assert story.happens(after(minutes=1), tick()).view().manual is None
    story.happens(seen(catalog.OperatorRequested(action="start"), category="code"))
    assert story.view().manual is None, "asked for outside of any pass"


def test_times_of_the_config_are_microseconds() -> None:
    assert given(configured()).view().categories["code"].timeout == 3000 * SECOND


def test_sessions_last_as_long_as_those_that_ended_in_the_window() -> None:
    story = given(configured(), running("s1"), over("s1", seconds=100.0), running("s2"), over("s2", seconds=201.0))
    assert story.view().categories["code"].mean_seconds == 150
    story.happens(running("s3"), requested("s4", "docs"))
    assert story.view().categories["code"].mean_seconds == 150, "one that still runs says nothing yet"
    assert story.view().categories["docs"].mean_seconds is None
    assert (story.view().categories["code"].requested, story.view().categories["docs"].requested) == (0, 1)
    assert story.view(story.now + 49 * HOUR).categories["code"].mean_seconds is None
