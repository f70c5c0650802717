"""A reader pinned for minutes: ours pin nothing, a foreign one is told of, and the write-ahead log shrinks after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from events.catalog import LoopPaused, NoticeSent
from events.place import wal_bytes
from events.sqlite import sqlite3, wal_is_safe
from events.store import WAL_LIMIT, EventLog
from tests.e2e.e2e_project import Project

pytestmark = pytest.mark.skipif(not wal_is_safe(), reason="this SQLite keeps no write-ahead log")

MIB = 1 << 20


@pytest.fixture
def writer(project: Project) -> Iterator[EventLog]:
    project.configure("code")
    log = EventLog.open(project.db)
    yield log
    log.close()


def append(log: EventLog, megabytes: int) -> None:
    """As many transactions of a megabyte."""
    for _ in range(megabytes):
        with log.transaction() as transaction:
            for _ in range(16):
                transaction.append(LoopPaused(reason="x" * (MIB // 16)), actor="test")


def levels(project: Project) -> tuple[str, list[str]]:
    """What doctor says of the write-ahead log, and the problems that status knows."""
    checks = {check["name"]: check["level"] for check in project.json("doctor", code=None)["checks"]}
    return checks["wal"], [problem["code"] for problem in project.status()["problems"]]


def test_a_foreign_reader_that_stays_is_told_of_and_the_log_shrinks_when_it_goes(
    project: Project, writer: EventLog
) -> None:
    reader = sqlite3.connect(project.db, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT max(position) FROM events").fetchone()
    append(writer, WAL_LIMIT // MIB + 8)
    assert wal_bytes(project.db) > WAL_LIMIT
    assert levels(project) == ("warn", ["wal_long"])
    assert reader.execute("SELECT max(position) FROM events").fetchone() == before, "it was not pinned"
    reader.execute("ROLLBACK")
    reader.close()
    for _ in range(2):  # the first writes everything back, the second begins the file anew
        with writer.transaction() as transaction:
            transaction.append(NoticeSent(kind="test"), actor="test")
    assert wal_bytes(project.db) <= WAL_LIMIT
    assert levels(project) == ("ok", [])


@pytest.mark.parametrize("command", [("log", "--json"), ("log", "--json", "-f")])
def test_our_own_readers_pin_nothing_however_slowly_they_are_read(
    project: Project, writer: EventLog, command: tuple[str, ...]
) -> None:
    append(writer, 3)
    reader = project.spawn(*command)  # nobody reads its output: it hangs in a full pipe, or waits for more
    assert reader.stdout is not None
    try:
        first = reader.stdout.read(1)
        append(writer, 25)
        assert first == "{"
        assert wal_bytes(project.db) < 10 * MIB
    finally:
        reader.kill()
        reader.communicate()
