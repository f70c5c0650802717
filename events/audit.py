"""What an audit reads of a store: whole rows, damaged ones included, the schema's own text, and the log as SQL views.

Beside `events.store`, whose connection it uses, so that no other room ever sees SQL errors or half-read pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orjson import loads

from events.envelope import COLUMNS, Event, Record
from events.errors import StoreError
from events.store import PAGE, EventLog
from events.upcast import LATEST, upcast
from migrations.views import VIEWS

Objects = dict[tuple[str, str], str]

_VIEWS = ", ".join(f'"{name}" AS ({text})' for name, text in VIEWS.items())


def pages(log: EventLog, after: int, upto: int) -> Iterator[list[Record]]:
    """Every row after a position and up to another in order, in pages; no transaction is held between two of them.

    Text that is not UTF-8, which only a changed file can hold, comes with lone surrogates in the place of its bytes.
    Raises StoreError behind the last row that can be read.
    """
    query = (
        f"SELECT {', '.join(COLUMNS)} FROM events WHERE position > ? AND position <= ? ORDER BY position LIMIT ?"
    )
    size = PAGE
    while after < upto:
        try:
            rows = _page(log, query, (after, upto, size))
        except StoreError:
            if size == 1:
                raise
            size = 1  # what lies before the damage can still be read, row by row
            continue
        if rows:
            yield [Record._make(row) for row in rows]
        if len(rows) < size:
            return
        after = rows[-1][0]


def digests(log: EventLog, page: Sequence[Record]) -> dict[int, bytes]:
    """Position -> the digest of its private part, of the redacted rows among these."""
    if log.origin is None or not log.origin.redacted or not page:
        return {}
    rows = log._rows(
        "SELECT position, digest FROM redacted WHERE position BETWEEN ? AND ?", (page[0].position, page[-1].position)
    )
    return {int(position): bytes(digest) for position, digest in rows}


def _page(log: EventLog, query: str, values: tuple[int, int, int]) -> list[Any]:
    try:
        return log._rows(query, values)
    except StoreError:
        with _tolerant(log):
            return log._rows(query, values)


def event_of(record: Record) -> Event:
    """A row as folds see it. Raises ValueError for what is no JSON object, StoreTooNew for an unknown version."""
    data = loads(record.data)
    if type(data) is not dict:
        raise ValueError(f"its data is no object but {record.data[:40]}")
    if record.version != LATEST.get(record.type, 1):
        data = upcast(record.type, record.version, data)
    return Event(
        record.position, record.type, record.at, record.tick, record.cause, record.session, record.category, data
    )


def damage(log: EventLog) -> list[str]:
    """What SQLite finds damaged in the file, indexes against their tables included; a line each."""
    try:
        return [line for line in log._pragma("integrity_check") if line != "ok"]
    except StoreError as error:
        return [error.message]


def objects(log: EventLog) -> Objects:
    """(kind, name) -> the SQL of every table, index, trigger and view of the store, but for the migrations' own."""
    found = log._rows(
        "SELECT type, name, sql FROM sqlite_schema"
        " WHERE sql IS NOT NULL AND tbl_name NOT GLOB '_sqlite*' AND tbl_name NOT GLOB 'sqlite_*'"
    )
    return {(str(kind), str(name)): str(sql).strip() for kind, name, sql in found}


def expected_objects(log: EventLog) -> Objects:
    """What `objects` gives for a fresh store of the same schema as `log`."""
    fresh = EventLog.empty(log.schema())
    try:
        return objects(fresh)
    finally:
        fresh.close()


def query(log: EventLog, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The rows of one SELECT over `events` and the views of `migrations.views`.

    The views' texts are put in front of it: the store may have an older schema, and views that somebody changed.
    """
    return log._rows(f"WITH {_VIEWS} {sql}", values)


def stored_snapshots(log: EventLog, version: str, after: int, upto: int) -> Iterator[tuple[int, bytes]]:
    """(position, state) of this version's snapshots between two positions, those whose hash is still the chain's.

    One that cannot be read comes as no bytes. Raises StoreError where not even their positions can.
    """
    positions = log._rows(
        "SELECT s.position FROM snapshots s JOIN events e USING (position)"
        " WHERE s.version = ? AND s.position > ? AND s.position <= ? AND s.hash = e.hash ORDER BY s.position",
        (version, after, upto),
    )
    for (position,) in positions:
        try:
            state = log._row("SELECT state FROM snapshots WHERE version = ? AND position = ?", (version, position))
        except StoreError:
            state = (b"",)
        if state is not None:  # else dropped meanwhile, by a writer with newer folds
            yield int(position), bytes(state[0])


def snapshot_count(log: EventLog) -> int:
    """How many snapshots of any version the store keeps."""
    return int(log._row("SELECT count(*) FROM snapshots")[0])


@contextmanager
def still(log: EventLog) -> Iterator[None]:
    """A read transaction in which the log stands still. Keep it short: it pins the write-ahead log."""
    log._rows("BEGIN")
    try:
        yield
    finally:
        log._rows("ROLLBACK")


def place(log: EventLog) -> Path | None:
    """The store's file, for another process to read; None for a log in memory."""
    return log._path


@contextmanager
def _tolerant(log: EventLog) -> Iterator[None]:
    before = log._connection.text_factory
    log._connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        log._connection.text_factory = before
