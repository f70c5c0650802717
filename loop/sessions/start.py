"""Start a session: make its run directory, write its spec, and let go of a shim that needs nobody."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Literal

from loop.sessions import rundir
from loop.sessions.faultpoint import faultpoint
from loop.sessions.rundir import Spec

SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shim.py")
POLL = 0.02  # seconds

#: `started`: a worker runs or ran; `ended`: it did not come to that; `waiting`: neither, yet.
Progress = Literal["started", "ended", "waiting"]

#: Started comes first: a session that has all three files had a worker.
_SIGNS: dict[str, Progress] = {"started.json": "started", "exit.json": "ended", "end.json": "ended"}

#: Shims of this process that have not been waited for. A long-lived controller must reap them.
_shims: list[subprocess.Popen[bytes]] = []


class LaunchError(Exception):
    """A session could not be launched. Its request must be voided by a reconciler, through the claim."""


def launch(
    spec: Spec,
    env: Mapping[str, str],
    base_env: Mapping[str, str],
    context: Mapping[str, object] | None = None,
    *,
    executable: str = sys.executable,
) -> int:
    """Start the shim of `spec` and return its pid, without waiting for what it does.

    Only after the grant is durable. `env` is the configured environment: it goes through a pipe and never touches
    the disk. `base_env` is the controller's own, of which no `LOOP_*` variable is passed on. `context` becomes the
    file that the session may read of itself. The run directory may exist, as a crash leaves it, but not with a claim.
    Raises LaunchError, OSError.
    """
    reap()
    payload = json.dumps(_checked(env)).encode()
    run_dir = rundir.path_of(spec["state_dir"], spec["session"])
    rundir.make_directory(run_dir)
    if rundir.read_claim(run_dir) is not None:
        raise LaunchError(f"{run_dir} is claimed: this session has been started or voided before")
    if context is not None:
        rundir.write_json(run_dir, rundir.CONTEXT, context)
    rundir.write_json(run_dir, "spec.json", spec)
    faultpoint("launch.specified")
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(os.path.join(run_dir, "shim.log"), flags, 0o600)
    try:
        shim = subprocess.Popen(
            [executable, "-I", "-S", SHIM, run_dir],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/",
            env={name: value for name, value in base_env.items() if not name.startswith("LOOP_")},
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    finally:
        os.close(log)
    _shims.append(shim)
    assert shim.stdin is not None
    faultpoint("launch.spawned")
    try:
        # Closing is what tells the shim that it has all of it.
        with shim.stdin as pipe:
            pipe.write(payload)
    except BrokenPipeError:
        raise LaunchError(f"the shim ended at once: see {run_dir}/shim.log") from None
    return shim.pid


def see_to_end(spec: Spec, base_env: Mapping[str, str]) -> None:
    """Do, beside this process, what the shim of a session does last; all of it can be repeated. Raises OSError."""
    reap()
    log = os.open(os.path.join(rundir.path_of(spec["state_dir"], spec["session"]), "end.log"), rundir.APPEND, 0o600)
    try:
        end = subprocess.Popen(
            spec["end_argv"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
            env={name: value for name, value in base_env.items() if not name.startswith("LOOP_")},
            start_new_session=True, close_fds=True,
        )  # fmt: skip
    finally:
        os.close(log)
    _shims.append(end)


def reap() -> None:
    """Reap the shims this process started that have ended; their files say how it went."""
    _shims[:] = [shim for shim in _shims if shim.poll() is None]


def await_started(run_dirs: Iterable[str], seconds: float) -> dict[str, Progress]:
    """Wait until every session has a worker or has ended without one, at most `seconds`; returns where each is.

    A `before` hook may well take longer: `waiting` is no failure.
    """
    deadline = time.monotonic() + seconds
    progress: dict[str, Progress] = dict.fromkeys(run_dirs, "waiting")
    while True:
        for run_dir, so_far in progress.items():
            if so_far == "waiting":
                progress[run_dir] = _progress(run_dir)
        if "waiting" not in progress.values() or time.monotonic() >= deadline:
            reap()
            return progress
        time.sleep(POLL)


def _progress(run_dir: str) -> Progress:
    for name, meaning in _SIGNS.items():
        if os.path.exists(os.path.join(run_dir, name)):
            return meaning
    return "waiting"


def _checked(env: Mapping[str, str]) -> dict[str, str]:
    """A copy of `env` that an exec will accept. Raises LaunchError, which never tells a value."""
    for name, value in env.items():
        if not re.fullmatch(r"[^=\0]+", name) or "\0" in value:
            raise LaunchError(f"environment variable {name!r}: an empty name, `=` in it, or a NUL character")
        with contextlib.suppress(UnicodeEncodeError):
            os.fsencode(name + value)
            continue
        raise LaunchError(f"environment variable {name!r} is not text in the filesystem's encoding")
    return dict(env)
