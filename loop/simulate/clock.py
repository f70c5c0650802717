"""A clock that stands still until it is told the time."""

from __future__ import annotations


class ToldClock:
    """Microseconds since the epoch, told and never running backwards; boot was an hour before the first of them."""

    def __init__(self, time: int) -> None:
        self.time = time
        self._boot = time - 3_600_000_000

    def now(self) -> int:
        return self.time

    def boottime(self) -> int:
        return self.time - self._boot

    def monotonic(self) -> float:
        return self.boottime() / 1e6

    def sleep(self, seconds: float) -> None:
        self.time += round(seconds * 1e6)

    def reach(self, time: int) -> None:
        """Go on to `time`, unless it is past."""
        self.time = max(self.time, time)
