"""The state at a random position of a long log: from the nearest snapshot, against a fold from the beginning."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter

from events.store import EventLog
from projections import snapshots
from projections.state import State
from tests.bench.history import store
from tests.bench.measure import Line, progress

EVENTS = 100_000
POSITIONS = 300
FOLDED = 15  # of them, every so many folded from the beginning, too


def bench(directory: Path) -> Iterator[Line]:
    choice = random.Random(2)
    ours: list[float] = []
    peers: list[float] = []
    with closing(EventLog.read(store(directory, EVENTS).db)) as log:
        head = log.head().position
        for turn in range(POSITIONS):
            position = choice.randrange(1, head + 1)
            ours.append(_milliseconds(partial(snapshots.load, log, position)))
            if turn % (POSITIONS // FOLDED) == 0:
                peers.append(_milliseconds(partial(_folded, log, position)))
                progress(f"state at a position: {turn} of {POSITIONS}")
    middle, highest = statistics.median(ours), statistics.quantiles(ours, n=100)[98]
    peer = statistics.median(peers)
    yield Line("state at a random position, median", "ms", middle, peer, middle / peer)
    yield Line("state at a random position, 99 of 100", "ms", highest, peer, highest / peer)


def _folded(log: EventLog, position: int) -> State:
    return State().fold(log.events(0, position))


def _milliseconds(action: Callable[[], object]) -> float:
    begun = perf_counter()
    action()
    return (perf_counter() - begun) * 1e3
