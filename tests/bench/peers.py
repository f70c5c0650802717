"""Appending and reading back, against the `eventsourcing` package on SQLite: `pip install -e .[bench]`.

Its application saves the very same facts as events of an aggregate, with its own settings (WAL, synchronous=FULL, as
ours). It neither chains hashes nor keeps private parts aside. How it reads back is told in `tests.bench.replays`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

from events.store import EventLog
from tests.bench import replays
from tests.bench.append import request
from tests.bench.fold import EVENTS
from tests.bench.history import store
from tests.bench.measure import Goal, Line, paired

ROUNDS = 40
BATCHES = {1: 40, 100: 2}  # events in a transaction -> transactions in a round


class Session(Aggregate):
    """One stream of grants."""

    @event("Requested")
    def request(self, about: dict[str, Any]) -> None:
        self.task = about["task"]


def bench(directory: Path) -> Iterator[Line]:
    for batch, transactions in BATCHES.items():
        pair = Pair(directory / f"peers-{batch}", batch, transactions)
        name = f"append beside eventsourcing, {'one' if batch == 1 else batch} a transaction"
        yield paired(name, "events/s", ROUNDS, pair.ours, pair.peer, Goal("ratio", "≥", 1) if batch == 1 else None)
        pair.close()
    yield from replays.bench(directory, store(directory, EVENTS).db)


class Pair:
    """A store of ours and one of theirs, which get the same facts."""

    def __init__(self, directory: Path, batch: int, transactions: int) -> None:
        directory.mkdir()
        self.batch, self.transactions = batch, transactions
        self.log = EventLog.open(directory / "ours" / "loop.db")
        settings = {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(directory / "theirs.db")}
        self.application = Application(env=settings)
        self.session = Session()
        self.application.save(self.session)

    def ours(self) -> float:
        grants = [request(number) for number in range(self.batch * self.transactions)]
        begun = perf_counter()
        for first in range(0, len(grants), self.batch):
            with self.log.transaction() as transaction:
                for grant in grants[first : first + self.batch]:
                    transaction.append(grant, actor="controller", session="s5yq7m2kd3xw", category="code")
        return len(grants) / (perf_counter() - begun)

    def peer(self) -> float:
        grants = [request(number).model_dump() for number in range(self.batch * self.transactions)]
        begun = perf_counter()
        for first in range(0, len(grants), self.batch):
            for grant in grants[first : first + self.batch]:
                self.session.request(grant)
            self.application.save(self.session)
        return len(grants) / (perf_counter() - begun)

    def close(self) -> None:
        self.log.close()
        self.application.close()
