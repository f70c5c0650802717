"""One simulation: a new store, filled by the real passes until the simulated days are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from events.errors import RefusedError
from events.store import EventLog
from loop import __version__
from loop.config import Config
from loop.history import History, Walk
from loop.home import DB_NAME, DEFAULT_STATE
from loop.journal import Journal
from loop.simulate.chance import MICRO, stream
from loop.simulate.clock import ToldClock
from loop.simulate.selector import modelled
from loop.simulate.tally import Tally, figures
from loop.simulate.workload import Workload
from loop.simulate.world import World
from loop.simulate.writer import Ahead, has_room, writing
from projections.state import uncollected

START = 1_893_456_000 * MICRO
"""2030-01-01: always the same, so that the same seed is the same log, and ahead of the present, so that whoever reads
the store takes its last event's time as now."""
DAY = 86_400 * MICRO
BATCH = 4_000  # events that one transaction of the store takes, and between two snapshots

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Simulated:
    """A finished run: the store's file, where its log ends and when, and what was counted."""

    db: Path
    position: int
    days: float
    seed: int
    tally: Tally
    figures: dict[str, float | None]
    history: History
    """All of it, as `loop.report.told` wants it."""

    @property
    def now(self) -> int:
        """The end of the simulated time, microseconds."""
        return START + self.span

    @property
    def span(self) -> int:
        """How long it was, microseconds."""
        return round(self.days * DAY)


def simulate(
    config: Config,
    workload: Workload,
    directory: Path,
    *,
    days: float,
    seed: int,
    progress: Progress | None = None,
    apart: bool | None = None,
) -> Simulated:
    """Simulate so many days into a new store in `directory`; the same seed gives the same log, byte for byte.

    `progress` hears (days done, days). `apart`: whether another process writes; by default where that is quicker.
    Raises StoreError where nothing can be written, RefusedError where a store is, UsageError where a recorded selector
    has no rankings.
    """
    db = directory / DEFAULT_STATE / DB_NAME
    if db.exists():
        raise RefusedError(f"{db} is there already, and a simulation never touches a store", "name a new directory")
    clock = ToldClock(START)
    selector = modelled(workload, config, seed, START)
    entropy = stream(seed, "salt")
    log = EventLog.open(db, clock=clock, entropy=entropy.randbytes, release=__version__, bulk=True)
    try:
        state, ahead = Journal(log).refresh(), Ahead(log.store_id, log.head().position)
    finally:
        log.close()
    end = START + round(days * DAY)
    walk = Walk.new(state, START, end)
    world = World(config, workload, seed, selector, clock, state, ahead, walk.see)
    with writing(db, START, entropy, apart=has_room(days) if apart is None else apart) as writer:
        world.begin()
        while ahead.drafts or world.next < end:
            with uncollected():
                while world.next < end and len(ahead.drafts) < BATCH:
                    world.step()
            writer.write((ahead.drafts, state.dump()))
            ahead.drafts = []
            if progress is not None:
                progress(round((clock.time - START) / DAY), round(days))
    world.finish(end)
    counted = figures(world.tally, targets(config))
    return Simulated(db, state.position, days, seed, world.tally, counted, walk.finish())


def targets(config: Config) -> dict[str, float]:
    """The targets as shares of 1, over the categories that have one and may start."""
    stated = {
        name: category.target
        for name, category in config.categories.items()
        if category.target is not None and category.parallel is not False
    }
    total = sum(stated.values())
    return {name: target / total for name, target in stated.items()} if total else {}


@contextmanager
def place(into: Path | None) -> Iterator[Path]:
    """Where a simulation goes: `into`, which stays, or a directory that goes with the block."""
    if into is not None:
        yield into
        return
    with TemporaryDirectory(prefix="loop-simulate-") as directory:
        yield Path(directory)
