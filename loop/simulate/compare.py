"""Two configs on the same seeds: what differs between them, pair by pair, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

from loop.config import Config
from loop.simulate.run import Progress, simulate
from loop.simulate.tally import FIGURES
from loop.simulate.workload import Workload

# Student's t for a two-sided 95 % interval, by degrees of freedom: NIST/SEMATECH e-Handbook, 1.3.6.7.2.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

Figures = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of A and of B, the mean over the runs that have it under both, and the mean of B - A.

    `low` and `high` are its 95 % interval, None with fewer than two pairs; all None where no pair has the figure.
    """

    name: str
    pairs: int
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None


def compare(
    configs: tuple[Config, Config],
    workload: Workload,
    *,
    days: float,
    seed: int,
    runs: int,
    progress: Progress | None = None,
) -> list[Difference]:
    """Simulate both configs once for each of the seeds `seed`, `seed + 1`, …; raises what `simulate` raises."""
    found: tuple[list[Figures], list[Figures]] = ([], [])
    for number in range(runs):
        for side, config in enumerate(configs):
            with TemporaryDirectory(prefix="loop-simulate-") as place:
                done = simulate(
                    config, workload, Path(place), days=days, seed=seed + number,
                    progress=_share(progress, 2 * number + side, 2 * runs),
                )  # fmt: skip
            found[side].append(done.figures)
    return [difference(name, *found) for name in FIGURES]


def difference(name: str, first: Sequence[Figures], second: Sequence[Figures]) -> Difference:
    """One figure of paired runs."""
    pairs = [
        (a, b)
        for one, other in zip(first, second, strict=True)
        if (a := one[name]) is not None and (b := other[name]) is not None
    ]
    if not pairs:
        return Difference(name, 0, None, None, None, None, None)
    apart = [b - a for a, b in pairs]
    middle = mean(apart)
    a, b = (mean(side) for side in zip(*pairs, strict=True))
    if len(pairs) == 1:
        return Difference(name, 1, a, b, middle, None, None)
    freedom = len(pairs) - 1
    half = (_T[freedom - 1] if freedom <= len(_T) else _T[-1]) * stdev(apart) / sqrt(len(pairs))
    return Difference(name, len(pairs), a, b, middle, middle - half, middle + half)


def _share(progress: Progress | None, done: int, of: int) -> Callable[[int, int], None] | None:
    """The progress of one of several simulations, as that of all."""
    if progress is None:
        return None
    return lambda days, total: progress(done * total + days, of * total)
