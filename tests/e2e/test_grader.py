"""A grader is asked once a session is over; its grade counts, and a respawn waits for it."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest
from e2e_project import Project, wait_until

CLAIMED = '{"outcome": "productive", "summary": "tidied up"}'


def prepare(project: Project, script: str, say: str = CLAIMED, limit: int = 1) -> Project:
    grader = project.directory / "grade.sh"
    grader.write_text(f"#!/bin/sh\n{script}\n")
    grader.chmod(0o755)
    lines = 'command = ["./agent.sh"]\ngrader = ["./grade.sh", "{session}"]'
    extra = f"[respawn]\nlimit = {limit}\nmin_grade = 0.6"
    return project.configure("code", category=lines, env={"SAY": say, "SECRET": "s"}, extra=extra)


def run(project: Project) -> list[dict[str, Any]]:
    """One pass and what follows it: the grades and failures to grade."""
    project.loop("tick")
    project.settle()
    return project.events("session.graded", "session.ungraded")


def test_its_grade_is_in_the_log_and_a_respawn_is_earned_by_it(project: Project) -> None:
    prepare(project, 'cat > "$MARKS/told-$1"; echo "$SECRET $LOOP_OUTCOME" > "$MARKS/env"; echo 0.7')
    graded = run(project)
    assert [event["data"] for event in graded] == [{"grade": 0.7, "source": "command"}] * 2, "a session and its respawn"
    told = json.loads((project.marks / f"told-{graded[0]['session']}").read_text())
    assert (told["outcome"], told["category"], told["summary"]) == ("productive", "code", "tidied up")
    assert (project.marks / "env").read_text().startswith("s /"), "it has the session's variables"
    assert [item["grade"] for item in project.json("sessions")["items"]] == [0.7, 0.7]
    assert project.json("verify")["ok"]


def test_a_low_grade_earns_none_and_outranks_what_the_session_claimed(project: Project) -> None:
    prepare(project, """echo '{"grade": 0.2, "text": "nothing was kept"}'""", CLAIMED[:-1] + ', "grade": 0.9}')
    [graded] = run(project)
    assert graded["private"]["text"] == "nothing was kept"
    assert [item["grade"] for item in project.json("sessions")["items"]] == [0.2]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 3", "exit_code"),
        ("echo well", "not_json"),
        ("echo 7", "no_grade"),
        ("echo true", "no_grade"),
        ("echo NaN", "no_grade"),
        ("""echo '{"grade": null}'""", "no_grade"),
        ("kill -9 $$", "signal"),
        ("head -c 100000 /dev/zero", "too_large"),
    ],
)
def test_a_grader_that_gives_none_is_a_fact_and_the_session_counts_as_it_was(
    project: Project, script: str, code: str
) -> None:
    prepare(project, script)
    ungraded = run(project)
    assert [event["data"]["code"] for event in ungraded] == [code] * 2, "it is no reason to withhold a respawn"
    assert [item["grade"] for item in project.json("sessions")["items"]] == [None, None]
    project.assert_sound()


def test_one_that_takes_too_long_is_ended(project: Project) -> None:
    prepare(project, "sleep 60", limit=0)
    project.edit('"{session}"]', '"{session}"]\ngrader_timeout = "1s"')
    assert [event["data"]["code"] for event in run(project)] == ["timeout"]


def test_what_was_refused_is_not_graded(project: Project) -> None:
    prepare(project, "echo 1", '{"outcome": "limited"}')
    assert run(project) == []


def test_a_respawn_waits_for_the_grade_and_a_grader_that_was_cut_short_is_asked_again(project: Project) -> None:
    prepare(project, 'echo x >> "$MARKS/asked"; [ -e enough ] || sleep 60; echo 0.9')
    project.loop("tick")
    wait_until((project.marks / "asked").exists)
    assert "respawn" not in [each["rule"] for each in project.json("plan", "--recorded")["decision"]["chosen"]]
    for pid in project.helpers():
        os.kill(pid, signal.SIGKILL)
    (project.directory / "enough").touch()
    assert project.events("session.graded") == []
    [first] = project.events("session.requested")
    project.loop("tick")
    wait_until(lambda: project.events("session.graded"))
    project.settle()
    assert first["session"] in [event["session"] for event in project.events("session.graded")]
