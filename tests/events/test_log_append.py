"""Appending: positions without a gap, rows that nobody can change, text that comes back as it went in."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from events.catalog import BackendLimited, NoticeSent, SessionEnded, SessionLost, SessionSpawnFailed
from events.clock import Clock
from events.envelope import COLUMNS, Event, Record
from events.errors import StoreError
from events.sqlite import sqlite3
from events.store import LONG, EventLog, Filter

NOTICE = NoticeSent(kind="test")


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[EventLog]:
    log = EventLog.open(tmp_path / ".loop" / "loop.db", clock=clock)
    yield log
    log.close()


@pytest.fixture
def intruder(log: EventLog, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Somebody with another SQLite and no manners, on a log of four events: two notices and a session's end."""
    with log.transaction() as transaction:
        transaction.append(NOTICE, actor="test")
        transaction.append(NOTICE, actor="test")
        transaction.append(SessionLost(why="test"), actor="test", session="s1", category="code")
    connection = sqlite3.connect(tmp_path / ".loop" / "loop.db", isolation_level=None)
    yield connection
    connection.close()


def positions(log: EventLog) -> list[int]:
    return [event.position for event in log.events()]


def insert(connection: sqlite3.Connection, record: Record, verb: str = "INSERT") -> None:
    marks = ", ".join("?" * len(COLUMNS))
    connection.execute(f"{verb} INTO events ({', '.join(COLUMNS)}) VALUES ({marks})", record)


def test_a_new_store_begins_with_its_own_birth(log: EventLog) -> None:
    [born] = log.events()
    assert (born.position, born.type) == (1, "store.migrated")
    assert born.data["store"] == log.store_id
    assert log.store_id[0].isalpha()


def test_positions_follow_each_other_over_transactions_and_openings(log: EventLog, tmp_path: Path) -> None:
    with log.transaction() as transaction:
        assert [transaction.append(NOTICE, actor="test").position for _ in range(2)] == [2, 3]
    with log.transaction() as transaction:
        assert transaction.head == 3
        assert transaction.append(NOTICE, actor="test").position == 4
    again = EventLog.open(tmp_path / ".loop" / "loop.db")
    assert positions(again) == [1, 2, 3, 4]
    again.close()


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_rolled_back_transaction_burns_no_position(log: EventLog, failure: type[BaseException]) -> None:
    def half() -> None:
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
            raise failure

    with pytest.raises(failure):
        half()
    assert positions(log) == [1]
    with log.transaction() as transaction:
        assert transaction.append(NOTICE, actor="test").position == 2


def test_text_that_utf8_cannot_carry_is_refused_and_takes_nothing_along(log: EventLog) -> None:
    def append(payload: Any, **envelope: str) -> None:
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
            transaction.append(payload, **{"actor": "test", **envelope})

    for envelope in ({"category": "\ud800"}, {"actor": "\ud800"}):
        with pytest.raises(ValueError):
            append(NOTICE, **envelope)
    with pytest.raises(ValueError):
        append(SessionEnded(outcome="noop", seconds=1, usage={"text": ["\ud800"]}))
    with pytest.raises(ValueError):
        append(SessionEnded(outcome="noop", seconds=math.nan))  # nor what JSON cannot
    with pytest.raises(ValueError):
        append(SessionEnded(outcome="noop", seconds=1, usage={"cost": [math.inf]}))
    assert positions(log) == [1]


@pytest.mark.parametrize(
    "text", ["", "plain", "ü–\U0001f600", 'quote " backslash \\', "nul \x00 and bell \x07", "\u2028"]
)
def test_what_append_returns_is_what_folds_will_read(log: EventLog, text: str) -> None:
    with log.transaction() as transaction:
        appended = transaction.append(
            NoticeSent(kind=text, about=1), actor="test", tick="t1", cause=1, session="s1", category=text
        )
    assert next(log.events(after=1)) == appended
    assert appended.data == {"kind": text, "about": 1, "subject": None}


def test_long_data_is_decoded_only_for_whoever_asks(log: EventLog, intruder: sqlite3.Connection) -> None:
    limited = BackendLimited(pool="x" * LONG, until=None, source="test")
    with log.transaction() as transaction:
        whole, torn = (transaction.append(limited, actor="test") for _ in range(2))
    intruder.execute("PRAGMA ignore_check_constraints = ON")
    intruder.execute("DROP TRIGGER events_no_update")
    intruder.execute("UPDATE events SET data = substr(data, 1, length(data) - 1) WHERE position = ?", (torn.position,))
    first, second = log.events(whole.position - 1)
    assert (first.position, first.data) == (whole.position, whole.data)
    assert first == whole
    assert whole == first
    assert copy.deepcopy(first) == pickle.loads(pickle.dumps(first)) == whole
    assert second.type == torn.type
    assert str(torn.position) in repr(second)
    with pytest.raises(StoreError, match=f"event {torn.position} cannot be read"):
        assert second.data


def test_a_second_end_of_a_session_is_refused(log: EventLog) -> None:
    with log.transaction() as transaction:
        transaction.append(SessionLost(why="first"), actor="test", session="s1")

    def append_end(session: str) -> None:
        with log.transaction() as transaction:
            transaction.append(SessionSpawnFailed(code="x", stage="y"), actor="test", session=session)

    with pytest.raises(StoreError, match="append-only"):
        append_end("s1")
    append_end("s2")
    assert positions(log) == [1, 2, 3]


