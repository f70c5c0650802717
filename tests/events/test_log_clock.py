"""The clock rule: one reading a transaction, and no time in the log runs backwards unless `clock.stepped` says so."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from events.catalog import NoticeSent
from events.envelope import Event, to_micros, to_text
from events.store import CLOCK_TOLERANCE, EventLog

SECOND = 1_000_000
NOTICE = NoticeSent(kind="test")


def append_at(log: EventLog, clock: Any, reading: int) -> list[Event]:
    """Two events in one transaction at a clock reading; returns everything that this added to the log."""
    clock.time = reading
    head = log.head().position
    with log.transaction() as transaction:
        transaction.append(NOTICE, actor="test")
        transaction.append(NOTICE, actor="test")
    return list(log.events(head))


def test_a_transaction_has_one_time_however_long_it_takes(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    with log.transaction() as transaction:
        transaction.append(NOTICE, actor="test")
        clock.time += 5 * SECOND
        transaction.append(NOTICE, actor="test")
    _, one, other = log.events()
    assert one.at == other.at == transaction.at == to_text(transaction.now)


def test_a_clock_a_second_back_takes_the_time_of_the_head(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    start = clock.time
    for reading in (start - SECOND, start - CLOCK_TOLERANCE):
        added = append_at(log, clock, reading)
        assert [event.type for event in added] == ["notice.sent"] * 2
        assert {event.at for event in added} == {to_text(start)}


def test_a_clock_ten_seconds_back_is_recorded_before_anything_else(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    start = clock.time
    stepped, *rest = append_at(log, clock, start - 10 * SECOND)
    assert stepped.type == "clock.stepped"
    assert stepped.data == {"expected": to_text(start), "observed": to_text(start - 10 * SECOND), "seconds": -10.0}
    assert [event.type for event in rest] == ["notice.sent"] * 2
    assert {event.at for event in (stepped, *rest)} == {to_text(start - 10 * SECOND)}


def test_the_tolerance_ends_where_it_says(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    assert append_at(log, clock, clock.time - CLOCK_TOLERANCE - 1)[0].type == "clock.stepped"


def test_a_clock_that_goes_forward_is_believed(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    added = append_at(log, clock, clock.time + 10 * 365 * 86_400 * SECOND)
    assert [event.type for event in added] == ["notice.sent"] * 2
    assert added[0].at == to_text(clock.time)


YEAR_9999 = to_micros("9999-12-31T23:59:59.999999Z")


@given(st.lists(st.integers(0, YEAR_9999) | st.integers(0, 30 * SECOND), max_size=12))
@example([0, YEAR_9999, 0])
def test_time_runs_backwards_only_at_a_recorded_step(clock: Any, readings: list[int]) -> None:
    clock = type(clock)()
    log = EventLog.in_memory(clock=clock)
    for reading in readings:
        last = to_micros(log.head().at or "")
        added = append_at(log, clock, reading)
        now = to_micros(added[-1].at)
        assert now == reading or last - CLOCK_TOLERANCE <= reading < now == last
    events = list(log.events())
    assert [event.position for event in events] == list(range(1, len(events) + 1))
    for before, after in pairwise(events):
        assert len(after.at) == 27
        assert after.at >= before.at or after.type == "clock.stepped"
        if after.type == "clock.stepped":
            assert before.at > after.at
            assert after.data["expected"] == before.at


def test_a_time_is_found_by_position_and_a_position_by_time(clock: Any) -> None:
    log = EventLog.in_memory(clock=clock)
    start = clock.time
    append_at(log, clock, start + SECOND)
    assert log.position_at(to_text(start - 1)) == 0
    assert log.position_at(to_text(start)) == 1
    assert log.position_at(to_text(start + SECOND - 1)) == 1
    assert log.position_at(to_text(start + SECOND)) == 3
    assert log.position_at(to_text(start + 60 * SECOND)) == 3
    assert log.at(3).at == to_text(start + SECOND)
    assert log.at(0).at is None


@given(st.integers(0, YEAR_9999))
def test_the_text_of_a_time_is_exact(moment: int) -> None:
    text = to_text(moment)
    assert len(text) == 27
    assert to_micros(text) == moment
    assert (to_text(min(moment + 1, YEAR_9999)) > text) == (moment < YEAR_9999)
