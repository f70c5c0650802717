"""`loop run` looks at what changed: a note or a death is seen at the next look, a quiet session costs two stats."""

from __future__ import annotations

import os
import signal
import time

import pytest
from e2e_project import Project, wait_until

from loop.controller import Loop
from loop.home import at
from loop.sessions import ingest, proc, reconcile, rundir


def test_a_quiet_session_is_not_read_again_until_something_happens(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure("code", slots=1, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    (session,) = project.status()["sessions"]["live"]
    reads: list[str] = []
    real = ingest.read
    monkeypatch.setattr(ingest, "read", lambda run_dir: reads.append(run_dir) or real(run_dir))
    with Loop(at(project.directory / "loop.toml"), {}) as loop:
        time.sleep(reconcile.SETTLE_SECONDS + 0.5)
        loop.reconcile(settle=True)
        first = len(reads)
        assert first > 0
        loop.reconcile(settle=True)
        assert len(reads) == first, "nothing had changed"

        run_dir = str(project.db.parent / "runs" / session["id"])
        note: rundir.Note = {"type": "warned", "why": "silence", "at": proc.wall_now()}
        rundir.append_note(run_dir, note)
        loop.reconcile(settle=True)
        assert [event["data"]["why"] for event in project.events("session.warned")] == ["silence"]

        for pid in project.helpers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: loop.reconcile(settle=True) == [session["id"]], what="the loss")
