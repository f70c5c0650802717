"""A store that cannot be written: `tick` says so and starts nothing; what runs ends safely and is delivered later."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from loop.sessions import rundir
from tests.e2e.e2e_project import LOOP, Project, wait_until

SMALL = 8192  # bytes: more than any file of a run directory here, less than the store or its write-ahead log

# As on a full disk, the kernel refuses whatever makes a file longer than this; run directories' small files still fit.
LIMITED = f"""
import os, resource, sys
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ({SMALL}, hard))
os.execv(sys.argv[1], sys.argv[1:])
"""

# As root, who may write to any file, a store is read-only on a read-only mount, in a namespace of its own.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'


def limited(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(project, [sys.executable, "-c", LIMITED, *LOOP, *arguments])


def read_only(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, str(project.db)]
    if run(project, [*unshare, "true"]).returncode:
        pytest.skip("this kernel lets nobody mount anything of his own")
    return run(project, [*unshare, *LOOP, *arguments])


def run(project: Project, argv: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=project.directory, capture_output=True, text=True, timeout=60, check=False)


def end_of(run_dir: Path) -> bool:
    """Whether it ended in order and its end pass has failed, as `end.log` says."""
    log = run_dir / "end.log"
    return (run_dir / "end.json").exists() and log.exists() and log.stat().st_size > 0


@pytest.mark.parametrize("unwritable", [limited, read_only])
def test_tick_says_so_and_starts_nothing(project: Project, unwritable: object) -> None:
    assert callable(unwritable)
    project.configure("code", slots=1).loop("pause")
    project.loop("resume")
    before = project.events()
    done = unwritable(project, "tick")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(project.db) in done.stderr
    assert "→" in done.stderr
    assert (done.stdout, project.starts(), project.run_dirs()) == ("", [], [])
    told = unwritable(project, "tick", "--json")
    assert (told.returncode, '"code": "store"' in told.stdout) == (1, True)
    assert project.events() == before
    project.loop("tick")
    project.settle()
    assert project.starts()
    project.assert_sound()


def test_doctor_names_what_cannot_be_written(project: Project) -> None:
    project.configure("code", slots=1).loop("pause")
    assert "FAIL" not in project.loop("doctor").stdout
    done = read_only(project, "doctor", "--json")
    assert done.returncode == 1
    [failed] = [check for check in json.loads(done.stdout)["checks"] if not check["ok"]]
    assert (failed["name"], f"cannot write {project.db}" in failed["detail"]) == ("writable", True)


def test_sessions_that_end_meanwhile_are_delivered_by_the_next_good_pass(project: Project) -> None:
    """Two sessions run; from then on nothing that they or a pass start can write the store; then it can be again."""
    go = project.directory / "go"
    agent = project.directory / "agent.sh"
    agent.write_text(agent.read_text().replace('sleep "${NAP:-0.2}"', f"while ! test -e {go}; do sleep 0.05; done"))
    project.configure("code", "news", slots=2, loop='policy = "intent"', extra="[respawn]\nlimit = 0")
    project.loop("tick")
    wait_until(lambda: len(project.starts()) == 2)
    for run_dir in project.run_dirs():
        claim = rundir.read_claim(str(run_dir))
        assert claim is not None
        resource.prlimit(claim["pid"], resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
    go.touch()
    wait_until(lambda: all(end_of(run_dir) for run_dir in project.run_dirs()), what="ends that cannot be delivered")
    wait_until(lambda: not project.helpers())

    assert project.events("session.ended") == [], "nothing could be written"
    assert len(project.status()["sessions"]["live"]) == 2, "the log knows of no end"
    for run_dir in project.run_dirs():
        assert (run_dir / "outcome.json").exists()
        assert "StoreError" in (run_dir / "end.log").read_text()
    assert limited(project, "tick").returncode == 1
    assert len(project.starts()) == 2, "nothing is started on a store that takes no word"
    assert "over, or never begun" in project.loop("doctor").stdout

    project.loop("drain")
    project.loop("tick")
    ended = {event["session"]: event["data"] for event in project.events("session.ended")}
    assert sorted(ended) == sorted(run_dir.name for run_dir in project.run_dirs())
    assert {(data["outcome"], data["grade"]) for data in ended.values()} == {("productive", 0.9)}
    assert all(data["held"] for data in ended.values()), "the locks' own times came through"
    project.assert_sound()
    project.json("verify")


@pytest.mark.parametrize("unwritable", [limited, read_only])
def test_the_stop_file_needs_no_store_that_can_be_written(project: Project, unwritable: object) -> None:
    assert callable(unwritable)
    project.configure("code", slots=1, env={"NAP": "60"}).loop("tick")
    [run_dir] = project.run_dirs()
    claim = rundir.read_claim(str(run_dir))
    assert claim is not None
    resource.prlimit(claim["pid"], resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
    stop = project.directory / ".loop" / "STOP"
    stop.touch()
    wait_until(lambda: end_of(run_dir), what="an end that cannot be delivered")
    for words in (["tick"], ["tick", "--timer"], ["start", "code"], ["run"]):
        done = unwritable(project, *words)
        assert done.returncode == 1
        assert "STOP is there" in done.stderr
    assert len(project.starts()) == 1
    stop.unlink()
    project.loop("drain")
    project.loop("tick")
    assert [event["data"]["outcome"] for event in project.events("session.ended")] == ["cancelled"]
    project.assert_sound()


def test_run_goes_on_trying_and_delivers_once_it_can(project: Project) -> None:
    go = project.directory / "go"
    agent = project.directory / "agent.sh"
    agent.write_text(agent.read_text().replace('sleep "${NAP:-0.2}"', f"while ! test -e {go}; do sleep 0.05; done"))
    project.configure("code", slots=1, extra="[respawn]\nlimit = 0", env={"SAY": '{"outcome": "noop"}'})
    controller = project.spawn("run")
    try:
        wait_until(lambda: project.starts())
        wait_until(lambda: project.events("tick.finished"))
        [run_dir] = project.run_dirs()
        claim = rundir.read_claim(str(run_dir))
        assert claim is not None
        for pid in (claim["pid"], controller.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (SMALL, resource.RLIM_INFINITY))
        go.touch()
        wait_until(lambda: end_of(run_dir))
        wait_until(lambda: not project.helpers())
        os.utime(run_dir / "end.json", (1, 1))  # its shim is not about to deliver it any more
        assert controller.poll() is None
        resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        wait_until(lambda: project.events("session.ended"), what="the end of the session")
    finally:
        controller.terminate()
        _, errors = controller.communicate(timeout=20)
    assert controller.returncode == 0
    assert "Traceback" not in errors
    project.assert_sound()
