"""Folding a long log from its beginning, against a bare scan of the same rows that decodes their `data`.

Both only compute and wait for nothing, so it is CPU time that counts: what else runs disturbs that least.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import process_time

from events.store import EventLog
from projections.state import State
from tests.bench.history import store
from tests.bench.measure import Goal, Line, connect, paired

EVENTS = 100_000
ROUNDS = 9
SCAN = "SELECT position, type, version, at, tick, cause, session, category, data FROM events ORDER BY position"


def bench(directory: Path) -> Iterator[Line]:
    db = store(directory, EVENTS).db

    def fold() -> float:
        with closing(EventLog.read(db)) as log:
            begun = process_time()
            state = State().fold(log.events())
            return state.position / (process_time() - begun)

    def scan() -> float:
        with closing(connect(db)) as bare:
            begun, count = process_time(), 0
            for row in bare.execute(SCAN):
                json.loads(row[-1])
                count += 1
            return count / (process_time() - begun)

    yield paired("fold 100,000 events", "events/s", ROUNDS, fold, scan, Goal("ratio", "≥", 0.6))
    with closing(connect(db)) as bare:
        count, data = bare.execute("SELECT count(*), sum(length(CAST(data AS BLOB))) FROM events").fetchone()
    yield Line("size of an event, all told", "bytes", db.stat().st_size / count)
    yield Line("size of its data", "bytes", data / count)
