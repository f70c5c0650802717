"""kill -9 at every named fault point of controller and shim, then a restart: nothing runs twice, nothing is lost.

The points are found in the source; what has a new one is tested without a word here.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.store import EventLog
from loop.audit.verify import verify
from loop.controller import Loop
from loop.home import at
from loop.passes import Fire
from loop.sessions import proc, rundir
from projections import snapshots
from tests.e2e.e2e_project import LOOP, ROOT, Project, wait_until

CALL = re.compile(r'\bfaultpoint\("([^"]*)"\)')
POINTS = sorted(name for path in sorted((ROOT / "loop").rglob("*.py")) for name in CALL.findall(path.read_text()))
CATEGORIES = ("code", "news")


# A mark that the kernel takes away with the last process of the session: a worker that is ended in the middle leaves
# none behind, and one that runs on beside the next session of its category is seen.
AGENT = """#!/bin/sh
exec 9>> "$MARKS/mark-$LOOP_CATEGORY"
flock -n 9 || echo "$LOOP_SESSION" >> "$MARKS/overlaps"
echo "$LOOP_SESSION $LOOP_CATEGORY $LOOP_TASK" >> "$MARKS/started"
sleep 0.3
echo "$SAY" > "$LOOP_OUTCOME"
"""


def test_the_points_are_found_and_each_has_a_name_of_its_own() -> None:
    calls = sum(path.read_text().count("faultpoint(") for path in (ROOT / "loop").rglob("*.py"))
    assert len(POINTS) == len(set(POINTS)) == calls - 1, "all but the definition"
    assert {name.partition(".")[0] for name in POINTS} >= {"pass", "launch", "claim", "shim", "witness", "bury", "void"}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Project(directory)
    again = 'command = ["./agent.sh"]\ngrader = ["echo", "0.5"]\ncooldown = "0s"'  # what was lost is started again
    made.configure(*CATEGORIES, slots=2, category=again, env={"SAY": '{"outcome": "noop"}'})
    made.agent.write_text(AGENT)
    yield made
    made.end()


def tick(project: Project, point: str) -> bool:
    """`loop tick` with a point armed; True when some process died of it, which is waited for."""
    armed = project.directory / "armed"
    armed.touch()
    env = {**os.environ, "FAULTPOINT": f"{point}:{armed}"}
    done = subprocess.run([*LOOP, "tick"], cwd=project.directory, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    deadline = time.monotonic() + 10
    while armed.exists() and time.monotonic() < deadline and project.helpers():
        time.sleep(0.02)
    died = not armed.exists()
    armed.unlink(missing_ok=True)
    return died


def bring_about(project: Project, point: str) -> None:
    """Whatever must have happened before a process can come to the point."""
    if point.startswith("void."):
        assert tick(project, "pass.committed")
    elif point.startswith("bury."):
        assert tick(project, "shim.started")
        wait_until(lambda: len(project.helpers()) < len(CATEGORIES), what="the shim's death")


def restart(project: Project) -> None:
    """Passes by hand until nothing lives, nothing runs, and every category had its session."""
    with Loop(at(project.directory / "loop.toml"), {"PATH": os.environ["PATH"]}) as loop:
        deadline = time.monotonic() + 40
        while True:
            loop.fire(Fire("manual"))
            wait_until(lambda: not project.helpers(), what="the shims and the passes after them")
            loop.reconcile()
            ran = {line[1] for line in project.starts()}
            if not loop.journal.refresh().sessions["live"] and ran == set(CATEGORIES):
                return
            assert time.monotonic() < deadline, "the sessions do not come to their ends"


@pytest.mark.parametrize("point", POINTS)
def test_a_process_killed_at_any_point_loses_nothing_and_starts_nothing_twice(project: Project, point: str) -> None:
    bring_about(project, point)
    assert tick(project, point), f"no process came to {point}"
    restart(project)

    assert not (project.marks / "overlaps").exists(), "two sessions of one category ran at once"
    ran = [line[0] for line in project.starts()]
    assert len(ran) == len(set(ran)), "a session ran twice"
    for witness in (project.db.parent / "locks").iterdir():
        lines = [line.split() for line in witness.read_text().splitlines()]
        assert re.fullmatch("(A[RL])*", "".join(line[0] for line in lines)), (witness.name, lines)
        tokens = [int(line[1]) for line in lines if line[0] == "A"]
        assert tokens == sorted(set(tokens)), "tokens rise"
    log = EventLog.read(project.db)
    report = verify(log, lock_dir=project.db.parent / "locks", workers=0)
    assert report.ok, [check for check in report.checks if not check.ok]
    ends = {event.session: event for event in log.events_of({"session.ended", "session.lost", "session.spawn_failed"})}
    requested = {event.session for event in log.events_of({"session.requested"})}
    assert ends.keys() == requested
    assert snapshots.load(log).locks["violations"] == 0
    for session in requested:
        assert proc.marked(str(project.db.parent / "runs" / str(session))) == []
        exit_record = rundir.read_exit(str(project.db.parent / "runs" / str(session)))
        if exit_record is not None and exit_record["stage"] == "worker" and exit_record["code"] == 0:
            assert ends[session].data.get("outcome") == "noop", f"the outcome of {session} is lost"
    assert set(ran) <= {session for session, end in ends.items() if end.type != "session.spawn_failed"}
    log.close()
