"""How the benches measure: two sides in turn in one run, medians, and ratios rather than seconds.

A machine is slow or fast for reasons of its own, and both sides feel them alike only while they run side by side. So a
bench never states a bare time as its result: it measures its peer in the same rounds, gives each round's ratio, and
reports the median of those with their quartiles.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from events.sqlite import sqlite3 as store_sqlite  # type: ignore[attr-defined]
from events.sqlite import sqlite_version

if TYPE_CHECKING:
    import sqlite3

ROOT = Path(__file__).resolve().parents[2]

Side = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on the ratio or on our own figure."""

    on: Literal["ratio", "ours"]
    sign: Literal["≥", "<"]
    bound: float

    def met(self, ours: float, ratio: float | None) -> bool:
        value = ours if self.on == "ours" else ratio
        assert value is not None
        return value >= self.bound if self.sign == "≥" else value < self.bound


@dataclass(frozen=True, slots=True)
class Line:
    """One result. `ratio` is ours to the peer's, `spread` its first and third quartile over the rounds."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    ratio: float | None = None
    spread: tuple[float, float] | None = None
    goal: Goal | None = None

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.met(self.ours, self.ratio)


def paired(name: str, unit: str, rounds: int, ours: Side, peer: Side, goal: Goal | None = None) -> Line:
    """Both sides once a round, each first in every other one, after one round that does not count."""
    found: list[tuple[float, float]] = []
    for turn in range(rounds + 1):
        if turn % 2:
            theirs, mine = peer(), ours()
        else:
            mine, theirs = ours(), peer()
        found.append((mine, theirs))
        if turn % 10 == 0:
            progress(f"{name}: round {turn} of {rounds}, ratio {mine / theirs:.2f}")
    return line(name, unit, found[1:], goal)


def line(name: str, unit: str, rounds: Sequence[tuple[float, float]], goal: Goal | None = None) -> Line:
    """The line of (ours, peer) figures taken in turn."""
    ours, peers = zip(*rounds, strict=True)
    ratios = [mine / theirs for mine, theirs in rounds]
    quarters = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Line(
        name=name,
        unit=unit,
        ours=statistics.median(ours),
        peer=statistics.median(peers),
        ratio=statistics.median(ratios),
        spread=(quarters[0], quarters[2]),
        goal=goal,
    )


def wait_until(what: str, holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Look every few milliseconds; raises TimeoutError where it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.005)


def connect(path: Path) -> sqlite3.Connection:
    """A bare connection through the very library that the store uses."""
    connection: sqlite3.Connection = store_sqlite.connect(path, isolation_level=None)
    return connection


def environment(directory: Path) -> dict[str, str]:
    """The environment of a measured process: ours without settings of Python and loop, compiled modules kept apart.

    An installed package is compiled; a checkout whose environment forbids that would measure the compiler.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LOOP_"))}
    return {**kept, "PYTHONPYCACHEPREFIX": str(directory / "pyc"), "COLUMNS": "80"}


def progress(text: str) -> None:
    """A line on stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def machine(directory: Path) -> dict[str, object]:
    """What the figures depend on: the machine, the versions, what one durable write costs, what else is running."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "sqlite": sqlite_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "fsync_ms": round(_fsync(directory) * 1e3, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def _fsync(directory: Path) -> float:
    """Seconds to append 4 KiB durably, the median of 50."""
    times = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(50):
            begun = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times)
