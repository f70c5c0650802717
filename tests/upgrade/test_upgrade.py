"""An upgrade in mid-flight: what an earlier release has left in run directories comes to its end in today's log.

The stored examples are what `tests/upgrade/record.py` recorded; each holds a session of every kind whose end nobody has
delivered. This release reads those of the two releases before it, and its own.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loop import __version__
from loop.sessions import proc, rundir
from tests.e2e.e2e_project import LOOP, Project

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "rundirs"
RELEASES = sorted(path.name for path in FIXTURES.iterdir())

# kind -> the end's type, its outcome (or code, or why) and its reason, as any release must come to from these files
ENDS: dict[str, tuple[str, str, str | None]] = {
    "productive": ("session.ended", "productive", "outcome_file"),
    "noop": ("session.ended", "noop", "outcome_file"),
    "blocked": ("session.ended", "blocked", "outcome_file"),
    "limited": ("session.ended", "limited", "outcome_file"),
    "malformed": ("session.ended", "failed", "bad_outcome_file"),
    "unproven": ("session.ended", "unproven", "no_evidence"),
    "proved-by-exit": ("session.ended", "productive", "exit_code"),
    "failed": ("session.ended", "failed", "exit_code"),
    "exit-code": ("session.ended", "refused", "exit_codes"),
    "killed": ("session.ended", "failed", "signal"),
    "timed-out": ("session.ended", "timed_out", "timeout"),
    "stalled": ("session.ended", "stalled", "silence"),
    "silent": ("session.ended", "unproven", "no_evidence"),
    "stopped": ("session.ended", "cancelled", "cancelled"),
    "after-failed": ("session.ended", "unproven", "no_evidence"),
    "two-keys": ("session.ended", "unproven", "no_evidence"),
    "shim-died-late": ("session.ended", "failed", "exit_code"),
    "no-program": ("session.spawn_failed", "command_not_found", None),
    "before-failed": ("session.spawn_failed", "before_failed", None),
    "lock-held": ("session.spawn_failed", "lock_held", None),
    "unclaimed": ("session.spawn_failed", "voided", None),
    "voided": ("session.spawn_failed", "voided", None),
    "shim-died": ("session.lost", "reboot", None),
}


class Upgraded(Project):
    """A project as `release` left it, with today's commands."""

    def __init__(self, directory: Path, release: str) -> None:
        super().__init__(directory)
        stored = json.loads((FIXTURES / release / "files.json").read_text())
        self.kinds: dict[str, str] = stored["kinds"]
        for name, text in stored["files"].items():
            path = directory / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text(text.replace("@PROJECT@", str(directory)))
            path.chmod(0o600)
        connection = sqlite3.connect(self.db)
        connection.executescript((FIXTURES / release / "loop.sql").read_text())
        connection.close()

    def run_dir(self, kind: str) -> Path:
        return self.db.parent / "runs" / self.kinds[kind]

    def ends(self) -> dict[str, dict[str, Any]]:
        """Session -> the event of its end."""
        found = self.events("session.ended", "session.lost", "session.spawn_failed")
        assert len({event["session"] for event in found}) == len(found)
        return {event["session"]: event for event in found}


@pytest.fixture(params=RELEASES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Upgraded]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Upgraded(directory, request.param)
    yield made
    made.end()


def test_every_session_left_in_mid_flight_comes_to_its_end(project: Upgraded) -> None:
    assert len(project.status()["sessions"]["live"]) == len(ENDS)
    project.loop("pause")
    project.loop("tick")
    ends = project.ends()
    assert ends.keys() == set(project.kinds.values())
    told = {kind: ends[session] for kind, session in project.kinds.items()}
    seen = {
        kind: (end["type"], *(end["data"].get(key) for key in ("outcome", "code", "why") if end["data"].get(key)))
        for kind, end in told.items()
    }
    assert seen == {kind: (type, word) for kind, (type, word, _) in ENDS.items()}
    reasons = {kind: end["data"].get("reason") for kind, end in told.items()}
    assert reasons == {kind: reason for kind, (_, _, reason) in ENDS.items()}
    assert (told["productive"]["data"]["grade"], told["productive"]["private"]["summary"]) == (0.8, "did it")
    assert set(told["two-keys"]["data"]["held"]) == {"shared", "two-keys"}
    assert [event["session"] for event in project.events("lock.refused")] == [project.kinds["lock-held"]]
    assert {event["session"]: event["data"]["why"] for event in project.events("session.warned")} == {
        project.kinds["silent"]: "silence",
        project.kinds["stalled"]: "silence",
        project.kinds["after-failed"]: "after_failed",
    }
    status = project.status()
    assert (status["locks"], status["sessions"]["live"], status["violations"]["same_lock"]) == ([], [], 0)
    project.json("verify")


def test_a_second_pass_finds_nothing_to_add(project: Upgraded) -> None:
    project.loop("pause")
    project.loop("tick")
    before = project.ends()
    project.loop("tick")
    assert project.ends() == before


def test_a_session_whose_earlier_shim_still_lives_is_left_alone_until_it_has_ended(project: Upgraded) -> None:
    run_dir = project.run_dir("shim-died")
    env = {**os.environ, "LOOP_SESSION": run_dir.name, "LOOP_RUN_DIR": str(run_dir)}
    with subprocess.Popen(["sleep", "60"], env=env) as shim:
        start = proc.start_time(shim.pid)
        for name in ("claim", "launched.json", "started.json"):
            content = json.loads((run_dir / name).read_text())
            content |= {"pid": shim.pid, "start": start, "boot": proc.boot_id()}
            content |= {"shim_pid": shim.pid, "shim_start": start} if name == "started.json" else {}
            (run_dir / name).write_text(json.dumps(content))
        project.loop("pause")
        project.loop("tick")
        assert run_dir.name not in project.ends()
        assert [live["id"] for live in project.status()["sessions"]["live"]] == [run_dir.name]
        assert shim.poll() is None
        shim.kill()
        shim.wait()
    project.loop("tick")
    assert project.ends()[run_dir.name]["data"]["why"] == "shim_died"
    project.json("verify")


def test_a_shim_may_deliver_its_end_through_the_new_release(project: Upgraded) -> None:
    """An upgrade in place: the earlier shim calls `end.py` by its path, which is today's."""
    run_dir = project.run_dir("productive")
    project.loop("pause")
    end = Path(rundir.__file__).with_name("end.py")
    argv = [sys.executable, "-I", str(end), str(run_dir)]
    subprocess.run(argv, check=True, timeout=60, env={"PATH": os.environ["PATH"]})
    assert project.ends()[run_dir.name]["data"]["outcome"] == "productive"
    project.loop("tick")
    assert len(project.ends()) == len(ENDS)


def test_every_kind_of_file_that_is_written_today_has_its_example() -> None:
    models = [value for value in vars(rundir).values() if typing.is_typeddict(value)]
    hints = [typing.get_type_hints(model).get("schema") for model in models]
    today = {word for hint in hints for word in typing.get_args(hint)}
    stored = "".join((FIXTURES / release / "files.json").read_text() for release in RELEASES)
    assert today
    assert today <= set(re.findall(r"loop\.\w+/\d+", stored))


def test_this_release_has_recorded_what_it_leaves() -> None:
    assert __version__ in RELEASES, f"record it: python tests/upgrade/record.py ({LOOP[1]} is {__version__})"
