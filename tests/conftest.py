"""What tests of several rooms share: where modules are found, and a clock that only moves when told."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
# Ours first, or tests/events would be taken for the package `events`; then what several rooms' tests share.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "projections")]

AGENTS = ("claude", "codex", "gptme")


def hide_agents() -> None:
    """Take the agents of whoever runs the tests out of PATH: `loop init` would find them, and spend their quota."""
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    for number, place in enumerate(places):
        if any(os.path.exists(os.path.join(place, agent)) for agent in AGENTS):
            rest = tempfile.mkdtemp(prefix="loop-tests-path-")
            atexit.register(shutil.rmtree, rest, ignore_errors=True)
            for entry in os.scandir(place):
                if entry.name not in AGENTS:
                    os.symlink(entry.path, os.path.join(rest, entry.name))
            places[number] = rest
    os.environ["PATH"] = os.pathsep.join(places)


hide_agents()

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
