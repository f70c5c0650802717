"""Chance that two runs share: every stream of numbers has a name, so that a change in one place moves no other.

The n-th session of a category, the n-th answer of the selector and every spell of work or outage are then the same
under two configs with the same seed, and what differs between them is what the configs did.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from loop.simulate.workload import Trouble, Work

MICRO = 1_000_000


def stream(seed: int, *names: object) -> Random:
    """The numbers of one thing."""
    return Random("/".join(map(str, (seed, *names))))


class Spells:
    """Something that is on and off in turn, each for a random while (exponential). Asked in order of time."""

    def __init__(self, random: Random, start: int, on: Callable[[], bool], means: tuple[float, float]) -> None:
        self._random = random
        self._off_on = means  # mean seconds of a spell off, and on
        self.is_on = on()
        self.until = start
        self._draw()

    def at(self, time: int) -> bool:
        """Whether it is on at `time` (microseconds); `until` is then when that ends."""
        while self.until <= time:
            self.is_on = not self.is_on
            self._draw()
        return self.is_on

    def _draw(self) -> None:
        self.until += max(1, round(self._random.expovariate(1 / self._off_on[self.is_on]) * MICRO))


class Always:
    """What is on, or off, all the time."""

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on
        self.until = 2**62

    def at(self, time: int) -> bool:
        return self.is_on


def supply(work: Work, random: Random, start: int) -> Spells | Always:
    """When a category has work."""
    if work.share in (0, 1):
        return Always(bool(work.share))
    off = work.spell * (1 - work.share) / work.share
    return Spells(random, start, lambda: random.random() < work.share, (off, work.spell))


def outages(trouble: Trouble | None, random: Random, start: int) -> Spells | Always:
    """When something is out."""
    if trouble is None:
        return Always(False)
    return Spells(random, start, lambda: False, (trouble.every, trouble.lasts))
