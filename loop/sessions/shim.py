"""The shim: one process per session that holds its locks, runs its worker and writes down how it ended.

    python -I -S <path of this file> RUN_DIRECTORY   < one JSON object, the configured environment

It reads `spec.json` and standard input, becomes the claimant of the run directory or leaves (DESIGN.md,
section 11), and from then on only writes files: it knows no store and nobody waits for it. Whatever goes wrong,
the end is the same: no process of the session left, witness closed, locks released, `end.json`, `end_argv`.
Exit status 0, or 70 when it could not even begin; then nothing was claimed.

Standard library only and everything imported here, at once: an upgrade may replace the files while it waits.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Literal, Unpack

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from loop.sessions import cgroup, locks, proc, rundir, stopfile
from loop.sessions.faultpoint import faultpoint
from loop.sessions.handshake import Listener
from loop.sessions.output import BoundedLog
from loop.sessions.silence import Ear

CANNOT_BEGIN = 70
DRAIN_GRACE = 5.0  # seconds of a straggler between TERM and KILL, at most
POLL = 1.0  # seconds between two looks at output, stop request and clock, unless somebody asks
FLOOD = 1 << 20  # bytes between two looks that call for an earlier next one
STOPPING = (signal.SIGTERM, signal.SIGINT)
WAKING = (signal.SIGCHLD, signal.SIGIO, *STOPPING)


class Refused(Exception):
    """There will be no worker: what `exit.json` says of it."""

    def __init__(
        self, stage: str, code: str, text: str, ended: proc.Ended | None = None, reason: str | None = None
    ) -> None:
        super().__init__(text)
        self.stage, self.code, self.text, self.ended, self.reason = stage, code, text, ended, reason


class Shim:
    """One claimed session, from its locks to its end."""

    def __init__(self, run_dir: str, spec: rundir.Spec, env: dict[str, str]) -> None:
        self.run_dir, self.spec = run_dir, spec
        self.env = {**env, **spec["loop_env"]}
        self.outputs: list[BoundedLog] = []
        self.listener: Listener | None = None
        self.group = cgroup.create(run_dir)
        self.held: locks.Held | None = None
        self.signalled = False
        self.obeyed: rundir.Stop | None = None
        self.worker_end: proc.Ended | None = None
        self.exit: dict[str, object] | None = None
        self.exit_durable = False

    def run(self) -> None:
        """Everything after the claim. Raises nothing: every way leads through the release."""
        stage = "spawn"
        faultpoint("shim.claimed")
        tolerate("control.sock", self.open_socket)
        faultpoint("shim.listening")
        try:
            self.lock()
            self.refuse_if_stopped()
            faultpoint("shim.locked")
            stage = "before"
            self.before()
            faultpoint("shim.prepared")
            self.refuse_if_stopped()
            stage = "spawn"
            worker, began = self.start()
            stage = "worker"
            self.supervise(worker, began)
            self.after()
        except Refused as refused:
            log(f"no worker: {refused.code}: {refused.text}")
            self.write_exit(refused.stage, refused.ended, refused.reason, error=(refused.code, refused.text))
        except BaseException as error:
            log_exception("the session is being ended")
            if self.exit is None:
                self.write_exit(stage, None, None, error=("os_error", f"{type(error).__name__}: {error}"))
        self.finish()

    # ------------------------------------------------------------------------------------------- the steps

    def open_socket(self) -> None:
        self.listener = Listener(self.run_dir, self.spec["session"], self.spec["token"])

    def lock(self) -> None:
        spec = self.spec
        try:
            self.held = locks.hold(spec["lock_dir"], spec["keys"], inherit=True)
            self.held.note_acquired(spec["token"], spec["session"])
        except locks.LockRefused as refused:
            raise Refused("spawn", refused.code, str(refused)) from None
        except OSError as error:
            raise Refused("spawn", "os_error", f"cannot lock: {error}") from None

    def refuse_if_stopped(self) -> None:
        self.listen(0)
        stop = self.stop_request()
        if stop is not None:
            raise Refused("spawn", "cancelled", f"stopped by {stop['by']} before it started", reason="cancelled")

    def before(self) -> None:
        argv = self.spec["before"]
        if argv is None:
            return
        try:
            ended, reason = self.hook(argv, "before.log", self.env)
        except proc.SpawnError as error:
            raise Refused("before", "before_failed", f"before: {error}") from None
        if ended.code != 0 or reason is not None:
            text = f"before: {argv[0]} {ended_as(ended, reason)}"
            raise Refused("before", "before_failed", text, ended, reason)

    def start(self) -> tuple[int, float]:
        spec = self.spec
        try:
            for name in ("out.log", "err.log"):
                self.outputs.append(BoundedLog(os.path.join(self.run_dir, name)))
            out, err = self.outputs
            began = proc.monotonic()
            pid = proc.spawn(spec["argv"], spec["cwd"], self.env, out.fd, err.fd, group=self.group)
        except proc.SpawnError as error:
            raise Refused("spawn", error.code, str(error)) from None
        except OSError as error:
            raise Refused("spawn", "os_error", f"cannot start: {error}") from None
        faultpoint("shim.spawned")
        started: rundir.Started = {
            "schema": "loop.started/1", "pid": pid, "start": proc.start_time(pid) or 0,
            "shim_pid": os.getpid(), "shim_start": proc.start_time(os.getpid()) or 0,
            "boot": proc.boot_id(), "boottime_ns": proc.boottime_ns(), "at": proc.wall_now(),
        }  # fmt: skip
        tolerate("started.json", lambda: rundir.write_json(self.run_dir, "started.json", started))
        faultpoint("shim.started")
        return pid, began

    def supervise(self, worker: int, began: float) -> None:
        ended, reason = self.watch(worker, began, self.outputs, is_worker=True)
        seconds = proc.monotonic() - began
        self.tend(self.outputs)
        faultpoint("shim.exited")
        self.write_exit("worker", ended, reason, seconds=seconds)
        faultpoint("shim.recorded")
        proc.reap()
        self.worker_end, self.obeyed = ended, self.stop_request()

    def after(self) -> None:
        argv, ended = self.spec["after"], self.worker_end
        if argv is None or ended is None:
            return
        status = ended.code if ended.code is not None else 128 + (ended.signal or 0)
        try:
            hook, reason = self.hook(argv, "after.log", {**self.env, "LOOP_EXIT_CODE": str(status)})
            text = None if hook.code == 0 and reason is None else ended_as(hook, reason)
        except (proc.SpawnError, OSError) as error:
            text = str(error)
        if text is not None:
            self.note("warned", "after_failed", text=f"after: {argv[0]} {text}")

    def finish(self) -> None:
        """Drain, close the witness, release, `end.json`, `end_argv`, in this order."""
        faultpoint("shim.finishing")
        stragglers = self.drain()
        faultpoint("shim.drained")
        if self.exit is not None and not self.exit_durable:
            self.save_exit()  # a disk that was full then may have room now
        held: dict[str, rundir.Interval] = {}
        if self.held is not None:
            for error in self.held.note_released():
                log(f"cannot close the witness: {error}")
            held = self.held.spans
            faultpoint("shim.closed")
            self.held.release()
        faultpoint("shim.released")
        end: rundir.EndFile = {
            "schema": "loop.end/1", "held": held, "stragglers": stragglers, "at": proc.wall_now(),
        }  # fmt: skip
        tolerate("end.json", lambda: rundir.write_json(self.run_dir, "end.json", end))
        faultpoint("shim.ended")
        if self.listener is not None:
            tolerate("closing control.sock", self.listener.close)
        cgroup.remove(self.run_dir)
        tolerate("the end command", self.spawn_end)
        faultpoint("shim.succeeded")

    def drain(self) -> int:
        """End whatever the session left running; returns how many processes that were."""
        me, ended = os.getpid(), 0

        def find() -> list[int]:
            proc.reap()
            self.tend(self.outputs)
            self.answer()
            return sorted({*proc.descendants(me), *proc.marked(self.run_dir, {me})})

        while True:
            try:
                ended += proc.end_all(find, min(self.spec["grace"], DRAIN_GRACE))
                if not proc.reap():
                    return ended
                time.sleep(0.01)
            except Exception:
                # Nobody may believe the keys free on the word of a sweep that failed: try again, slowly.
                log_exception("cannot sweep the session's processes")
                time.sleep(POLL)

    def spawn_end(self) -> None:
        argv = self.spec["end_argv"]
        if not argv:
            return
        try:
            # A FIFO of that name has nobody to wait for.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            log_fd = os.open(os.path.join(self.run_dir, "end.log"), flags, 0o600)
        except OSError as error:
            log(f"the end command runs without a log: {error}")
            log_fd = os.open("/dev/null", os.O_WRONLY)
        try:
            proc.spawn(argv, "/", dict(os.environ), log_fd, log_fd, new_session=True)
        finally:
            os.close(log_fd)

    # ---------------------------------------------------------------------------------------- supervision

    def hook(self, argv: list[str], name: str, env: dict[str, str]) -> tuple[proc.Ended, str | None]:
        """Run a hook to its end, bounded like the session. Raises SpawnError."""
        output = BoundedLog(os.path.join(self.run_dir, name))
        try:
            pid = proc.spawn(argv, self.spec["hook_cwd"], env, output.fd, output.fd, group=self.group)
            ended = self.watch(pid, proc.monotonic(), [output], is_worker=False)
            proc.reap()
            return ended
        finally:
            output.close()

    def watch(
        self, child: int, began: float, outputs: list[BoundedLog], *, is_worker: bool
    ) -> tuple[proc.Ended, str | None]:
        """Wait for `child`, ending it when its time is up; returns how it ended and why we ended it, if we did.

        The child is left unreaped. For the worker silence counts, and a kill's reason is on disk before the first
        signal.
        """
        spec = self.spec
        deadline, reason, kill_at, nap = began + spec["timeout"], None, began, 0.02
        ear = Ear(spec["silence"] if is_worker else None, spec["kill_on_silence"], began)
        while True:
            ended = proc.peek(child)
            if ended is not None:
                return ended, reason
            proc.reap(keep=child)
            now, grown, stop = proc.monotonic(), self.tend(outputs), self.stop_request()
            if stop == self.obeyed:
                stop = None
            ear.hear(now, grown)
            if reason is None:
                if stop is not None:
                    reason = "cancelled"
                elif now >= deadline:
                    reason = "timeout"
                elif ear.must_kill(now):
                    reason = "silence"
                elif ear.must_warn(now):
                    self.note("warned", "silence", seconds=round(now - ear.heard, 3))
                if reason is not None:
                    by, kill = (stop["by"], stop["kill"]) if stop is not None else ("shim", False)
                    if is_worker:
                        self.note("stopping", reason, by=by, kill=kill)
                    kill_at = now + (0.0 if kill else spec["grace"])
                    if not kill:
                        self.signal_tree(child, signal.SIGTERM)
            if reason is not None and (now >= kill_at or (stop is not None and stop["kill"])):
                self.signal_tree(child, signal.SIGKILL)
            # A flood is looked at again at once, the rest ever less often, but never past the next due time.
            nap = 0.01 if grown > FLOOD else min(POLL, nap * 1.5)
            due = [deadline, *ear.due()] if reason is None else [kill_at]
            self.listen(max(0.005, min([nap, *(at - now for at in due if at > now)])))

    def signal_tree(self, child: int, number: int) -> None:
        """Signal the child's process group, and every other process of the session once."""
        try:
            os.killpg(child, number)
        except OSError:
            pass
        me = os.getpid()
        for pid in {*proc.descendants(me), *proc.marked(self.run_dir, {me})}:
            start = proc.start_time(pid)
            try:
                # A second TERM in a row makes some programs give up their clean-up.
                if start is not None and os.getpgid(pid) != child:
                    proc.send(pid, start, number)
            except OSError:
                continue

    def listen(self, seconds: float) -> None:
        """Sleep until a child ends, somebody asks or signals this process, or `seconds` have passed."""
        while True:
            info = signal.sigtimedwait(WAKING, seconds)
            if info is None:
                return
            self.signalled |= info.si_signo in STOPPING
            if info.si_signo == signal.SIGIO:
                self.answer()
            seconds = 0

    def answer(self) -> None:
        if self.listener is not None:
            self.listener.answer()

    def stop_request(self) -> rundir.Stop | None:
        """The stop request in force: of this session, or the loop's STOP file, which needs no run directory.

        Of two the one that kills.
        """
        own, everybody = self.own_stop(), stopfile.read(self.spec["state_dir"])
        if everybody is None or (own is not None and own["kill"]):
            return own
        return everybody

    def own_stop(self) -> rundir.Stop | None:
        """What was asked of this session alone, by a file or a signal."""
        try:
            stop = rundir.read_stop(self.run_dir)
        except rundir.RunDirError:
            stop = {"schema": "loop.stop/1", "kill": False, "by": "a damaged stop.json"}
        except OSError:
            stop = None  # cannot be read now: it is looked for again
        if stop is None and self.signalled:
            stop = {"schema": "loop.stop/1", "kill": False, "by": "signal"}
        return stop

    # -------------------------------------------------------------------------------------------- writing

    def tend(self, outputs: list[BoundedLog]) -> int:
        """Keep the logs bounded; returns the bytes they grew by since the last look."""
        grown = 0
        for output in outputs:
            said = output.truncated
            try:
                grown += output.tend()
            except OSError as error:
                log(f"cannot bound the output: {error}")
            if output in self.outputs and output.truncated and not said:
                self.note("warned", "output_truncated", stream="out" if output is self.outputs[0] else "err")
        return grown

    def note(self, kind: Literal["warned", "stopping"], why: str, **more: Unpack[rundir.Details]) -> None:
        note: rundir.Note = {"type": kind, "why": why, "at": proc.wall_now(), **more}
        tolerate("notes.jsonl", lambda: rundir.append_note(self.run_dir, note))

    def write_exit(
        self,
        stage: str,
        ended: proc.Ended | None,
        reason: str | None,
        *,
        seconds: float = 0.0,
        error: tuple[str, str] | None = None,
    ) -> None:
        sizes = [output.size for output in self.outputs] or [0, 0]
        self.exit = {
            "schema": "loop.exit/1", "stage": stage, "reason": reason, "seconds": seconds,
            "code": ended.code if ended else None, "signal": ended.signal if ended else None,
            "error": {"code": error[0], "text": error[1]} if error else None,
            "cpu_seconds": ended.cpu_seconds if ended else None, "max_rss_kb": ended.max_rss_kb if ended else None,
            "out_bytes": sizes[0], "err_bytes": sizes[-1],
            "truncated": any(output.truncated for output in self.outputs),
            "boottime_ns": proc.boottime_ns(), "at": proc.wall_now(),
        }  # fmt: skip
        self.save_exit()

    def save_exit(self) -> None:
        content = self.exit or {}
        self.exit_durable = tolerate("exit.json", lambda: rundir.write_json(self.run_dir, "exit.json", content))


