"""Real stores and real projects for the faults that befall them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from histories import history

from tests.audit.stores import Rows, records
from tests.e2e.e2e_project import Project


@pytest.fixture(scope="session")
def sound() -> Rows:
    """The rows of a log of 600 events in which nothing is wrong."""
    return records(history(4, 600, steps=False).events)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Project(directory)
    yield made
    made.end()
