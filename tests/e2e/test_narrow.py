"""Narrow terminals: names and ids stay whole, what does not fit is cut off at the right or wraps."""

from __future__ import annotations

import re

import pytest
from e2e_project import Project


@pytest.mark.parametrize("columns", ["40", "60", "79"])
def test_what_a_line_is_about_can_be_read_in_a_narrow_terminal(project: Project, columns: str) -> None:
    project.configure(
        "code", "infrastructure", selector=project.select({"all_scores": {"code": 2, "infrastructure": 1}})
    )
    project.loop("tick")
    project.settle()
    session = project.json("sessions")["items"][0]["id"]
    narrow = {"COLUMNS": columns}
    shown = {words: project.loop(*words.split(), env=narrow).stdout for words in ("status", "sessions", "why last")}
    for name in ("code", "infrastructure"):
        for text in shown.values():
            assert any(name in line.split() for line in text.splitlines()), text
    assert session in shown["sessions"].split()
    verdict = " ".join(shown["why last"].split())
    assert "started" in verdict
    lines = [line for text in shown.values() for line in text.splitlines()]
    commands = [line for line in lines if line.startswith("→ ")]
    assert all(len(line) <= int(columns) for line in lines if line not in commands)
    again = shown["sessions"].splitlines()[-1]
    assert re.fullmatch(r"→ loop sessions -n 30 --at \S+Z", again), "broken or cut off"


def test_a_command_to_run_next_stands_on_a_line_of_its_own(project: Project) -> None:
    project.configure("code")
    project.loop("tick")
    lines = project.loop("why", "last", env={"COLUMNS": "80"}).stdout.splitlines()
    assert lines[-2].startswith("→ loop why ")
    assert lines[-1].startswith("→ loop status --at ")
