"""Sessions and their shims for the benches: run directories prepared, launched bare, and ended again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from loop.sessions import locks, rundir
from loop.sessions.start import SHIM
from tests.bench.measure import wait_until

SESSIONS = 6
STAMP = "exec"  # the file whose time is that of the worker's first instruction
WORKER = ["/bin/sh", "-c", f': > "$LOOP_RUN_DIR/{STAMP}"; exec sleep 60']


def prepare(state: Path, count: int = SESSIONS) -> list[str]:
    """Run directories with their spec and lock files, as a controller has them before it spawns a shim."""
    run_dirs = []
    for number in range(1, count + 1):
        session, key = f"s{number}", f"work-{number}"
        run_dir = rundir.path_of(str(state), session)
        rundir.make_directory(run_dir)
        locks.create(str(state / "locks"), key)
        spec: rundir.Spec = {
            "schema": "loop.spec/1", "session": session, "token": number, "category": key, "task": "",
            "backend": "default", "pool": "default", "keys": [key], "chain": 0, "rule": "selected",
            "trigger": "timer", "tick": "t1", "argv": WORKER, "cwd": "/", "hook_cwd": "/", "before": None,
            "after": None, "loop_env": {"LOOP_SESSION": session, "LOOP_RUN_DIR": run_dir}, "timeout": 60.0,
            "silence": 900.0, "grace": 5.0, "kill_on_silence": False, "lock_dir": str(state / "locks"),
            "state_dir": str(state), "config": None, "evidence": "outcome", "exit_codes": {}, "end_argv": [],
        }  # fmt: skip
        rundir.write_json(run_dir, "spec.json", spec)
        run_dirs.append(run_dir)
    return run_dirs


def spawn(run_dir: str, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """The shim of a prepared run directory, with nothing done but what it needs."""
    with open(os.path.join(run_dir, "shim.log"), "ab") as log:
        shim = subprocess.Popen(
            [sys.executable, "-I", "-S", SHIM, run_dir],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", env=env, start_new_session=True,
        )  # fmt: skip
    assert shim.stdin is not None
    with shim.stdin as pipe:
        pipe.write(b"{}")
    return shim


def last_exec(run_dirs: Iterable[str]) -> int:
    """When the last worker ran its first instruction (nanoseconds since the epoch); waits for it."""
    stamps = [os.path.join(run_dir, STAMP) for run_dir in run_dirs]
    wait_until("the workers to run", lambda: all(map(os.path.exists, stamps)))
    return max(os.stat(stamp).st_mtime_ns for stamp in stamps)


def end(run_dirs: Iterable[str]) -> None:
    """End the workers, and wait until their shims have written that they are done."""
    for run_dir in run_dirs:
        wait_until("started.json", partial(rundir.read_started, run_dir))
        started = rundir.read_started(run_dir)
        assert started is not None
        os.kill(started["pid"], signal.SIGTERM)
    for run_dir in run_dirs:
        wait_until("end.json", partial(rundir.read_end, run_dir))
