"""What a million events cost a reader, beside ten thousand. Not part of a run without names, for writing the log takes
a quarter of an hour. `LOOP_BENCH_MILLION` names a store that an earlier run has left, for another look.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter

from events.store import EventLog
from projections import snapshots
from projections.state import uncollected
from tests.bench.history import store
from tests.bench.measure import Goal, Line, connect, environment, paired, progress
from tests.bench.status import LOOP, PEER

SIZES = (10_000, 1_000_000)
POSITIONS = 500
ROUNDS = 15


def bench(directory: Path) -> Iterator[Line]:
    kept = os.environ.get("LOOP_BENCH_MILLION")
    roots = [store(directory, SIZES[0]).root, Path(kept) if kept else store(directory, SIZES[1]).root]
    small, large = (_moments(root) for root in roots)
    for name, pick, goal in (("median", statistics.median, None), ("99 of 100", _high, Goal("ratio", "<", 1.5))):
        ours, peer = pick(large), pick(small)
        title = f"state at a random position of a million, {name}; peer: of 10,000"
        yield Line(title, "ms", ours, peer, ours / peer, goal=goal)
    yield Line("the same, 99 of 100", "ms", _high(large), goal=Goal("ours", "<", 10))
    env = environment(directory)

    def milliseconds(argv: tuple[str, ...]) -> float:
        begun = perf_counter()
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
        return (perf_counter() - begun) * 1e3

    for events, root in zip(SIZES, roots, strict=True):
        for words in (("status",), ("status", "--at", str(events // 3))):
            argv = (*LOOP, "-C", str(root), *words)
            goal = Goal("ratio", "<", 2.3) if len(words) == 1 and root == roots[1] else None
            name = f"loop {' '.join(words)}, {events:,} events"
            yield paired(name, "ms", ROUNDS, partial(milliseconds, argv), partial(milliseconds, PEER), goal)
    progress("loop verify")
    seconds = milliseconds((*LOOP, "-C", str(roots[1]), "verify")) / 1e3
    yield Line("loop verify, a million events", "s", seconds, goal=Goal("ours", "<", 60))
    yield _bytes(roots[1])


def _moments(root: Path) -> list[float]:
    """Milliseconds to the state at random positions; the collector is off, as it is while `loop status --at` runs."""
    choice, found = random.Random(3), []
    with closing(EventLog.read(root / ".loop" / "loop.db")) as log, uncollected():
        head = log.head().position
        for _ in range(POSITIONS):
            position = choice.randrange(1, head + 1)
            begun = perf_counter()
            snapshots.load(log, position)
            found.append((perf_counter() - begun) * 1e3)
    return found


def _high(figures: list[float]) -> float:
    return statistics.quantiles(figures, n=100)[98]


def _bytes(root: Path) -> Line:
    db = root / ".loop" / "loop.db"
    with closing(connect(db)) as bare:
        (sessions,) = bare.execute("SELECT count(*) FROM events WHERE type = 'session.started'").fetchone()
    return Line("size of the log for each session, all told", "bytes", db.stat().st_size / sessions)
