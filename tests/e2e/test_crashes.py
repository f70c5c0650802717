"""kill -9 of the controller between any two steps of a pass; the next one starts nothing twice and loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from e2e_project import ROOT, Project, wait_until

from loop.sessions import handshake, proc

pytestmark = pytest.mark.slow

# Each step is a function of the product; the process dies by SIGKILL just before or just after its nth call.
STEPS = [
    "before loop.controller:reconcile:1",
    "before loop.controller:ask_selector:1",
    "after loop.controller:ask_selector:1",
    "after loop.controller:measure:1",
    "before loop.passes:decide:1",
    "after loop.passes:decide:1",
    "after loop.passes:_grant:1",
    "before events.store:EventLog._patiently:COMMIT",
    "after events.store:EventLog._patiently:COMMIT",
    "before loop.sessions.start:launch:1",
    "before loop.sessions.rundir:write_json:1",
    "after loop.sessions.rundir:write_json:1",
    "after loop.sessions.start:launch:1",
    "before loop.sessions.rundir:note_launched:2",
    "after loop.sessions.start:launch:2",
    "before loop.sessions.start:await_started:1",
    "after loop.sessions.start:await_started:1",
    "before loop.sessions.ingest:ingest:2",
    "after loop.sessions.ingest:ingest:2",
    "after loop.controller:Loop._finish:1",
]

# Runs in the doomed process: wraps the step, then is `loop tick`.
DOOM = """
import functools, importlib, os, signal, sys
when, place = sys.argv[1].split(" ")
module, name, nth = place.split(":")
owner = importlib.import_module(module)
*path, last = name.split(".")
for part in path:
    owner = getattr(owner, part)
real = getattr(owner, last)
calls = 0

@functools.wraps(real)
def doomed(*args, **kwargs):
    global calls
    if nth.isdigit():
        calls += 1
        now = calls == int(nth)
    else:
        calls += nth in args  # the third commit is the pass's: the first makes the store, then `tick.skipped` is none
        now = nth in args and calls == int(os.environ["NTH"])
    if now and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **kwargs)
    if now and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, last, doomed)
