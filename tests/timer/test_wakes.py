"""When a timer wakes: the pattern of every schedule holds each nominal instant, and is exact where it says so."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.envelope import to_micros
from loop.timer.wakes import STEPS, Wakes, wakes
from projections.schedule import next_fire

NOW = to_micros("2026-01-01T00:00:00Z")
SECOND = 1_000_000
HOUR = 3_600 * SECOND
CHANGES = ("2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z")
ZONES = ("UTC", "Europe/Stockholm", "Asia/Kolkata", "Australia/Lord_Howe", "America/St_Johns", "Africa/Casablanca")
LINES = (
    "*/30 * * * *", "0 * * * *", "30 2 * * *", "*/20 2 * * *", "15 1,2,3 * * *", "0 9 * * 1-5", "5 4 * * sun",
    "0 0 1,15 * *", "0 0 13 * 5", "0 12 L * *", "0 12 * * 5#2", "0 12 * 1-3 *", "0 0 */2 * *", "7-59/13 */5 * * *",
    "0 9 * * 7", "59 23 31 12 *",
)  # fmt: skip


def every(seconds: float) -> dict[str, Any]:
    return {"every": seconds, "cron": None, "timezone": None}


def cron(line: str, zone: str = "UTC") -> dict[str, Any]:
    return {"every": None, "cron": line, "timezone": zone}


def holds(pattern: Wakes, moment: int) -> bool:
    """Whether a pattern wakes at this moment."""
    at = datetime.fromtimestamp(moment // SECOND, UTC)
    fields = (
        (pattern.weekdays, at.weekday()), (pattern.months, at.month), (pattern.days, at.day),
        (pattern.hours, at.hour), (pattern.minutes, at.minute), (pattern.seconds, at.second),
    )  # fmt: skip
    return moment % SECOND == 0 and all(not numbers or number in numbers for numbers, number in fields)


def instants(schedule: dict[str, Any], begin: int, end: int) -> list[int]:
    found = []
    while (begin := next_fire(schedule, begin)) < end:
        found.append(begin)
    return found


@given(st.one_of(st.sampled_from(STEPS), st.integers(1, 200_000)), st.integers(NOW, NOW + 400 * 24 * HOUR))
@settings(max_examples=200)
def test_an_interval_wakes_at_its_instants(seconds: int, moment: int) -> None:
    pattern = wakes(every(seconds), NOW)
    assert all(holds(pattern, fire) for fire in instants(every(seconds), moment, moment + 20 * seconds * SECOND))
    assert pattern.exact == (seconds in STEPS)


@given(st.sampled_from(STEPS), st.integers(0, 86_399))
def test_where_a_pattern_is_exact_it_wakes_at_nothing_else(step: int, second: int) -> None:
    moment = NOW + second * SECOND
    assert holds(wakes(every(step), NOW), moment) == (moment % (step * SECOND) == 0)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("line", LINES)
def test_a_cron_line_wakes_at_its_instants_through_every_change_of_the_clocks(line: str, zone: str) -> None:
    pattern = wakes(cron(line, zone), NOW)
    for change in CHANGES:
        begin = to_micros(change) - 40 * HOUR
        assert all(holds(pattern, fire) for fire in instants(cron(line, zone), begin, begin + 80 * HOUR))
    year = instants(cron(line, zone), NOW, NOW + 366 * 24 * HOUR)[:400]
    assert all(holds(pattern, fire) for fire in year)


@pytest.mark.parametrize("line", LINES)
def test_an_exact_cron_line_wakes_at_nothing_else(line: str) -> None:
    pattern = wakes(cron(line), NOW)
    fires = set(instants(cron(line), NOW - 1, NOW + 60 * 24 * HOUR))
    woken = {moment for moment in range(NOW, NOW + 60 * 24 * HOUR, 60 * SECOND) if holds(pattern, moment)}
    assert fires <= woken
    assert (fires == woken) == pattern.exact


@pytest.mark.parametrize(
    ("schedule", "calendar", "crontab", "exact"),
    [
        (every(1800), "*-*-* *:00/30:00 UTC", "*/30 * * * *", True),
        (every(3600), "*-*-* *:00:00 UTC", "0 * * * *", True),
        (every(21600), "*-*-* 00/6:00:00 UTC", "0 * * * *", True),
        (every(86400), "*-*-* 00:00:00 UTC", "0 * * * *", True),
        (every(60), "*-*-* *:*:00 UTC", "* * * * *", True),
        (every(10), "*-*-* *:*:00/10 UTC", "* * * * *", True),
        (every(2700), "*-*-* *:00/15:00 UTC", "*/15 * * * *", False),
        (every(420), "*-*-* *:*:00 UTC", "* * * * *", False),
        (every(0.5), "*-*-* *:*:* UTC", "* * * * *", False),
        (every(172800), "*-*-* 00:00:00 UTC", "0 * * * *", False),
        (cron("0,30 9 * * 1-5"), "Mon,Tue,Wed,Thu,Fri *-*-* 09:00/30:00 UTC", "*/30 * * * *", True),
        (cron("0 0 1,15 1-3 *"), "*-01,02,03-01,15 00:00:00 UTC", "0 * * * *", True),
        (cron("30 2 * * *", "Europe/Stockholm"), "*-*-* *:00/30:00 UTC", "*/30 * * * *", False),
        (cron("*/20 * * * *", "Asia/Kolkata"), "*-*-* *:10,30,50:00 UTC", "10,30,50 * * * *", True),
        (cron("0 0 13 * 5"), "*-*-* 00:00:00 UTC", "0 * * * *", False),
    ],
)
def test_the_pattern_as_systemd_and_cron_read_it(
    schedule: dict[str, Any], calendar: str, crontab: str, exact: bool
) -> None:
    pattern = wakes(schedule, NOW)
    assert (pattern.calendar(), pattern.crontab(0), pattern.exact) == (calendar, crontab, exact)
    assert (pattern.why is None) == exact


def test_a_crontab_follows_a_machine_whose_zone_is_off_by_half_an_hour() -> None:
    assert wakes(every(3600), NOW).crontab(330) == "30 * * * *"
    assert wakes(every(1800), NOW).crontab(330) == "*/30 * * * *"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("schedule", [*map(every, (10, 60, 420, 1800, 2700, 21600, 86400)), *map(cron, LINES)], ids=str)
def test_systemd_reads_the_pattern_as_it_is_meant(schedule: dict[str, Any]) -> None:
    pattern = wakes(schedule, NOW)
    command = ["systemd-analyze", "calendar", "--base-time=2026-01-01 00:00:00 UTC", "--iterations=40"]
    done = subprocess.run(
        [*command, pattern.calendar()], capture_output=True, text=True, timeout=30, check=False, env={"TZ": "UTC"}
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ", 1)[1] for line in done.stdout.splitlines() if ("elapse" in line or "Iter" in line)]
    read = [datetime.strptime(line[4:23], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC) for line in lines]
    assert len(read) == 40
    moments = [int(moment.timestamp()) * SECOND for moment in read]
    assert all(holds(pattern, moment) for moment in moments)
    expected = instants(schedule, NOW, moments[-1] + 1)
    assert set(expected) <= set(moments)
    if pattern.exact:
        assert moments == expected