def ended_as(ended: proc.Ended, reason: str | None) -> str:
    """How a hook ended, for a person."""
    if reason is not None:
        return {"timeout": "took too long", "cancelled": "was stopped"}.get(reason, reason)
    return f"ended with exit code {ended.code}" if ended.signal is None else f"was killed by signal {ended.signal}"


def log(text: str) -> None:
    """One line to `shim.log`; a full disk loses it."""
    try:
        os.write(2, f"{proc.wall_now()} {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass


def log_exception(text: str) -> None:
    log(text)
    try:
        sys.__excepthook__(*sys.exc_info())
        sys.stderr.flush()
    except OSError:
        pass


def tolerate(what: str, action: Callable[[], None]) -> bool:
    """Do `action`; a failure is logged and otherwise without effect: supervision and release come first."""
    try:
        action()
    except Exception as error:
        log(f"{what} failed: {type(error).__name__}: {error}")
        return False
    return True


def configured_env() -> dict[str, str] | None:
    """The JSON object on standard input; None unless it is there whole and maps names to strings."""
    with open(0, "rb", closefd=False) as stream:
        data = stream.read()
    try:
        env = json.loads(data)
    except ValueError:
        return None
    if not isinstance(env, dict) or not all(isinstance(value, str) for value in env.values()):
        return None
    return env


def main(run_dir: str) -> int:
    """The whole life of a shim; returns its exit status."""
    env = configured_env()
    if env is None:
        log("standard input is not one JSON object of strings: its writer died. Nothing was claimed.")
        return CANNOT_BEGIN
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    for name in [name for name in os.environ if name.startswith("LOOP_")]:
        del os.environ[name]
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)
    try:
        spec = rundir.read_spec(run_dir)
        if spec is None:
            raise rundir.RunDirError(f"{run_dir}/spec.json is missing")
        if not rundir.claim(run_dir, by="shim"):
            return 0
    except (OSError, rundir.RunDirError) as error:
        log(f"cannot begin: {error}")
        return CANNOT_BEGIN
    tolerate("becoming a subreaper", proc.become_subreaper)
    proc.give_back_memory()
    Shim(run_dir, spec, {**os.environ, **env}).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
