"""One session that is in trouble, whoever brought it there, holds up no other and comes to its end."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time

import pytest

from loop.controller import Loop
from loop.home import at
from loop.passes import Fire
from loop.sessions import cgroup, proc, rundir, start
from tests.e2e.e2e_project import Project, kill, wait_until

AGAIN = 'command = ["./agent.sh"]\ncooldown = "0s"'
NOOP = '{"outcome": "noop"}'


def shim_pids(project: Project) -> dict[str, int]:
    """Category -> the shim of its live session."""
    found = {}
    for session in project.status()["sessions"]["live"]:
        claim = rundir.read_claim(str(project.db.parent / "runs" / session["id"]))
        assert claim is not None
        found[session["category"]] = claim["pid"]
    return found


@pytest.mark.parametrize("name", ["spec.json", "stop.json", "notes.jsonl", "end.log"])
def test_a_fifo_in_place_of_a_file_holds_up_nobody(project: Project, name: str) -> None:
    project.configure("code", "news", slots=2, category=AGAIN, env={"NAP": "60", "SAY": NOOP})
    project.edit('timeout = "30s"', 'timeout = "5m"')
    project.loop("start", "code")
    wait_until(lambda: project.starts())
    (run_dir,) = project.run_dirs()
    (run_dir / name).unlink(missing_ok=True)
    os.mkfifo(run_dir / name)
    project.loop("tick")
    wait_until(lambda: {line[1] for line in project.starts()} == {"code", "news"}, what="the other one")
    project.loop("stop", "--kill")
    wait_until(lambda: not project.helpers(), what="the shims' ends")
    project.loop("tick")
    project.settle()
    ended = [event["session"] for event in project.events("session.ended", "session.lost")]
    assert ended.count(run_dir.name) == 1
    assert len(ended) == len(set(ended))


@pytest.mark.parametrize("name", ["spec.json", "claim", "started.json", "exit.json", "end.json"])
def test_a_session_with_damaged_files_is_told_and_the_others_go_on(project: Project, name: str) -> None:
    project.configure("code", "news", slots=2, category=AGAIN, env={"NAP": "60", "SAY": NOOP})
    project.edit('timeout = "30s"', 'timeout = "5m"')
    project.loop("start", "code")
    wait_until(lambda: project.starts())
    (run_dir,) = project.run_dirs()
    (run_dir / name).write_text("{ damaged")
    told = project.loop("tick").stderr
    assert f"{run_dir}/{name} is not JSON" in told
    assert "counts as lost" in told
    wait_until(lambda: {line[1] for line in project.starts()} == {"code", "news"}, what="the other one")
    checks = {check["name"]: check for check in project.json("doctor", code=None)["checks"]}
    assert checks["live_sessions"]["level"] == "warn"
    assert f"{run_dir}/{name}" in checks["live_sessions"]["detail"]

    project.loop("stop", "--kill")
    wait_until(lambda: not project.helpers(), what="the shims' ends")
    project.loop("tick")
    lost = [(event["session"], event["data"]["why"]) for event in project.events("session.lost")]
    rewritten = name in ("exit.json", "end.json")  # by the shim, at the end
    assert lost == ([] if rewritten else [(run_dir.name, "run_directory_damaged")])
    assert len(project.events("session.ended")) == (2 if rewritten else 1)
    project.settle()
    project.json("verify")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("notes.jsonl", '{"type": "warned", "why": {"a": 1}, "at": 7}\n'),
        ("started.json", '{"schema": "loop.started/1", "pid": "x", "start": null, "shim_pid": 1, "shim_start": 1, '
         '"boot": [], "boottime_ns": 1, "at": 1}'),
    ],
)  # fmt: skip
def test_files_that_no_shim_writes_hold_up_nobody_and_go_with_the_directory(
    project: Project, name: str, text: str
) -> None:
    project.configure("code", "news", slots=2, category=AGAIN, env={"NAP": "60", "SAY": NOOP})
    project.edit('timeout = "30s"', 'timeout = "5m"')
    project.loop("start", "code")
    wait_until(lambda: project.starts())
    (run_dir,) = project.run_dirs()
    (run_dir / name).write_text(text)
    (run_dir / "exit.json").mkdir()  # nor can the shim say how it ended
    first = shim_pids(project)["code"]
    project.loop("tick")
    wait_until(lambda: {line[1] for line in project.starts()} == {"code", "news"}, what="the other one")
    project.loop("stop", "--kill")
    wait_until(lambda: not project.helpers(), what="the shims' ends")
    project.loop("tick")
    assert not proc.marked(str(run_dir)), first
    if project.status()["sessions"]["live"]:
        shutil.rmtree(run_dir)
        project.loop("tick")
    assert len(project.events("session.lost")) == 1
    project.settle()


def test_a_request_whose_files_were_damaged_before_its_start_was_recorded_ends_too(project: Project) -> None:
    project.configure("code", slots=1, category=AGAIN, env={"NAP": "60", "SAY": NOOP})
    armed = project.directory / "armed"
    armed.touch()
    project.loop("tick", code=-signal.SIGKILL, env={"FAULTPOINT": f"pass.launched:{armed}"})
    wait_until(lambda: project.starts())
    (run_dir,) = project.run_dirs()
    (run_dir / "claim").write_text("{ damaged")
    kill(*project.helpers())
    project.loop("pause")
    project.loop("tick")
    assert [event["data"]["why"] for event in project.events("session.lost")] == ["run_directory_damaged"]
    assert proc.marked(str(run_dir)) == []
    project.json("verify")


def test_the_controller_goes_on_firing_beside_damage_and_tells_it_once(project: Project) -> None:
    project.configure("code", "news", slots=2, category=AGAIN, env={"NAP": "60", "SAY": NOOP})
    project.edit('every = "1h"', 'every = "2s"')
    project.loop("start", "code")
    (run_dir,) = project.run_dirs()
    (run_dir / "spec.json").write_text("{ damaged")
    controller = project.spawn("run")
    try:
        wait_until(lambda: len(project.starts()) == 2, what="a fire")
        before = len(project.events("tick.started"))
        wait_until(lambda: len(project.events("tick.started")) > before + 2, what="more fires")
    finally:
        controller.terminate()
        said = "".join(controller.communicate(timeout=20))
    assert said.count("spec.json is not JSON") == 1
    project.loop("stop", "--kill")
    wait_until(lambda: not project.helpers())


def test_what_dead_shims_left_is_asked_once_and_waited_for_together(project: Project) -> None:
    names = ("a", "b", "c")
    project.configure(*names, slots=3, category=AGAIN)
    project.edit('grace = "1s"', 'grace = "4s"')
    project.agent.write_text(
        '#!/bin/sh\ntrap \'echo >> "$MARKS/terms-$LOOP_CATEGORY"\' TERM\n'
        'echo "$LOOP_SESSION $LOOP_CATEGORY" >> "$MARKS/started"\nwhile :; do sleep 0.2; done\n'
    )
    project.loop("tick")
    wait_until(lambda: len(project.starts()) == 3)
    for pid in shim_pids(project).values():
        kill(pid)
    wait_until(lambda: not project.helpers())
    project.loop("pause")
    began = time.monotonic()
    project.loop("tick")
    assert 4 <= time.monotonic() - began < 3 * 4, "one grace for all"
    assert {event["data"]["why"] for event in project.events("session.lost")} == {"shim_died"}
    assert len(project.events("session.lost")) == 3
    for name in names:
        terms = len((project.marks / f"terms-{name}").read_text().splitlines())
        # The shell and its sleep are told; the shell alone can write, and a new sleep is another process.
        assert terms == 1, (name, terms)
    project.json("verify")


def test_a_key_whose_lock_file_went_with_its_shim_comes_free(project: Project) -> None:
    project.configure("code", slots=1, category=AGAIN, env={"NAP": "60", "SAY": NOOP}).loop("tick")
    wait_until(lambda: project.starts())
    (pid,) = shim_pids(project).values()
    kill(pid)
    (project.db.parent / "locks" / "code.lock").unlink()
    project.loop("pause")
    project.loop("tick")
    assert [event["data"]["why"] for event in project.events("session.lost")] == ["shim_died"]
    assert project.status()["locks"] == []
    project.json("verify")


def test_a_pass_that_breaks_off_before_its_starts_leaves_nothing_while_its_process_lives(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `loop run` does for weeks: it is the granter, and alive, and starts nothing of that pass any more."""
    project.configure("code", "news", slots=2, category=AGAIN, env={"SAY": NOOP})
    with Loop(at(project.directory / "loop.toml"), {"PATH": os.environ["PATH"]}) as loop:

        def breaks(*args: object, **options: object) -> int:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(start, "launch", breaks)
            with pytest.raises(MemoryError):
                loop.fire(Fire("manual"))
        assert len(loop.journal.refresh().sessions["live"]) == 2
        assert len(loop.reconcile()) == 2
        loop.fire(Fire("manual"))
    project.settle()
    assert {line[1] for line in project.starts()} == {"code", "news"}
    assert {event["data"]["code"] for event in project.events("session.spawn_failed")} == {"voided"}
    project.assert_sound()


