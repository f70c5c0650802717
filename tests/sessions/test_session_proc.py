"""Processes by pid, start time and boot; sweeps; the ladder."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loop.sessions import proc

Spawn = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children: list[subprocess.Popen[bytes]] = []

    def start(*argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        children.append(subprocess.Popen(argv, env=env, stdout=subprocess.PIPE))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def name() -> str:
    """A session id that no test beside this one uses: sweeps go over the whole host."""
    return f"s{secrets.token_hex(5)}"


def started(child: subprocess.Popen[bytes]) -> int:
    found = proc.start_time(child.pid)
    assert found is not None
    return found


def test_a_process_is_alive_by_pid_start_and_boot(spawn: Spawn) -> None:
    child = spawn("/bin/sleep", "60")
    start, boot = started(child), proc.boot_id()
    assert proc.alive(child.pid, start, boot)
    assert not proc.alive(child.pid, start + 1, boot)
    assert not proc.alive(child.pid, start, "another boot")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not proc.alive(child.pid, start, boot), "a zombie has ended"
    child.wait()
    assert not proc.alive(child.pid, start, boot)
    assert proc.start_time(child.pid) is None


def test_a_name_with_parentheses_and_spaces(spawn: Spawn) -> None:
    rename = "open('/proc/self/comm', 'w').write('a) Z 1 (b'); print(flush=True); import time; time.sleep(60)"
    child = spawn(sys.executable, "-c", rename)
    assert child.stdout is not None
    child.stdout.readline()
    assert proc.alive(child.pid, started(child), proc.boot_id())
    assert child.pid in proc.descendants(os.getpid())


def test_a_leader_that_left_its_threads_running_is_alive(spawn: Spawn) -> None:
    leave = "import ctypes, threading, time; threading.Thread(target=time.sleep, args=(60,)).start(); print(flush=True)"
    child = spawn(sys.executable, "-c", f"{leave}; ctypes.CDLL(None).pthread_exit(None)")
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 5
    while b") Z" not in open(f"/proc/{child.pid}/stat", "rb").read():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert proc.alive(child.pid, started(child), proc.boot_id())
    assert child.pid in proc.descendants(os.getpid())


def test_the_marker_is_matched_exactly(spawn: Spawn, name: str) -> None:
    exact = spawn("/bin/sleep", "60", env={"LOOP_SESSION": name})
    last = spawn("/bin/sleep", "60", env={"A": "1", "LOOP_SESSION": name})
    for env in (
        {"LOOP_SESSION": name + "1"},
        {"XLOOP_SESSION": name},
        {"A": "LOOP_SESSION=" + name},
        {"LOOP_SESSION": name + " "},
    ):
        spawn("/bin/sleep", "60", env=env)
    assert sorted(proc.marked(name)) == sorted([exact.pid, last.pid])
    assert proc.marked(name, {exact.pid}) == [last.pid]


def test_a_process_of_a_copy_of_the_store_is_not_ours(spawn: Spawn, name: str, tmp_path: Path) -> None:
    ours, copy, gone = (tmp_path / parent / name for parent in ("ours", "copy", "gone"))
    ours.mkdir(parents=True)
    copy.mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    of = {
        path: spawn("/bin/sleep", "60", env={"LOOP_SESSION": name, "LOOP_RUN_DIR": str(path)}).pid
        for path in (ours, copy, gone, tmp_path / "link" / name)
    }
    assert sorted(proc.marked(str(ours))) == sorted({*of.values()} - {of[copy]})  # "gone": it may have been moved
    assert of[copy] in proc.marked(str(copy))
    assert of[ours] not in proc.marked(str(copy))
    ours.rmdir()
    assert of[ours] in proc.marked(str(ours))
    assert of[copy] not in proc.marked(str(ours))


def test_descendants_of_all_depths(spawn: Spawn) -> None:
    child = spawn("/bin/sh", "-c", "sleep 60 & (sleep 61 & echo; wait) & wait")
    assert child.stdout is not None
    child.stdout.readline()
    deadline = time.monotonic() + 5
    while len(proc.descendants(child.pid)) < 3:
        assert time.monotonic() < deadline
    assert proc.end_all(lambda: proc.descendants(child.pid), 1.0) == 3


def test_cpu_time_grows_with_work_only(spawn: Spawn) -> None:
    idle, busy = spawn("/bin/sleep", "60"), spawn("/bin/sh", "-c", "while :; do :; done")
    before = proc.cpu_ticks([idle.pid]), proc.cpu_ticks([busy.pid])
    deadline = time.monotonic() + 20
    while proc.cpu_ticks([busy.pid]) <= before[1] + 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert proc.cpu_ticks([idle.pid]) == before[0]
    assert proc.cpu_ticks([2**22 + 1]) == 0


def test_a_signal_reaches_only_the_process_that_was_meant(spawn: Spawn) -> None:
    child = spawn("/bin/sleep", "60")
    assert not proc.send(child.pid, started(child) + 1, 9)
    assert child.poll() is None
    assert proc.send(child.pid, started(child), 9)
    assert child.wait() == -9
    assert not proc.send(child.pid, 1, 9)


def test_the_ladder_asks_first(spawn: Spawn, name: str) -> None:
    asked = "import signal, sys; signal.signal(15, lambda *_: sys.exit(3)); print(flush=True); signal.pause()"
    polite = spawn(sys.executable, "-c", asked, env={"LOOP_SESSION": name})
    assert polite.stdout is not None
    polite.stdout.readline()
    began = time.monotonic()
    assert proc.end_all(lambda: proc.marked(name) if polite.poll() is None else [], 30.0) == 1
    assert polite.wait() == 3
    assert time.monotonic() - began < 10


def test_the_ladder_ends_the_deaf(spawn: Spawn, name: str) -> None:
    deaf = spawn("/bin/sh", "-c", "trap '' TERM; echo; while :; do sleep 0.01; done", env={"LOOP_SESSION": name})
    assert deaf.stdout is not None
    deaf.stdout.readline()

    def find() -> list[int]:
        deaf.poll()
        return proc.marked(name)

    assert proc.end_all(find, 0.2) >= 1
    assert deaf.wait() == -9
    assert proc.end_all(find, 0.2) == 0


def test_wall_time_is_utc_with_microseconds() -> None:
    text = proc.wall_now()
    assert len(text) == len("2026-11-23T14:03:00.123456Z")
    assert text.endswith("Z")
    assert text.startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime()))
