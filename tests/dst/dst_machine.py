"""The modelled machine: processes, kernel locks and run directories in memory, behind the names by which loop asks.

Everything above is the product's own: `Loop`, `reconcile`, `ingest` run unchanged. `installed` puts the model in the
place of what would read /proc, take an flock or touch a run directory. A key is physically held for as long as a shim
or anything that its worker left behind lives, whatever anybody believes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from loop import passes
from loop.sessions import ingest, locks, outcome, proc, rundir, start
from loop.simulate.clock import ToldClock

KILL = 9


class SteppingClock(ToldClock):
    """A told clock whose wall can be off: `wrong` microseconds ahead of the time that really passes."""

    wrong = 0

    def now(self) -> int:
        return self.time + self.wrong


@dataclass(slots=True)
class Body:
    """A session as the machine has it. Times are microseconds of the boot clock; `over` is when its keys came free."""

    spec: rundir.Spec
    pid: int
    boot: str
    began: int
    seconds: float
    code: int | None
    told: outcome.OutcomeFile | None
    killed: bool
    shim: bool = True
    worker: bool = True
    hidden: bool = False
    stubborn: bool = False
    claimed: bool = True
    started: bool = True
    exit: rundir.ExitFile | None = None
    end: rundir.EndFile | None = None
    over: int | None = None

    @property
    def session(self) -> str:
        return self.spec["session"]


@dataclass(slots=True)
class Machine:
    """Who lives. `now` is the boot clock, `acting` the process whose code runs at the moment."""

    clock: SteppingClock
    boot: str = "boot-1"
    pids: set[int] = field(default_factory=set)
    acting: int = 0
    bodies: dict[str, Body] = field(default_factory=dict)
    voided: set[str] = field(default_factory=set)  # sessions that a reconciler claimed
    witness: dict[str, list[Body]] = field(default_factory=dict)  # key -> the last who held it
    launch: Callable[[rundir.Spec], int] = lambda spec: 0
    last_pid: int = 100

    def new_pid(self) -> int:
        self.last_pid += 2
        return self.last_pid

    def process(self) -> int:
        """A process comes up; returns its pid."""
        pid = self.new_pid()
        self.pids.add(pid)
        return pid

    def holder(self, keys: Iterable[str]) -> Body | None:
        """Whoever physically holds one of the keys."""
        wanted = set(keys)
        return next((b for b in self.bodies.values() if b.over is None and wanted & set(b.spec["keys"])), None)

    def begin(self, body: Body) -> None:
        self.bodies[body.session] = body
        for key in body.spec["keys"]:
            self.witness.setdefault(key, []).append(body)
            del self.witness[key][:-6]

    def finish(self, body: Body) -> None:
        """The worker exits, and its shim ends in the order that the protocol has."""
        self.record_exit(body)
        body.shim = body.worker = False
        body.over = self.clock.boottime()
        boot, since, until = body.boot, body.began * 1_000, body.over * 1_000
        held = {key: rundir.Interval(boot=boot, from_ns=since, to_ns=until) for key in body.spec["keys"]}
        body.end = {"schema": "loop.end/1", "held": held, "stragglers": 0, "at": _AT}

    def record_exit(self, body: Body) -> None:
        body.exit = {
            "schema": "loop.exit/1", "stage": "worker", "code": None if body.killed else body.code,
            "signal": 15 if body.killed else None, "reason": "timeout" if body.killed else None,
            "seconds": body.seconds, "error": None, "cpu_seconds": 0.0, "max_rss_kb": 0, "out_bytes": 0,
            "err_bytes": 0, "truncated": False, "boottime_ns": self.clock.boottime() * 1_000, "at": _AT,
        }  # fmt: skip

    def gone(self, body: Body) -> None:
        """Nothing of it is left."""
        body.shim = body.worker = body.hidden = False
        if body.over is None:
            body.over = self.clock.boottime()

    def reboot(self) -> None:
        for body in self.bodies.values():
            self.gone(body)
        self.pids.clear()
        self.boot = f"boot-{int(self.boot.rpartition('-')[2]) + 1}"

    def forget(self, live: Iterable[str]) -> None:
        """Drop the run directories of sessions that ended and whose keys are free."""
        kept = set(live)
        for session in [name for name, body in self.bodies.items() if name not in kept and body.over is not None]:
            del self.bodies[session]

    # ── what loop asks ────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """This machine instead of the one that the test runs on."""
        models: dict[Any, dict[str, Any]] = {
            proc: {"alive": self._alive, "marked": self._marked, "send": self._send,
                   "boot_id": lambda: self.boot, "boottime_ns": lambda: self.clock.boottime() * 1_000,
                   "start_time": self._start_time},
            rundir: {"read_claim": self._claim_of, "claim": self._claim, "read_launched": self._launched,
                     "note_launched": lambda run_dir, pid: None, "read_end": lambda run_dir: self._body(run_dir).end},
            ingest: {"read": self._files},
            outcome: {"read_outcome_file": lambda path: self._body(os.path.dirname(path)).told},
            locks: {"try_hold": self._try_hold, "intervals": self._intervals, "create": lambda lock_dir, key: False},
            start: {"launch": lambda spec, *env: self.launch(spec), "await_started": self._progress},
            passes: {"this_process": lambda: passes.Process(self.acting, 1, self.boot)},
        }  # fmt: skip
        with contextlib.ExitStack() as stack:
            for module, names in models.items():
                stack.enter_context(patch.multiple(module, **names))
            yield

    def _body(self, run_dir: str) -> Body:
        return self.bodies[os.path.basename(run_dir)]

    def _alive(self, pid: int, start: int, boot: str) -> bool:
        if boot != self.boot:
            return False
        return pid in self.pids or any(body.shim and body.pid == pid for body in self.bodies.values())

    def _start_time(self, pid: int) -> int | None:
        return 1 if any(body.worker and body.pid + 1 == pid for body in self.bodies.values()) else None

    def _marked(self, run_dir: str, exclude: Iterable[int] = ()) -> list[int]:
        body = self.bodies.get(os.path.basename(run_dir))
        return [body.pid + 1] if body is not None and body.worker and not body.hidden else []

    def _send(self, pid: int, start: int, number: int) -> bool:
        for body in self.bodies.values():
            if body.worker and body.pid + 1 == pid and (number == KILL or not body.stubborn):
                self.gone(body)
                return True
        return False

    def _claim_of(self, run_dir: str) -> Any:
        session = os.path.basename(run_dir)
        if session in self.voided:
            return {"by": "reconciler", "pid": 0, "start": 1, "boot": self.boot}
        body = self.bodies.get(session)
        if body is None or not body.claimed:
            return None
        return {"by": "shim", "pid": body.pid, "start": 1, "boot": body.boot}

    def _claim(self, run_dir: str, *, by: str) -> bool:
        if self._claim_of(run_dir) is not None:
            return False
        self.voided.add(os.path.basename(run_dir))
        return True

    def _launched(self, run_dir: str) -> Any:
        body = self.bodies.get(os.path.basename(run_dir))
        return None if body is None else {"pid": body.pid, "start": 1, "boot": body.boot}

    def _files(self, run_dir: str) -> ingest.Files | None:
        body = self.bodies.get(os.path.basename(run_dir))
        if body is None:
            return None
        started: Any = None
        if body.started:
            started = {"pid": body.pid + 1, "start": 1, "shim_pid": body.pid, "shim_start": 1, "boot": body.boot}
        return ingest.Files(run_dir, body.spec, self._claim_of(run_dir), started, [], body.exit, body.end)

    def _progress(self, run_dirs: Iterable[str], seconds: float) -> dict[str, str]:
        bodies = {run_dir: self.bodies.get(os.path.basename(run_dir)) for run_dir in run_dirs}
        return {run_dir: "waiting" if body is None else "started" for run_dir, body in bodies.items()}

    def _try_hold(self, lock_dir: str, keys: Iterable[str]) -> _Held | None:
        return None if self.holder(keys) is not None else _Held()

    def _intervals(self, path: str) -> list[locks.HeldInterval]:
        key = os.path.basename(path).removesuffix(".lock")
        return [
            locks.HeldInterval(
                body.spec["token"], body.session, body.boot, body.began * 1_000,
                None if body.over is None else body.over * 1_000, None if body.over is None else "released",
            )
            for body in self.witness.get(key, ())
        ]  # fmt: skip


class _Held(contextlib.nullcontext[None]):
    """Keys that a reconciler holds."""

    def note_lost(self, key: str, token: int, session: str) -> None:
        """The witness is the machine itself."""


_AT = "2030-01-01T00:00:00.000000Z"  # in the files' own words; nothing reads it
