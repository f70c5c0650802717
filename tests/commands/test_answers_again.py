"""Every answer names the command that gives it again, whatever happened since."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.e2e_project import Project

pytestmark = pytest.mark.slow

ANSWERS = (
    ("status",),
    ("status", "--at", "3"),
    ("status", "--at", "-0s"),
    ("report",),
    ("report", "--since", "3h"),
    ("usage",),
    ("usage", "--by", "backend", "--since", "2h"),
    ("backends",),
    ("sessions",),
    ("sessions", "-n", "1", "--category", "docs", "--since", "1h"),
    ("sessions", "--live"),
    ("diff", "2", "6"),
    ("diff", "3"),
    ("when", "live > 0"),
    ("when", "live == 0", "--since", "1h"),
    ("why", "last"),
    ("why-not", "docs"),
    ("replay",),
    ("replay", "--policy", "fair"),
    ("show", "4"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("again"))
    project.configure("code", "docs", slots=2)
    project.loop("tick")
    project.settle()
    yield project
    project.assert_sound()


@pytest.fixture(scope="module")
def answered(project: Project) -> dict[tuple[str, ...], tuple[str, dict[str, Any]]]:
    """What each said, to people and as JSON, before more happened."""
    said = {words: (project.loop(*words).stdout, project.json(*words)) for words in ANSWERS}
    project.loop("tick")
    project.settle()
    return said


@pytest.mark.parametrize("words", ANSWERS, ids=" ".join)
def test_the_command_in_an_answer_gives_it_again(
    project: Project, answered: dict[tuple[str, ...], tuple[str, dict[str, Any]]], words: tuple[str, ...]
) -> None:
    text, report = answered[words]
    program, *again = shlex.split(report["command"])
    assert program == "loop"
    told = project.json(*again)
    if words[0] == "why-not":  # the answer is at head's time, the command names the decision that it is about
        told["as_of"] = report["as_of"]
    assert told == report
    name = " ".join(["loop", words[0]])
    assert any(line.strip().removeprefix("→ ").startswith(name) for line in text.splitlines()), text


def test_the_command_that_people_see_is_the_last_line_of_a_status(project: Project) -> None:
    said = project.loop("status").stdout
    _, *again = shlex.split(said.splitlines()[-1].removeprefix("→ "))
    assert project.loop(*again).stdout == said
