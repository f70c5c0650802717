"""What `feedback` makes of a State at an instant: the back-off's formula, waits, supply."""

from __future__ import annotations

import pytest
from given import MINUTE, Happening, Story, after, configured, failed, gate, given, granted, lost, over, running, tick

from projections import feedback, figures
from projections.feedback import LONGEST, PERIODS
from projections.fold import RECENT

PERIOD = 30 * MINUTE


def ended(*outcomes: str, every: float = 0) -> list[Happening]:
    """Sessions of `code` that end so, `every` minutes apart."""
    found: list[Happening] = []
    for number, outcome in enumerate(outcomes):
        found += [after(minutes=every), running(f"s{number}"), over(f"s{number}", outcome)]
    return found


def backoff(story: Story, later: int = 0) -> tuple[int, int, float] | None:
    """(k, n, periods from now until it is over)."""
    found = story.view(story.now + later).categories["code"].backoff
    return None if found is None else (found.noops, found.of, (found.until - story.now) / PERIOD)


@pytest.mark.parametrize(("count", "periods"), [(2, None), (3, 2), (4, 4), (5, 8), (6, 8), (20, 8)])
def test_it_doubles_with_each_noop_and_is_capped(count: int, periods: int | None) -> None:
    found = backoff(given(configured(), *ended(*["noop"] * count)))
    assert found == (None if periods is None else (count, count, periods))


@pytest.mark.parametrize(("others", "backs_off"), [(6, True), (7, False)])
def test_the_noops_must_be_a_third(others: int, backs_off: bool) -> None:
    before = [*["productive"] * others, *["noop"] * 3]
    between = ["noop", *["failed"] * (others - 1), "noop", "noop", "blocked"]
    for outcomes in (before, between):
        assert (backoff(given(configured(), *ended(*outcomes))) is not None) == backs_off


def test_it_begins_with_the_last_noop_so_that_a_success_after_it_changes_nothing() -> None:
    story = given(configured(), *ended("noop", "noop", "noop"), after(minutes=30), running("s9"), over("s9"))
    assert backoff(story) == (3, 4, 1)


def test_noops_leave_the_window_by_time() -> None:
    apart = PERIODS * 30 / 2
    assert backoff(given(configured(), *ended("noop", "noop", "noop", every=apart))) is None
    assert backoff(given(configured(), *ended("noop", "noop", "noop", every=apart - 1))) == (3, 3, 2)


def test_an_announced_end_is_kept_whatever_time_does() -> None:
    story = given(configured(), *ended("noop", "noop", "noop", "noop"))
    assert [backoff(story, later) for later in (0, PERIOD, 4 * PERIOD - 1, 4 * PERIOD, -1)] == [
        *[(4, 4, 4)] * 3,
        None,
        None,
    ]


def test_only_what_was_assessed_counts() -> None:
    story = given(configured(), *ended("noop", "limited", "unproven", "cancelled", "noop"))
    story.happens(granted("f1"), failed("f1", "command_not_found"), running("l1"), lost("l1"))
    assert [end["noop"] for end in story.state.supply["ends"]["code"]] == [True, True]


def test_what_is_kept_is_bounded() -> None:
    story = given(configured(), *ended(*["noop"] * (RECENT + 5)))
    assert len(story.state.supply["ends"]["code"]) == RECENT
    assert story.state.supply["tasks"] == {}


def test_a_wait_is_of_the_task_that_was_really_looked_at() -> None:
    story = given(configured(), running("s1", task="a"), over("s1", "blocked", done_task="b"))
    wait = story.view().categories["code"].wait
    assert wait is not None
    assert (wait.session, wait.task, wait.until - story.now) == ("s1", "b", LONGEST * PERIOD)


def supply(story: Story, minutes: float = 0) -> str:
    return story.view(story.now + round(minutes * MINUTE)).categories["code"].supply


def test_supply_is_what_the_gate_says_while_it_counts() -> None:
    gated = configured(categories={"code": {"gate": True}})
    for said, expected in (("work", "work"), ("no_work", "none"), ("error", "unknown")):
        story = given(gated, tick(), gate("code", said))
        assert [supply(story, minutes) for minutes in (0, 15, 15.1, -1)] == [expected, expected, "unknown", "unknown"]
    assert supply(given(gated)) == supply(given(configured())) == "unknown", "absence is not zero"


def test_a_lane_found_empty_has_none_until_the_wait_is_over() -> None:
    story = given(configured(), running("s1"), over("s1", "blocked"))
    assert [supply(story, minutes) for minutes in (0, 239, 240)] == ["none", "none", "unknown"]


def test_status_shows_the_same() -> None:
    story = given(configured(categories={"code": {"gate": True}}), tick(), gate("code", "error", 3))
    story.happens(*ended(*["noop"] * 3), running("b1"), over("b1", "blocked"))
    [line] = figures.categories(story.state, story.now)
    assert (line["supply"], line["gate"], line["gate_exit_code"]) == ("none", "error", 3)
    assert line["gate_at"] == "2026-11-23T14:00:00.000000Z"
    assert line["backoff_until"] == "2026-11-23T15:00:00.000000Z"
    assert line["blocked_until"] == "2026-11-23T18:00:00.000000Z"


def test_every_bound_of_the_host_has_its_figure() -> None:
    config = given(configured()).state.control["config"]
    assert config is not None
    assert set(feedback.BOUNDS) == set(config["host"])