sys.argv = ["loop", "tick"]
sys.path.insert(0, os.environ["ROOT"])
import cli
cli.app()
"""


def doom(project: Project, step: str, nth: int = 1) -> None:
    """Run `loop tick` and have it die at `step`."""
    died = subprocess.run(
        [sys.executable, "-c", DOOM, step],
        cwd=project.directory,
        env={**os.environ, "ROOT": str(ROOT), "NTH": str(nth)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, (step, died.stdout, died.stderr)


@pytest.mark.parametrize("step", STEPS)
def test_a_controller_killed_at_any_step_loses_nothing_and_starts_nothing_twice(project: Project, step: str) -> None:
    project.configure("code", "news", "content", slots=3, env={"SAY": '{"outcome": "noop"}', "NAP": "0.3"})
    doom(project, step)
    for _ in range(3):
        project.loop("tick")
        project.settle()
    project.assert_sound()
    ran = sorted(line[1] for line in project.starts())
    assert set(ran) == {"code", "content", "news"}, step  # what the dead one granted and did not start came later
    outcomes = {event["data"]["outcome"] for event in project.events("session.ended")}
    assert outcomes == {"noop"}
    assert project.status()["slots"]["live"] == 0


def test_a_late_shim_of_a_voided_request_does_nothing(project: Project) -> None:
    project.configure("code", slots=1)
    doom(project, "before loop.sessions.start:launch:1")
    session = project.status()["sessions"]["live"][0]["id"]
    project.loop("tick")
    project.settle()
    voided = project.events("session.spawn_failed")
    assert [(event["session"], event["data"]["code"]) for event in voided] == [(session, "voided")]
    claim = (project.directory / ".loop" / "runs" / session / "claim").read_text()
    assert '"reconciler"' in claim


def test_a_restarted_controller_ingests_what_it_missed(project: Project) -> None:
    project.configure("code", slots=1, env={"NAP": "0.3"})
    doom(project, "before loop.sessions.start:await_started:1")
    wait_until(lambda: len(project.starts()) >= 1)
    status = project.settle()  # the session's own end brings the log up to date, with nobody watching
    assert status["sessions"]["recent"][-1]["outcome"] == "productive"


def test_a_session_whose_shim_was_killed_is_lost_and_its_lock_is_freed(project: Project) -> None:
    project.configure("code", slots=1, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    session = project.status()["sessions"]["live"][0]["id"]
    worker = project.status()["sessions"]["live"][0]["pid"]
    for pid in project.helpers():
        os.kill(pid, signal.SIGKILL)
    assert Path(f"/proc/{worker}").exists()  # the worker outlives its shim, and holds the kernel lock
    assert project.json("status")["locks"][0]["session"] == session
    project.loop("tick")  # ends what carries the session's marker, then holds the lock, then says so
    project.settle()
    lost = project.events("session.lost")
    assert [(event["session"], event["data"]["why"]) for event in lost] == [(session, "shim_died")]
    assert proc.marked(str(project.directory / ".loop" / "runs" / session)) == []
    project.loop("stop", "--kill")
    project.settle()
    assert project.status()["violations"]["same_lock"] == 0


def test_as_long_as_somebody_listens_on_its_socket_a_session_is_alive_and_nobody_signals_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure("code", slots=1, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    (session,) = project.status()["sessions"]["live"]
    for pid in project.helpers():
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not project.helpers())
    name = project.db.parent / "runs" / session["id"] / handshake.NAME
    name.unlink()
    with socket.socket(socket.AF_UNIX) as listener:  # like a shim that /proc does not show
        monkeypatch.chdir(name.parent)  # the whole path may be too long for an address
        listener.bind(name.name)
        listener.listen()
        project.loop("tick")
        assert Path(f"/proc/{session['pid']}").exists()
        assert project.events("session.stopping", "session.lost") == []
    project.loop("tick")
    wait_until(lambda: not proc.marked(session["id"]))
    assert [event["session"] for event in project.events("session.lost")] == [session["id"]]
    project.loop("stop", "--kill")
    project.settle()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_run_adopts_what_lives_and_leaves_it_alone_when_it_stops(project: Project, number: signal.Signals) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("ignored here, as by nohup, and so by the controller")
    project.configure("code", slots=1, env={"NAP": "60"}).loop("tick")
    wait_until(lambda: project.starts())
    controller = project.spawn("run")
    try:
        wait_until(lambda: project.events("session.adopted"), what="adoption")
        second = project.loop("run", code=6)
        assert "another loop run" in second.stderr
    finally:
        controller.send_signal(number)
        assert controller.wait(timeout=15) == 0
    assert [event["type"] for event in project.events("controller.*")] == ["controller.started", "controller.stopped"]
    assert len(project.status()["sessions"]["live"]) == 1
    project.loop("stop", "--kill")
    project.settle()


def test_run_buries_a_session_whose_shim_was_killed_and_refills_its_slot(project: Project) -> None:
    project.configure("code", "news", slots=1, env={"NAP": "60"})
    controller = project.spawn("run")
    try:
        wait_until(lambda: project.starts(), what="the first fire")
        for pid in project.helpers():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: project.events("session.lost"), what="the loss")
        wait_until(lambda: len(project.starts()) == 2, what="the refill")
    finally:
        controller.terminate()
        controller.wait(timeout=15)
    assert {line[1] for line in project.starts()} == {"code", "news"}
    project.loop("stop", "--kill")
    project.settle()


def test_run_fires_on_its_schedule_and_reads_its_config_again(project: Project) -> None:
    project.configure("code", slots=1, env={"SAY": '{"outcome": "noop"}', "NAP": "0"}, loop="")
    text = project.edit('every = "1h"', 'every = "3s"')
    controller = project.spawn("run")
    try:
        wait_until(lambda: len(project.events("tick.started")) >= 2, what="two fires")
        (project.directory / "loop.toml").write_text("[loop")
        wait_until(lambda: project.status()["mode"] == "invalid_config", what="the invalid config to be seen")
        (project.directory / "loop.toml").write_text(text.replace("[categories.code]", "[categories.fresh]"))
        wait_until(lambda: any(line[1] == "fresh" for line in project.starts()), what="the new category")
    finally:
        controller.send_signal(signal.SIGTERM)
        assert controller.wait(timeout=15) == 0
    nominals = [event["data"]["nominal"] for event in project.events("tick.started") if event["data"]["nominal"]]
    assert len(nominals) == len(set(nominals))
    project.settle()
