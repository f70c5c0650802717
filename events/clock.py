"""Clocks are passed in, never reached for: the simulator and the tests are the same program as the product."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What the loop asks of time."""

    def now(self) -> int:
        """Wall clock: microseconds since the epoch, UTC."""

    def boottime(self) -> int:
        """Microseconds since boot, suspend included; never steps."""

    def monotonic(self) -> float:
        """Seconds of awake time, for timeouts."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def boottime(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
