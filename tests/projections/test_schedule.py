"""Nominal instants: anchored in UTC, or by a cron line through both changes of the clock; foreseeable jitter."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.envelope import to_micros, to_text
from projections.schedule import fires_between, jitter, last_fire, next_fire, period

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
STOCKHOLM = ZoneInfo("Europe/Stockholm")

SPRING = to_micros("2026-03-29T01:00:00Z")  # 02:00 becomes 03:00
AUTUMN = to_micros("2026-10-25T01:00:00Z")  # 03:00 becomes 02:00


def every(seconds: float, **more: Any) -> dict[str, Any]:
    return {"every": seconds, "cron": None, "timezone": None, "jitter": 0.0, **more}


def cron(line: str, timezone: str | None = "Europe/Stockholm") -> dict[str, Any]:
    return {"every": None, "cron": line, "timezone": timezone, "jitter": 0.0}


def fires(config: dict[str, Any], after: int, upto: int) -> list[int]:
    found = []
    while (after := next_fire(config, after)) <= upto:
        found.append(after)
    return found


def wall(moment: int) -> str:
    return datetime.fromtimestamp(moment // SECOND, UTC).astimezone(STOCKHOLM).strftime("%d %H:%M")


# ── every ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_instants_are_anchored_at_the_epoch() -> None:
    config = every(1800)
    moment = to_micros("2026-11-23T14:03:00Z")
    assert to_text(last_fire(config, moment)) == "2026-11-23T14:00:00.000000Z"
    assert to_text(next_fire(config, moment)) == "2026-11-23T14:30:00.000000Z"
    assert period(config, moment) == 30 * MINUTE


@given(st.integers(1, 100_000), st.integers(0, 2 * SPRING))
def test_an_instant_is_its_own_last_fire_and_never_its_next(seconds: int, moment: int) -> None:
    config = every(seconds)
    last, following = last_fire(config, moment), next_fire(config, moment)
    assert last <= moment < following == last + period(config, moment)
    assert last_fire(config, following) == following
    assert next_fire(config, last) == following
    assert last % (seconds * SECOND) == 0


@given(st.integers(1, 3600), st.integers(0, 10**9), st.integers(0, 10**9))
def test_fires_between_are_counted_after_and_upto(seconds: int, begin: int, length: int) -> None:
    config = every(seconds)
    begin, end = begin * 1_000, (begin + length) * 1_000
    expected = (end // SECOND // seconds) - (begin // SECOND // seconds)
    assert fires_between(config, begin, end, 10**9) == expected
    assert fires_between(config, begin, end, 50) == min(50, expected)
    assert fires_between(config, end, begin) == 0


# ── cron ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

LINES = ("*/30 * * * *", "0 * * * *", "30 2 * * *", "15 1,2,3 * * *", "*/20 2 * * *", "0 3 * * *", "0 0 25 10 *")


def test_a_half_hourly_loop_loses_and_repeats_nothing_when_the_clocks_change() -> None:
    config = cron("*/30 * * * *")
    for change in (SPRING, AUTUMN):
        found = fires(config, change - 6 * HOUR, change + 6 * HOUR)
        assert len(found) == 24
        assert {after - before for before, after in pairwise(found)} == {30 * MINUTE}
    walls = [wall(moment) for moment in fires(config, AUTUMN - HOUR - 1, AUTUMN + HOUR - 1)]
    assert walls == ["25 02:00", "25 02:30", "25 02:00", "25 02:30"], "the hour that comes twice has its fires twice"
    walls = [wall(moment) for moment in fires(config, SPRING - HOUR, SPRING + HOUR)]
    assert walls == ["29 01:30", "29 03:00", "29 03:30", "29 04:00"], "the hour that never comes has none"


def test_a_daily_time_in_the_missing_hour_comes_right_after_and_in_the_double_hour_once() -> None:
    config = cron("30 2 * * *")
    assert [wall(moment) for moment in fires(config, SPRING - 30 * HOUR, SPRING + 30 * HOUR)] == [
        "28 02:30",
        "29 03:00",
        "30 02:30",
    ]
    assert [wall(moment) for moment in fires(config, AUTUMN - 30 * HOUR, AUTUMN + 30 * HOUR)] == [
        "24 02:30",
        "25 02:30",
        "26 02:30",
    ]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("change", [SPRING, AUTUMN], ids=["spring", "autumn"])
def test_looking_back_and_looking_ahead_agree_around_a_change(line: str, change: int) -> None:
    config = cron(line)
    known = fires(config, change - 40 * HOUR, change + 40 * HOUR)
    for minute in range(-6 * 60, 6 * 60, 7):
        for offset in (0, 1, 30 * SECOND, MINUTE - 1):
            moment = change + minute * MINUTE + offset
            past = [fire for fire in known if fire <= moment]
            coming = [fire for fire in known if fire > moment]
            if past:
                assert last_fire(config, moment) == past[-1], to_text(moment)
            if coming:
                assert next_fire(config, moment) == coming[0], to_text(moment)
            if past and coming:
                assert period(config, moment) == coming[0] - past[-1]
    for fire in known:
        assert last_fire(config, fire) == fire
        assert last_fire(config, fire - 1) < fire


@given(st.sampled_from(LINES), st.integers(SPRING - 400 * HOUR, AUTUMN + 400 * HOUR))
@settings(max_examples=60)
def test_now_lies_between_the_last_fire_and_the_next(line: str, moment: int) -> None:
    config = cron(line)
    last, following = last_fire(config, moment), next_fire(config, moment)
    assert last <= moment < following
    assert next_fire(config, last) == following
    assert last_fire(config, following - 1) == last


def test_fires_between_counts_a_cron_line_too() -> None:
    config = cron("*/30 * * * *")
    known = fires(config, AUTUMN - 5 * HOUR, AUTUMN + 5 * HOUR)
    assert fires_between(config, AUTUMN - 5 * HOUR, AUTUMN + 5 * HOUR) == len(known) == 20
    assert fires_between(config, known[3], known[7]) == 4
    assert fires_between(config, known[0], known[-1], limit=5) == 5


def test_a_cron_line_without_a_zone_is_utc() -> None:
    assert to_text(next_fire(cron("0 12 * * *", None), AUTUMN)) == "2026-10-25T12:00:00.000000Z"


# ── jitter ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_jitter_is_the_same_for_the_same_fire_of_the_same_store() -> None:
    config = every(1800, jitter=120.0)
    assert jitter(config, "store", SPRING) == jitter(config, "store", SPRING)
    assert jitter(every(1800), "store", SPRING) == 0


def test_jitter_spreads_fires_and_stores_over_its_width() -> None:
    config = every(1800, jitter=120.0)
    delays = [jitter(config, "store", SPRING + number * 30 * MINUTE) for number in range(400)]
    assert all(0 <= delay < 120 * SECOND for delay in delays)
    assert len(set(delays)) == 400
    quarters = [sum(delay // (30 * SECOND) == quarter for delay in delays) for quarter in range(4)]
    assert min(quarters) > 60, quarters
    assert len({jitter(config, f"store-{number}", SPRING) for number in range(50)}) == 50
