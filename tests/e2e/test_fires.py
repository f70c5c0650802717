"""One fire for each nominal instant, whatever wakes the loop and whatever its clock does; a missing one is told."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from e2e_project import Project, wait_until

from events.catalog import ControllerStarted, LoopResumed
from events.clock import SystemClock
from events.envelope import to_micros, to_text
from events.store import EventLog
from loop.commands.passes import tick
from loop.controller import Loop
from loop.home import at
from loop.passes import Fire
from loop.status import status
from projections import snapshots
from projections.schedule import next_fire

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YEARS = 5 * 365 * DAY
ENVIRON = {"PATH": "/usr/bin:/bin"}
NOTHING = '{"all_scores": {}}'
START = to_micros("2026-11-23T14:00:10Z")


class MovedClock(SystemClock):
    """Runs as the machine's, boot time included, but from where it is put; a step moves the wall clock alone."""

    def __init__(self, now: int) -> None:
        self.wall, self.boot = now, super().boottime()

    def now(self) -> int:
        return self.wall

    def boottime(self) -> int:
        return self.boot

    def goes_to(self, moment: int) -> None:
        """Time passes."""
        self.boot += moment - self.wall
        self.wall = moment

    def steps_to(self, moment: int) -> None:
        """Somebody sets the clock."""
        self.wall = moment


class Timed:
    """A project that starts nothing, woken as a timer wakes it."""

    def __init__(self, project: Project, schedule: str) -> None:
        project.configure("code", selector=project.select(NOTHING), loop="")
        project.edit('every = "1h"', schedule)
        self.project = project
        self.clock = MovedClock(START)

    def wakes(self, moment: int | None = None) -> None:
        if moment is not None:
            self.clock.goes_to(moment)
        home = at(self.project.directory / "loop.toml")
        assert tick(home, ENVIRON, timer=True, expect=None, as_json=True, clock=self.clock) == 0

    def steps_to(self, moment: int) -> None:
        self.clock.steps_to(moment)
        self.wakes()

    def loop(self) -> Loop:
        return Loop(at(self.project.directory / "loop.toml"), ENVIRON, self.clock)

    def fires(self) -> list[tuple[str, int]]:
        """(nominal instant, fires missed before it) of every fire, in the order of the log."""
        return [(event.data["nominal"][:16], event.data["missed"]) for event in self._events() if event.data["timer"]]

    def instants(self) -> list[int]:
        return [to_micros(event.data["nominal"]) for event in self._events() if event.data["timer"]]

    def _events(self) -> list[Any]:
        log = EventLog.read(self.project.db)
        try:
            return [event for event in log.events() if event.type == "tick.started"]
        finally:
            log.close()

    def problems(self) -> list[str]:
        log = EventLog.read(self.project.db)
        try:
            seen = status(snapshots.load(log), self.clock.now())
            return [problem["code"] for problem in seen["problems"]]
        finally:
            log.close()


@pytest.fixture
def half_hourly(project: Project) -> Timed:
    return Timed(project, 'every = "30m"')


# ── whatever wakes it ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_eight_timers_at_once_make_one_fire(project: Project) -> None:
    """`every` is a day, so that no second instant comes between."""
    project.configure("code", selector=project.select(NOTHING))
    project.edit('every = "1h"', 'every = "1d"')
    ticks = [project.spawn("tick", "--timer") for _ in range(8)]
    codes = [tick.wait(timeout=60) for tick in ticks]
    assert set(codes) <= {0, 5}
    started, skipped = project.events("tick.started"), project.events("tick.skipped")
    assert len(started) == 1
    assert {event["data"]["reason"] for event in skipped} <= {"used", "overlap"}
    assert len(skipped) == 7
    assert len({event["data"]["nominal"] for event in [*started, *skipped]}) == 1


def test_a_daemon_and_two_timers_use_each_instant_once(project: Project) -> None:
    project.configure("code", selector=project.select(NOTHING))
    project.edit('every = "1h"', 'every = "3s"')
    controller = project.spawn("run", "-q")
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            ticks = [project.spawn("tick", "--timer") for _ in range(2)]
            assert {tick.wait(timeout=60) for tick in ticks} <= {0, 5}
    finally:
        controller.terminate()
        controller.wait(timeout=15)
    used = [event["data"]["nominal"] for event in project.events("tick.started")]
    assert len(used) >= 2
    assert used == sorted(set(used))


