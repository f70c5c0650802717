"""`loop status` as a command: watching it ends with its reader, and an imported store is asked again as it is."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.e2e_project import LOOP, Project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    project.configure("code", "docs", slots=2)
    project.loop("tick")
    project.settle()
    yield project
    project.assert_sound()


def last_line(text: str) -> str:
    return text.splitlines()[-1]


def test_the_head_of_an_imported_store_is_named_by_no_position_since_its_windows_are_longer(project: Project) -> None:
    project.loop("export", "-o", "all.jsonl")
    project.loop("import", "all.jsonl", "--into", "copy")
    assert last_line(project.loop("-C", "copy", "status").stdout) == "→ loop -C copy status"


def test_watching_through_a_pipe_shows_each_look_and_ends_with_its_reader(project: Project) -> None:
    watching = subprocess.Popen(
        [*LOOP, "status", "--watch", "-n", "0.1"], cwd=project.directory, stdout=subprocess.PIPE, text=True
    )
    assert watching.stdout is not None
    heads = 0
    while heads < 3:
        heads += watching.stdout.readline().startswith("loop running")
    watching.stdout.close()
    assert watching.wait(30) == 0


@pytest.mark.parametrize("option", [("--json",), ("--check",), ("--at", "1")])
def test_watching_ignores_no_other_wish(project: Project, option: tuple[str, ...]) -> None:
    refused = project.loop("status", "--watch", *option, code=2)
    assert "exclude each other" in refused.stdout + refused.stderr
