"""The fixture of the end-to-end tests; what it gives is in e2e_project."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_project import Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Project(directory)
    yield made
    made.end()