def test_a_tick_by_hand_uses_up_no_fire(project: Project) -> None:
    project.configure("code", selector=project.select(NOTHING))
    project.loop("tick")
    assert project.json("tick", "--timer")["skipped"] is None
    assert project.json("tick", "--timer")["skipped"] == "used"
    assert project.json("tick")["skipped"] is None
    assert [event["data"]["trigger"] for event in project.events("tick.started")] == ["manual", "timer", "manual"]


def test_a_fire_that_meets_a_pass_by_hand_comes_after_it(project: Project) -> None:
    """The daemon's instant falls into a slow pass by hand: put off, said once, not lost."""
    project.configure("code", selector=project.select(NOTHING))
    project.edit('every = "1h"', 'every = "1d"')
    slow = project.directory / "selector.sh"
    slow.write_text(slow.read_text().replace("cat", "touch asked; until [ -e go ]; do sleep 0.1; done; cat"))
    by_hand = project.spawn("tick")
    wait_until((project.directory / "asked").exists, what="the pass by hand")
    controller = project.spawn("run", "-q")
    try:
        wait_until(lambda: project.events("tick.skipped"), what="the fire that is put off")
        (project.directory / "go").touch()
        wait_until(lambda: len(project.events("tick.started")) == 2, what="the fire")
    finally:
        controller.terminate()
        controller.wait(timeout=15)
    assert by_hand.wait(timeout=15) == 0
    assert [event["data"]["trigger"] for event in project.events("tick.started")] == ["manual", "timer"]
    assert [event["data"]["reason"] for event in project.events("tick.skipped")] == ["overlap"]


# ── whatever the clock does ───────────────────────────────────────────────────────────────────────────────────────────