def test_an_update_is_refused(log: EventLog, intruder: sqlite3.Connection) -> None:
    before = log.select(Filter())
    for column in COLUMNS:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            intruder.execute(f"UPDATE events SET {column} = {column} WHERE position = 2")
    assert log.select(Filter()) == before


def test_a_delete_is_refused(log: EventLog, intruder: sqlite3.Connection) -> None:
    for where in ("", "WHERE position = (SELECT max(position) FROM events)"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            intruder.execute(f"DELETE FROM events {where}")
    assert positions(log) == [1, 2, 3, 4]


@pytest.mark.parametrize("recursive", ["ON", "OFF"])
@pytest.mark.parametrize("same", ["position", "id", "session_end"])
def test_a_replacement_is_refused(log: EventLog, intruder: sqlite3.Connection, same: str, recursive: str) -> None:
    """INSERT OR REPLACE deletes without firing the delete trigger unless recursive triggers are on."""
    intruder.execute(f"PRAGMA recursive_triggers = {recursive}")
    before = log.select(Filter())
    victim = before[-1]
    forged = victim._replace(data='{"why":"forged","held":{}}')
    new = forged._replace(position=5, id="enew", session="s9")
    attempt = {
        "position": forged._replace(id="enew", session="s9"),
        "id": new._replace(id=victim.id),
        "session_end": new._replace(session=victim.session, type="session.ended"),
    }[same]
    for verb in ("INSERT OR REPLACE", "REPLACE"):
        with pytest.raises(sqlite3.IntegrityError, match=r"append-only|head \+ 1"):
            insert(intruder, attempt, verb)
    assert log.select(Filter()) == before
    insert(intruder, new)  # the same row is welcome where it replaces nothing
    assert positions(log) == [1, 2, 3, 4, 5]


def test_every_unique_key_of_events_is_one_that_replacement_is_tested_for(intruder: sqlite3.Connection) -> None:
    keys = set()
    for _, name, unique, *_ in intruder.execute("PRAGMA index_list(events)"):
        if unique:
            keys.add(tuple(row[2] for row in intruder.execute(f"PRAGMA index_info({name})")))
    assert keys == {("id",), ("session",)}  # and the primary key, which is no index


@pytest.mark.parametrize("position", [-1, 0, 6, 100])
def test_a_skipped_position_is_refused(log: EventLog, intruder: sqlite3.Connection, position: int) -> None:
    row = log.select(Filter())[1]
    with pytest.raises(sqlite3.IntegrityError, match="head \\+ 1"):
        insert(intruder, row._replace(position=position, id="enew"))


def test_a_cause_lies_before_its_effect(log: EventLog) -> None:
    def append(cause: int) -> Event:
        with log.transaction() as transaction:
            return transaction.append(NOTICE, actor="test", cause=cause)

    assert append(1).position == 2
    for cause in (3, 4):
        with pytest.raises(StoreError):
            append(cause)
    assert positions(log) == [1, 2]


def test_a_reader_sees_pages_larger_and_smaller_than_its_own(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.store.PAGE", 3)
    for size in range(1, 8):
        assert [event.position for event in log.events(after=1)] == list(range(2, size + 1))
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
    assert [event.position for event in log.events(after=2, upto=6)] == [3, 4, 5, 6]


def test_select_finds_by_every_part_of_its_filter(log: EventLog, clock: Any) -> None:
    with log.transaction() as transaction:
        transaction.append(NOTICE, actor="test", tick="t1", session="s1", category="code")
    clock.time += 60_000_000
    with log.transaction() as transaction:
        late = transaction.append(SessionLost(why="x"), actor="test", tick="t2", session="s2", category="docs")

    def found(*args: Any, **kwargs: Any) -> list[int]:
        return [record.position for record in log.select(Filter(**kwargs), **dict(args))]

    assert found() == [1, 2, 3]
    assert found(types=("session.*",)) == [3]
    assert found(types=("session.*", "notice.sent")) == [2, 3]
    assert found(session="s1") == found(tick="t1") == found(category="code") == [2]
    assert found(since=late.at) == found(after=2) == [3]
    assert found(upto=2) == [1, 2]
    assert [record.position for record in log.select(Filter(), limit=2, newest=True)] == [2, 3]
    assert [record.position for record in log.select(Filter(), limit=2)] == [1, 2]


def test_ids_are_found_by_their_beginning(log: EventLog) -> None:
    with log.transaction() as transaction:
        session, tick = transaction.session_id(2), transaction.tick_id(2)
        event = transaction.append(NOTICE, actor="test", session=session, tick=tick)
    [_, record] = log.select(Filter())
    for kind, id in (("session", session), ("tick", tick), ("id", record.id)):
        assert id[0].isalpha()
        assert (kind, id) in log.ids(id[:5])
        assert log.ids(id) == [(kind, id)]
    assert log.ids("zzz") == []
    assert event.session == session


def test_two_stores_never_name_a_session_alike(tmp_path: Path) -> None:
    one, other = (EventLog.open(tmp_path / name / "loop.db") for name in ("one", "other"))
    with one.transaction() as first, other.transaction() as second:
        assert first.session_id(2) != second.session_id(2)
        assert first.session_id(2) == first.session_id(2) != first.session_id(3)
    one.close()
    other.close()


def test_data_is_stored_as_canonical_json(log: EventLog) -> None:
    with log.transaction() as transaction:
        transaction.append(NoticeSent(kind="ü"), actor="test")
    [_, record] = log.select(Filter())
    assert record.data == '{"kind":"ü","about":null,"subject":null}'
    assert json.loads(record.data) == {"kind": "ü", "about": None, "subject": None}
