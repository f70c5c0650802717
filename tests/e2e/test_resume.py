"""A conversation that was cut off is gone on with by the agent's name for it, twice at most, and then begun anew."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from e2e_project import PRODUCTIVE, Project, wait_until

pytestmark = pytest.mark.slow

# An agent that speaks like `claude -p`: it names its conversation, and is refused as often as the file `refusals` says.
AGENT = """#!/bin/sh
echo "$*" >> "$MARKS/argv"
id=c0ffee-1
for word; do case $word in --resume=*) id=${word#--resume=};; esac; done
echo '{"type": "system", "session_id": "'$id'"}'
[ -e hang ] && sleep 60
if [ "$id" != c0ffee-1 ] || { [ -e gone ] && [ "$1" != -- ]; }; then
  echo '{"type": "result", "is_error": true, "errors": ["No conversation found with session ID: x"]}'; exit 1
fi
left=$(cat refusals)
if [ "$left" -gt 0 ]; then
  echo $((left - 1)) > refusals
  echo '{"type": "result", "is_error": true, "api_error_status": 429, "session_id": "'$id'"}'; exit 1
fi
echo "$SAY" > "$LOOP_OUTCOME"
"""
BACKENDS = """
[presets.mine]
base = "claude"
command = ["./talker.sh"]
prompt = ["--", "{prompt}"]
resume = ["--resume={resume}"]
[backends.a]
preset = "mine"
[backends.b]
preset = "mine"
[respawn]
limit = 0
"""


def prepare(project: Project, refusals: int, extra: str = "", category: str = "") -> Project:
    (project.directory / "talker.sh").write_text(AGENT)
    (project.directory / "talker.sh").chmod(0o755)
    (project.directory / "refusals").write_text(str(refusals))
    lines = f'prompt = "do it"\ncooldown = "0s"\n{category}'
    return project.configure("code", category=lines, extra=BACKENDS + extra, env={"SAY": PRODUCTIVE})


def start(project: Project, *options: str, backend: str = "a") -> dict[str, Any]:
    """A session by hand on this backend, tried before its time if need be; its request."""
    project.loop("backends", "probe", backend, code=None)
    project.loop("start", "code", "--backend", backend, *options)
    project.settle()
    event: dict[str, Any] = project.events("session.requested")[-1]
    return event


def resumed(project: Project, event: dict[str, Any]) -> bool:
    """Whether it went on with another; the event and the command line say the same."""
    words = event["private"]["argv"]
    assert ("--resume=c0ffee-1" in words) == (event["data"]["resumes"] is not None)
    return event["data"]["resumes"] is not None


def outcomes(project: Project) -> list[str]:
    return [event["data"]["outcome"] for event in project.events("session.ended")]


def test_a_refused_one_is_gone_on_with_twice_and_then_begun_anew(project: Project) -> None:
    prepare(project, 9)
    requests = [start(project) for _ in range(5)]
    assert [resumed(project, request) for request in requests] == [False, True, True, False, True]
    assert requests[1]["data"]["resumes"] == requests[0]["session"]
    assert requests[2]["data"]["resumes"] == requests[1]["session"]
    assert set(outcomes(project)) == {"limited"}
    prompts = [request["private"]["argv"][-1] for request in requests]
    assert prompts[0] == "do it"
    assert prompts[1].startswith("You were cut off")
    assert prompts[1].endswith("do it")
    context = json.loads((project.directory / ".loop/runs" / requests[1]["session"] / "context.json").read_text())
    assert context["resumes"] == requests[0]["session"]
    assert project.json("verify")["ok"]


def test_what_came_to_its_end_is_not_gone_on_with(project: Project) -> None:
    prepare(project, 1)
    assert [resumed(project, start(project)) for _ in range(3)] == [False, True, False]
    assert outcomes(project) == ["limited", "productive", "productive"]


def test_another_backend_or_task_begins_anew(project: Project) -> None:
    prepare(project, 1)
    start(project, "--task", "one")
    assert not resumed(project, start(project, "--task", "two"))
    assert not resumed(project, start(project, "--task", "one", backend="b"))
    assert not resumed(project, start(project, "--task", "one")), "b had that task since"


def test_a_limit_of_none_and_an_age_that_is_over_begin_anew(project: Project) -> None:
    prepare(project, 9, extra="[resume]\nlimit = 0\n")
    assert [resumed(project, start(project)) for _ in range(2)] == [False, False]
    prepare(project, 9, extra='[resume]\nmax_age = "1s"\n')
    start(project)
    time.sleep(1.1)
    assert not resumed(project, start(project))


def test_sessions_with_directories_of_their_own_begin_anew(project: Project) -> None:
    prepare(project, 9, category='cwd = "{session}"\nbefore = ["mkdir", "{session}"]')
    project.edit('command = ["./talker.sh"]', 'command = ["sh", "../talker.sh"]')
    project.edit('before = ["mkdir", "{session}"]', 'before = ["sh", "-c", "mkdir {session}; cp refusals {session}"]')
    assert [resumed(project, start(project)) for _ in range(2)] == [False, False]


def test_a_lost_one_is_gone_on_with(project: Project) -> None:
    prepare(project, 0, category='backends = ["a"]')
    (project.directory / "hang").touch()
    project.loop("start", "code", "--backend", "a")
    [run_dir] = project.run_dirs()
    wait_until(lambda: (run_dir / "out.log").read_text())
    shim = json.loads((run_dir / "claim").read_text())["pid"]
    os.kill(shim, signal.SIGKILL)
    (project.directory / "hang").unlink()
    wait_until(lambda: project.loop("tick", code=None) and project.events("session.lost"))
    project.settle()
    [lost] = project.events("session.lost")
    assert lost["data"]["resume_token"] == "c0ffee-1"
    after = project.events("session.requested")[1]
    assert after["data"]["resumes"] == lost["session"]
    assert outcomes(project)[-1] == "productive"


def test_a_conversation_that_is_gone_is_no_failure_of_the_work_and_the_next_begins_anew(project: Project) -> None:
    prepare(project, 1)
    start(project)
    (project.directory / "gone").touch()
    assert resumed(project, start(project))
    end = project.events("session.ended")[-1]["data"]
    assert (end["outcome"], end["reason"]) == ("refused", "no_conversation")
    assert not resumed(project, start(project))
    assert outcomes(project)[-1] == "productive"
