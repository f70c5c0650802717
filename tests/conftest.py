"""What tests of several rooms share: where modules are found, and a clock that only moves when told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
# Ours first, or tests/events would be taken for the package `events`; then what several rooms' tests share.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "projections")]

HEALTH = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("loop", deadline=None, suppress_health_check=HEALTH, print_blob=True)
settings.load_profile("loop")


class FakeClock:
    """Every clock from one number of microseconds; sleeping moves it."""

    def __init__(self, now: int = 1_790_000_000_000_000) -> None:
        self.time = now
        self.slept = 0.0

    def now(self) -> int:
        return self.time

    def boottime(self) -> int:
        return self.time

    def monotonic(self) -> float:
        return self.time / 1e6

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.time += round(seconds * 1e6)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
