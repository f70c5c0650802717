"""Real sessions: a real shim, a real worker, real locks, in a state directory of their own."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from loop.sessions import cgroup, locks, proc, rundir, start

SHELL = ["/bin/sh", "-c"]


def wait_until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class Session:
    """One session of a `House`; its fields are those of the spec until it is launched."""

    def __init__(self, house: House, name: str, spec: rundir.Spec) -> None:
        self.house, self.name, self.spec = house, name, spec
        self.dir = Path(rundir.path_of(str(house.state), name))
        self.shim = 0

    def launch(self, env: Mapping[str, str] | None = None, base: Mapping[str, str] | None = None) -> Session:
        self.shim = start.launch(self.spec, env or {}, os.environ if base is None else base)
        return self

    def run(self, env: Mapping[str, str] | None = None, base: Mapping[str, str] | None = None) -> Session:
        return self.launch(env, base).wait()

    def wait(self, seconds: float = 15.0) -> Session:
        """Until the end command has run, which is after everything else."""
        wait_until((self.dir / "ended").exists, seconds)
        return self

    def started(self) -> rundir.Started:
        wait_until((self.dir / "started.json").exists)
        found = rundir.read_started(str(self.dir))
        assert found is not None
        return found

    @property
    def exit(self) -> rundir.ExitFile:
        found = rundir.read_exit(str(self.dir))
        assert found is not None
        return found

    @property
    def end(self) -> rundir.EndFile:
        found = rundir.read_end(str(self.dir))
        assert found is not None
        return found

    @property
    def notes(self) -> list[tuple[str, str]]:
        return [(note["type"], note["why"]) for note in rundir.read_notes(str(self.dir))]

    def error(self) -> str:
        error = self.exit["error"]
        assert error is not None
        return error["code"]

    def text(self, name: str) -> str:
        return (self.dir / name).read_text()

    def marked(self) -> list[int]:
        return proc.marked(str(self.dir))

    def wait_for(self, name: str) -> str:
        """The content of a file in the run directory, once it has some."""
        path = self.dir / name
        wait_until(lambda: path.exists() and path.stat().st_size)
        return path.read_text()

    def wait_for_shim(self) -> None:
        """Until the shim has ended, whatever it could write."""
        wait_until(lambda: not is_running(self.shim))

    def seen_at_the_end(self) -> dict[str, Any]:
        """What the end command saw: files, whether `code` was free, its environment, descriptors and session."""
        found = json.loads(self.text("ended"))
        assert isinstance(found, dict)
        return found


class House:
    """A state directory with lock files, and the sessions started in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.state, self.locks = root, root / "state", root / "state" / "locks"
        self.sessions: list[Session] = []
        self._tokens = itertools.count(101)
        self.key("code")

    def key(self, key: str) -> Path:
        locks.create(str(self.locks), key)
        return Path(locks.path_of(str(self.locks), key))

    wait_until = staticmethod(wait_until)

    def is_free(self, key: str = "code") -> bool:
        held = locks.try_hold(str(self.locks), [key])
        if held is not None:
            held.release()
        return held is not None

    def witness(self, key: str = "code") -> list[str]:
        return Path(locks.path_of(str(self.locks), key)).read_text().splitlines()

    def session(self, script: str | list[str] = "true", **over: object) -> Session:
        name, token = f"s{secrets.token_hex(5)}", next(self._tokens)
        run_dir = rundir.path_of(str(self.state), name)
        argv = [*SHELL, script] if isinstance(script, str) else script
        loop_env = {
            "LOOP_SESSION": name, "LOOP_CATEGORY": "code", "LOOP_TASK": "", "LOOP_TOKEN": str(token),
            "LOOP_BACKEND": "default", "LOOP_DEADLINE": "", "LOOP_RUN_DIR": run_dir,
            "LOOP_OUTCOME": f"{run_dir}/outcome.json",
        }  # fmt: skip
        tell = "import fcntl,json,os,sys;" + END_COMMAND
        spec = {
            "schema": "loop.spec/1", "session": name, "token": token, "category": "code", "task": "",
            "backend": "default", "pool": "default", "keys": ["code"], "chain": 0, "rule": "selected",
            "trigger": "manual", "tick": "t1", "argv": argv, "cwd": str(self.root), "hook_cwd": str(self.root),
            "before": None, "after": None, "loop_env": loop_env, "timeout": 30.0, "silence": None, "grace": 0.5,
            "kill_on_silence": False, "lock_dir": str(self.locks), "state_dir": str(self.state), "config": None,
            "evidence": "outcome", "exit_codes": {},
            "end_argv": [sys.executable, "-I", "-S", "-c", tell, run_dir, str(self.locks / "code.lock")],
            **over,
        }  # fmt: skip
        found = Session(self, name, spec)  # type: ignore[arg-type]
        self.sessions.append(found)
        return found


END_COMMAND = """
run_dir, lock = sys.argv[1:]
fd = os.open(lock, os.O_RDONLY)
try:
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    free = True
except OSError:
    free = False
os.close(fd)
seen = {"files": sorted(os.listdir(run_dir)), "free": free, "env": dict(os.environ),
        "fds": sorted(os.listdir("/proc/self/fd")), "sid": os.getsid(0), "pid": os.getpid()}
with open(run_dir + "/ended.tmp", "w") as file:
    json.dump(seen, file)
os.rename(run_dir + "/ended.tmp", run_dir + "/ended")
"""


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A house whose sessions are all over, and have left no process behind, when the test is."""
    found = House(tmp_path)
    yield found
    left: list[int] = []
    for session in found.sessions:
        if is_running(session.shim) and session.dir.exists() and not (session.dir / "end.json").exists():
            rundir.request_stop(str(session.dir), kill=True, by="the end of the test")
        wait_until(lambda pid=session.shim: not is_running(pid))
        left += session.marked()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    for session in found.sessions:
        cgroup.remove(str(session.dir))  # of a shim that the test has killed
    assert not left, "the test left processes behind"


def is_running(pid: int) -> bool:
    """Whether `pid`, which this process may have started, has not ended."""
    start.reap()
    return pid != 0 and os.path.exists(f"/proc/{pid}")
