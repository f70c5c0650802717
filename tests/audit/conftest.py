"""A sound log, for the tests that plant something wrong in it."""

from __future__ import annotations

import pytest
from histories import World, history
from stores import Rows, records


@pytest.fixture(scope="session")
def world() -> World:
    return history(4, 900, steps=False)


@pytest.fixture(scope="session")
def sound(world: World) -> Rows:
    """The rows of a log of 900 events in which nothing is wrong."""
    return records(world.events)