def test_missed_fires_are_made_good_by_one_that_counts_them(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.wakes(START + 5 * HOUR)
    half_hourly.wakes(START + 5 * HOUR + MINUTE)
    assert half_hourly.fires() == [("2026-11-23T14:00", 0), ("2026-11-23T19:00", 9)]


def test_a_clock_stepped_forward_is_one_fire_with_the_count(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.steps_to(START + 2 * HOUR)
    assert half_hourly.fires() == [("2026-11-23T14:00", 0), ("2026-11-23T16:00", 3)]


def test_a_clock_stepped_back_fires_no_used_instant_again(half_hourly: Timed) -> None:
    for minutes in range(0, 121, 30):
        half_hourly.wakes(START + minutes * MINUTE)
    half_hourly.steps_to(START + 20 * MINUTE)
    for minutes in range(30, 181, 30):
        half_hourly.wakes(START + minutes * MINUTE)
    assert [nominal[-5:] for nominal, _ in half_hourly.fires()] == [
        "14:00", "14:30", "15:00", "15:30", "16:00", "16:30", "17:00",
    ]  # fmt: skip


def test_a_clock_that_was_years_ahead_does_not_silence_the_loop(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.steps_to(START + YEARS)
    half_hourly.steps_to(START + 10 * MINUTE)
    half_hourly.wakes(START + 31 * MINUTE)
    half_hourly.wakes(START + 32 * MINUTE)
    nominals = [nominal for nominal, _ in half_hourly.fires()]
    assert [nominal for nominal in nominals if nominal < "2027"] == ["2026-11-23T14:00", "2026-11-23T14:30"]
    assert half_hourly.fires()[-1] == ("2026-11-23T14:30", 0), "what a wrong clock skipped was not missed"
    assert half_hourly.problems() == []


def test_an_instant_used_before_the_step_stays_used_behind_a_gap(half_hourly: Timed) -> None:
    """14:00 and 15:00 had their fires, 14:30 was missed; back at 14:25 it comes, and 15:00 does not come again."""
    half_hourly.wakes()
    half_hourly.wakes(START + HOUR)
    half_hourly.steps_to(START + 25 * MINUTE)
    for minutes in (30, 60, 90):
        half_hourly.wakes(START + minutes * MINUTE)
    assert [nominal[-5:] for nominal, _ in half_hourly.fires()] == ["14:00", "15:00", "14:30", "15:30"]


def test_a_late_comer_does_not_fire_for_what_was_coalesced(half_hourly: Timed) -> None:
    """A process that took the time at 14:30 and slept: 15:00 has stood in for its instant."""
    half_hourly.wakes()
    half_hourly.wakes(START + HOUR)

    with half_hourly.loop() as loop:
        late = loop.fire(Fire("timer", nominal=to_micros("2026-11-23T14:30:00Z")))
    assert late.skipped == "used"
    assert [nominal[-5:] for nominal, _ in half_hourly.fires()] == ["14:00", "15:00"]


@pytest.mark.parametrize("change", ["2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z"], ids=["spring", "autumn"])
@pytest.mark.parametrize("line", ["*/30 * * * *", "30 2 * * *"])
def test_a_changed_hour_loses_and_repeats_no_fire(project: Project, change: str, line: str) -> None:
    timed = Timed(project, f'cron = "{line}"\ntimezone = "Europe/Stockholm"')
    begin, end = to_micros(change) - 2 * HOUR, to_micros(change) + 3 * HOUR
    timed.clock = MovedClock(begin)
    timed.wakes()
    for moment in range(begin + 10 * MINUTE, end, 10 * MINUTE):
        timed.wakes(moment)
        timed.wakes(moment + SECOND)
    config = {"cron": line, "timezone": "Europe/Stockholm"}
    expected, moment = [], timed.instants()[0]
    while (moment := next_fire(config, moment)) < end - 10 * MINUTE:
        expected.append(moment)
    assert timed.instants()[1:] == expected, [to_text(each) for each in expected]
    assert [missed for _, missed in timed.fires()] == [0] * (len(expected) + 1)


# ── a fire that does not come ─────────────────────────────────────────────────────────────────────────────────────────


def test_two_periods_without_a_fire_are_a_problem(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.clock.goes_to(START + 59 * MINUTE)
    assert half_hourly.problems() == []
    half_hourly.clock.goes_to(START + 61 * MINUTE)
    assert half_hourly.problems() == ["fire_missed"]
    half_hourly.wakes()
    assert half_hourly.problems() == []


def test_a_clock_that_was_years_ahead_does_not_hide_that_nobody_fires(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.steps_to(START + YEARS)
    half_hourly.steps_to(START)
    assert len(half_hourly.fires()) == 2
    half_hourly.clock.goes_to(START + 61 * MINUTE)
    assert half_hourly.problems() == ["fire_missed"]


def test_a_schedule_of_working_days_is_not_late_on_sunday(project: Project) -> None:
    timed = Timed(project, 'cron = "0 9 * * 1-5"')
    for day, problems in (("20", []), ("22", []), ("23", []), ("24", ["fire_missed"])):
        moment = to_micros(f"2026-11-{day}T09:01:00Z")
        if day == "20":
            timed.clock = MovedClock(moment)
            timed.wakes()
        timed.clock.goes_to(moment + MINUTE)
        assert timed.problems() == problems, datetime.fromtimestamp(moment / 1e6, UTC)


def test_a_paused_loop_misses_nothing_and_one_resumed_is_not_at_once_late(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.project.loop("pause")
    # The store's time is now that of the machine, which the clock of this test must not be behind.
    now = SystemClock().now()
    half_hourly.clock = MovedClock(now + HOUR)
    half_hourly.wakes()
    half_hourly.clock.goes_to(now + 4 * HOUR)
    half_hourly.wakes()
    assert half_hourly.problems() == []
    with half_hourly.loop() as loop, loop.journal.transaction() as entry:
        entry.append(LoopResumed(reason=None), actor="operator")
    assert half_hourly.problems() == []


def test_a_controller_that_never_fired_is_a_problem(half_hourly: Timed) -> None:
    half_hourly.wakes()
    half_hourly.clock.goes_to(START + 59 * MINUTE)
    with half_hourly.loop() as loop, loop.journal.transaction() as entry:
        entry.append(ControllerStarted(pid=1, start=None, boot="b", release="x"), actor="run")
    half_hourly.clock.goes_to(START + 100 * MINUTE)
    assert half_hourly.problems() == [], "counted anew since the controller came up"
    half_hourly.clock.goes_to(START + 120 * MINUTE)
    assert half_hourly.problems() == ["fire_missed"]
