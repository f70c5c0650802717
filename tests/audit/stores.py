"""Stores made row by row, so that a test can plant one wrong fact in an otherwise sound log."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from events.chain import GENESIS, link
from events.envelope import COLUMNS, Event, Record, to_json
from events.sqlite import sqlite3 as store_sqlite
from events.store import EventLog
from loop.audit.checks import Report
from loop.audit.verify import verify
from projections import snapshots
from projections.state import State
from tests.audit.written import record

Rows = list[Record]

NAMES = [
    "file", "positions", "chain", "readable", "time", "triggers", "lock_intervals", "tokens", "starts_locked", "slots",
    "ends", "decisions", "snapshots", "projections",
]  # fmt: skip
"""The checks, in their order."""

ROOT = Path(__file__).resolve().parents[2]


def records(events: Sequence[Event]) -> Rows:
    """The events as rows of a sound chain."""
    rows = [record(event, "world") for event in events]
    for index in range(6, len(rows), 7):
        rows[index] = rows[index]._replace(private='{"text":"secret"}', salt=b"salt")
    return chained(rows)


def chained(rows: Sequence[Record]) -> Rows:
    """The rows with the hashes that their content gives: what somebody who rewrites the whole file would write."""
    found: list[Record] = []
    for row in rows:
        found.append(row._replace(hash=link(found[-1].hash if found else GENESIS, row)))
    return found


def changed(row: Record, **values: Any) -> Record:
    """A row with other values in its data."""
    return row._replace(data=to_json({**json.loads(row.data), **values}))


def write(
    path: Path, rows: Sequence[Record], *, keep_snapshots: Sequence[int] = (), without: Sequence[str] = ()
) -> Path:
    """A store of exactly these rows, past all guards; they are put back except for the indexes in `without`."""
    fresh = EventLog.empty()
    connection = store_sqlite.connect(path, isolation_level=None)
    fresh._connection.backup(connection)
    fresh.close()
    guards = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name = 'events' AND type IN ('trigger', 'index')"
        " AND sql IS NOT NULL"
    ).fetchall()
    for kind, name, _ in guards:
        connection.execute(f"DROP {kind} {name}")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO events VALUES ({', '.join('?' * len(COLUMNS))})", rows)
    for position in keep_snapshots:
        connection.execute(
            "INSERT INTO snapshots VALUES (?, ?, ?, ?)",
            (snapshots.version(), position, rows[position - 1].hash, snapshot(rows, position)),
        )
    connection.execute("COMMIT")
    for _, name, sql in guards:
        if name not in without:
            connection.execute(sql)
    connection.close()
    return path


def snapshot(rows: Sequence[Record], position: int) -> bytes:
    """What a snapshot of these rows at a position holds."""
    return zlib.compress(folded(rows[:position]).dump())


def folded(rows: Sequence[Record]) -> State:
    return State().fold(
        Event(row.position, row.type, row.at, row.tick, row.cause, row.session, row.category, json.loads(row.data))
        for row in rows
    )


def schema_1(path: Path) -> Path:
    """The store that a loop of schema 1 left."""
    return released(path, 1)


def released(path: Path, schema: int) -> Path:
    """The store that a loop of an older schema left."""
    connection = sqlite3.connect(path)
    connection.executescript((ROOT / "tests" / "fixtures" / f"schema_{schema}.sql").read_text())
    connection.close()
    return path


def report_of(path: Path, **options: Any) -> Report:
    log = EventLog.read(path)
    try:
        return verify(log, **{"workers": 0, **options})
    finally:
        log.close()


def failing(report: Report) -> dict[str, int | None]:
    return {check.name: check.first_bad for check in report.checks if not check.ok}


def at(rows: Rows, type: str, after: int = 400, **data: Any) -> int:
    """The position of the first event of a type behind another."""
    for row in rows[after:]:
        values = json.loads(row.data)
        if row.type == type and all(values[name] == value for name, value in data.items()):
            return row.position
    raise LookupError(type)


def replaced(rows: Rows, position: int, change: Callable[[Record], Record]) -> Rows:
    """The rows with one changed and the whole chain made anew."""
    return chained([change(row) if row.position == position else row for row in rows])


def detail(report: Report, name: str) -> str:
    return next(check.detail for check in report.checks if check.name == name)


def tamper(path: Path, statements: str) -> None:
    """Change a store behind the back of its triggers, which are put back unless the statements are about them."""
    connection = store_sqlite.connect(path, isolation_level=None)
    guards = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    about_events = statements.startswith("UPDATE events")
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for name, _ in guards if about_events else ():
        connection.execute(f"DROP TRIGGER {name}")
    connection.executescript(statements)
    for _, sql in guards if about_events else ():
        connection.execute(sql)
    connection.close()
