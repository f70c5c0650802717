"""Clocks stepped an hour back and five years forward: the log says so, keeps its order, and still verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from events.catalog import NoticeSent, TickStarted
from events.clock import SystemClock
from events.envelope import to_text
from events.store import EventLog
from loop.controller import Loop
from loop.home import at
from loop.journal import Journal
from loop.passes import Fire, note_clock
from loop.status import status
from projections import snapshots
from tests.audit.stores import failing, report_of
from tests.e2e.e2e_project import Project

SECOND = 1_000_000
HOUR = 3_600 * SECOND
YEARS = 5 * 365 * 24 * HOUR
NOTICE = NoticeSent(kind="test")


class Stepped(SystemClock):
    """The machine's clocks, the wall clock off by some microseconds."""

    off = 0

    def now(self) -> int:
        return super().now() + self.off


@pytest.mark.parametrize("steps", [(-HOUR, YEARS), (YEARS, 0)])
def test_passes_go_on_over_any_step_and_the_log_verifies(project: Project, steps: tuple[int, ...]) -> None:
    project.configure("code", slots=1, env={"SAY": '{"outcome": "noop"}', "NAP": "0"})
    clock = Stepped()
    home = at(project.directory / "loop.toml")
    with Loop(home, {"PATH": "/usr/bin:/bin"}, clock) as loop:
        acknowledged = [loop.fire(Fire("manual")).decided]
    project.settle()
    for off in steps:
        clock.off = off
        with Loop(home, {"PATH": "/usr/bin:/bin"}, clock) as loop:
            acknowledged.append(loop.fire(Fire("manual")).decided)
            seen = status(snapshots.load(loop.journal.log), clock.now())
            assert seen["last_tick"]["id"] == acknowledged[-1].tick  # type: ignore[union-attr]
        project.settle()
    assert failing(report_of(project.db)) == {}
    log = EventLog.read(project.db)
    types = [event.type for event in log.events()]
    assert types.count("clock.stepped") >= len(steps), "a step that nobody can see"
    decided = {event.position for event in log.events() if event.type == "fanout.decided"}
    assert decided >= {found.position for found in acknowledged if found}
    log.close()
    project.assert_sound()


def test_a_suspended_host_is_recorded_once_and_is_no_step_of_the_clock(clock: Any) -> None:
    class Laptop(type(clock)):  # type: ignore[misc]
        slept = 0

        def monotonic(self) -> float:
            return float((self.time - self.slept) / 1e6)

    laptop = Laptop()
    journal = Journal(EventLog.in_memory(clock=laptop))
    for awake, slept in ((0, 0), (600, 0), (600, 3600), (600, 0)):
        laptop.sleep(awake + slept)
        laptop.slept += slept * SECOND
        with journal.transaction() as entry:
            note_clock(entry, laptop, "boot")
            moments = {"boottime": laptop.boottime(), "awake": round(laptop.monotonic() * 1e6)}
            entry.append(TickStarted(trigger="manual", pid=1, start=1, boot="boot", **moments), actor="test")
    seen = [(event.type, event.data.get("seconds")) for event in journal.log.events() if event.type != "tick.started"]
    assert seen[1:] == [("host.suspended", pytest.approx(3600, abs=1))]


def by_scan(log: EventLog, at: str) -> int:
    """What `position_at` promises, told in one line."""
    return max((event.position for event in log.events() if event.at <= at), default=0)


@given(st.lists(st.sampled_from([-YEARS, -HOUR, -10 * SECOND, -SECOND, 0, SECOND, HOUR, YEARS]), max_size=25))
@example([HOUR, -HOUR, HOUR, -HOUR])
@settings(max_examples=60)
def test_a_position_is_found_by_its_time_however_the_clock_was_stepped(clock: Any, moves: list[int]) -> None:
    clock = type(clock)()
    log = EventLog.in_memory(clock=clock)
    times = [clock.time]
    for move in moves:
        clock.time += move
        times.append(clock.time)
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
    for time in {time + near for time in times for near in (-1, 0, 1)}:
        assert log.position_at(to_text(time)) == by_scan(log, to_text(time))


def test_a_time_is_found_in_a_few_steps_however_long_the_log(tmp_path: Path, clock: Any) -> None:
    log = EventLog.open(tmp_path / "loop.db", clock=clock)
    start = clock.time
    for _ in range(20):
        clock.time += HOUR
        with log.transaction() as transaction:
            for _ in range(100):
                transaction.append(NOTICE, actor="test")
    asked: list[str] = []
    log._connection.set_trace_callback(asked.append)
    assert log.position_at(to_text(start)) == 1
    assert len(asked) < 20
    log.close()