def test_a_stopped_process_of_a_dead_shim_is_ended_all_the_same(project: Project) -> None:
    project.configure("code", slots=1, category=AGAIN, env={"NAP": "60", "SAY": NOOP}).loop("tick")
    wait_until(lambda: project.starts())
    (session,) = project.status()["sessions"]["live"]
    os.kill(session["pid"], signal.SIGSTOP)
    kill(*shim_pids(project).values())
    project.loop("pause")
    project.loop("tick")
    assert proc.marked(str(project.db.parent / "runs" / session["id"])) == []
    assert len(project.events("session.lost")) == 1


def test_what_left_every_sign_behind_but_its_control_group_is_ended_before_the_key_is_free(project: Project) -> None:
    probe = project.directory / "probe"
    probe.mkdir()
    if cgroup.create(str(probe)) is None:
        pytest.skip("no control group can be made here")
    cgroup.remove(str(probe))
    project.configure("code", slots=1, category=AGAIN)
    project.agent.write_text(f"""#!{sys.executable}
import os, time
with open(os.environ["MARKS"] + "/started", "a") as file:
    print(os.environ["LOOP_SESSION"], os.environ["LOOP_CATEGORY"], file=file)
if (pid := os.fork()) == 0:
    os.setsid()
    os.closerange(0, 256)
    os.execve("/bin/sleep", ["sleep", "300"], {{}})
with open(os.environ["MARKS"] + "/escapee", "w") as file:
    print(pid, file=file, flush=True)
time.sleep(300)
""")
    project.loop("tick")
    wait_until(lambda: (project.marks / "escapee").exists() and (project.marks / "escapee").read_text())
    escapee = int((project.marks / "escapee").read_text())
    began = proc.start_time(escapee)
    assert began is not None
    (session,) = project.status()["sessions"]["live"]
    kill(*shim_pids(project).values())
    kill(session["pid"])
    project.loop("pause")
    project.loop("tick")
    assert not proc.alive(escapee, began, proc.boot_id()), "it lives beside the next session of its key"
    assert len(project.events("session.lost")) == 1
    (run_dir,) = project.run_dirs()
    assert not os.path.lexists(run_dir / "cgroup")
