"""Durable appends, against the bare INSERT of the very same rows.

Ours is a model split, given its id, its salt and its hash, and appended by `EventLog.transaction().append`; making the
model is the caller's work, as the row of the peer is finished too. The peer is the same SQLite library with the same
pragmas (WAL, synchronous=FULL) on a store of the same schema: the table `events` with its checks, its unique id, its
indexes `events_one_end`, `events_by_session`, `events_by_tick` and `events_by_type`, and its four triggers against
updates, deletes, replacement and gaps. It gets the finished rows, between BEGIN IMMEDIATE and COMMIT.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from events.catalog import SessionRequested
from events.envelope import COLUMNS
from events.store import EventLog, Filter
from tests.bench.measure import Goal, Line, connect, paired

if TYPE_CHECKING:
    from sqlite3 import Connection

INSERT = f"INSERT INTO events ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"
PRAGMAS = ("journal_mode = wal", "synchronous = FULL", "foreign_keys = ON", "recursive_triggers = ON")
ROUNDS = 80
BATCHES = {1: 40, 10: 10, 100: 2}  # events in a transaction -> transactions in a round


def bench(directory: Path) -> Iterator[Line]:
    for batch, transactions in BATCHES.items():
        ours, peer = (directory / f"append-{batch}-{side}" / "loop.db" for side in ("ours", "peer"))
        EventLog.open(peer).close()
        with closing(EventLog.open(ours)) as log, closing(connect(peer)) as bare:
            for pragma in PRAGMAS:
                bare.execute(f"PRAGMA {pragma}")
            pair = Pair(log, bare, batch, transactions)
            pair.ours()  # the rows for the peer's first turn
            name = "append, one a transaction" if batch == 1 else f"append, {batch} a transaction"
            goal = Goal("ratio", "≥", 0.85) if batch == 1 else None
            yield paired(name, "events/s", ROUNDS, pair.ours, pair.peer, goal)


class Pair:
    """Two stores that get the same rows, the peer one turn later."""

    def __init__(self, log: EventLog, bare: Connection, batch: int, transactions: int) -> None:
        self.log, self.bare, self.batch, self.transactions = log, bare, batch, transactions

    def ours(self) -> float:
        head = self.log.head().position
        grants = [request(head + number) for number in range(self.batch * self.transactions)]
        batches = [grants[first : first + self.batch] for first in range(0, len(grants), self.batch)]
        begun = perf_counter()
        for batch in batches:
            with self.log.transaction() as transaction:
                for grant in batch:
                    transaction.append(
                        grant,
                        actor="controller",
                        tick="t4f7kq2m9xab",
                        cause=transaction.head,
                        session="s5yq7m2kd3xw",
                        category="code",
                    )
        return len(grants) / (perf_counter() - begun)

    def peer(self) -> float:
        position = self.bare.execute("SELECT max(position) FROM events").fetchone()[0]
        rows = [tuple(row) for row in self.log.select(Filter(after=position), limit=self.batch * self.transactions)]
        execute, begun = self.bare.execute, perf_counter()
        for first in range(0, len(rows), self.batch):
            execute("BEGIN IMMEDIATE")
            for row in rows[first : first + self.batch]:
                execute(INSERT, row)
            execute("COMMIT")
        return len(rows) / (perf_counter() - begun)


def request(number: int) -> SessionRequested:
    """A grant as passes make them, with a private part."""
    task = f"issue-{number}: mend the parser of quoted words"
    return SessionRequested(
        task=task,
        backend="opus-2",
        pool="opus",
        keys=["code", "repo-api"],
        chain=0,
        parent=None,
        rule="selected",
        trigger="timer",
        timeout=3000.0,
        deadline="2026-11-23T14:53:00.123456Z",
        argv=["my-agent", "--category", "code", "--task", task, "--output-format", "stream-json"],
        cwd="/srv/project/work/code",
    )
