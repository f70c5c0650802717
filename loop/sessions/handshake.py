"""The control socket of a session, `<run directory>/control.sock`: who acts for it, asked before anything is signalled.

The shim listens; whoever connects is told in one JSON line which process this is and for which session it acts, and
nothing is read from the caller. Connecting also wakes the shim, which then looks at its files, so that a stop request
takes effect at once. It is only a shortcut: what is asked of a session stands in its run directory, durably, and a
shim that could not listen (a filesystem without sockets) looks there every second.

Signals go down and never across: a shim signals what it started itself, and a reconciler the processes with a
session's marker, after the shim is gone and nobody listens here. Standard library only, as the shim has it.
"""

from __future__ import annotations

import fcntl
import json
import os

# The C module: the one in Python brings selectors and enums, half a MiB in every waiting shim.
from _socket import AF_UNIX, SOCK_STREAM, socket
from typing import Literal, NamedTuple, TypedDict, cast

from loop.sessions import proc, rundir

NAME = "control.sock"
BACKLOG = 16  # callers that may wait while the shim is busy; the next one waits for a place, and times out
ANSWER_SECONDS = 1.0
MAX_ANSWER = 4096  # bytes


class Who(TypedDict):
    """The answer: a process, by everything that names it, and the session it acts for."""

    schema: Literal["loop.who/1"]
    session: str
    token: int
    pid: int
    start: int
    boot: str


class Heard(NamedTuple):
    """What asking came to. Only `listening` False is certain: nobody has this socket. Else, unknown is alive.

    `who` is None where no answer came in time, or none that can be understood.
    """

    listening: bool
    who: Who | None


NOBODY = Heard(False, None)


class Listener:
    """The shim's end. SIGIO tells of a caller: block it, and call `answer` when it comes. Raises OSError."""

    def __init__(self, run_dir: str, session: str, token: int) -> None:
        self._run_dir = run_dir
        pid = os.getpid()
        who: Who = {
            "schema": "loop.who/1", "session": session, "token": token,
            "pid": pid, "start": proc.start_time(pid) or 0, "boot": proc.boot_id(),
        }  # fmt: skip
        self._line = json.dumps(who).encode() + b"\n"
        self._socket = socket(AF_UNIX, SOCK_STREAM)
        try:
            with _Short(run_dir) as path:
                self._socket.bind(path)
                os.chmod(path, 0o600)
            self._socket.listen(BACKLOG)
            self._socket.setblocking(False)
            fd = self._socket.fileno()
            fcntl.fcntl(fd, fcntl.F_SETOWN, pid)
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
        except BaseException:
            self._socket.close()
            raise

    def answer(self) -> None:
        """Tell everyone who waits who this is. Never waits, never raises OSError: a caller may be gone."""
        while True:
            try:
                fd, _ = self._socket._accept()  # type: ignore[attr-defined]  # what socket.accept wraps
            except OSError:
                return
            try:
                os.write(fd, self._line)  # less than any socket's buffer: it does not block
            except OSError:
                pass
            finally:
                os.close(fd)

    def close(self) -> None:
        """Nobody listens any more, and the name is gone."""
        self._socket.close()
        rundir.remove(os.path.join(self._run_dir, NAME))


def ask(run_dir: str, seconds: float = ANSWER_SECONDS) -> Heard:
    """Wake the shim of a run directory and hear who it is; waits at most `seconds`. Whatever it finds is no error."""
    caller = socket(AF_UNIX, SOCK_STREAM)
    try:
        caller.settimeout(seconds)
        try:
            with _Short(run_dir) as path:
                caller.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return NOBODY
        data = b""
        while not data.endswith(b"\n") and len(data) < MAX_ANSWER:
            more = caller.recv(MAX_ANSWER)
            if not more:
                break
            data += more
        return Heard(True, _understood(data))
    except OSError:  # a timeout is one, too
        return Heard(True, None)
    finally:
        caller.close()


def is_of(who: Who | None, claim: rundir.Claim) -> bool:
    """Whether the answer comes from the very process that claimed the session."""
    return who is not None and (who["pid"], who["start"], who["boot"]) == (claim["pid"], claim["start"], claim["boot"])


def stop(run_dir: str, *, kill: bool, by: str) -> Heard:
    """Ask the shim to stop its session, in writing, and wake it, so that it reads it now. Raises OSError."""
    rundir.request_stop(run_dir, kill=kill, by=by)
    return ask(run_dir)


class _Short:
    """A path of the socket that always fits: an address has 107 bytes, a run directory may be longer."""

    def __init__(self, run_dir: str) -> None:
        self._run_dir = run_dir
        self._fd = -1

    def __enter__(self) -> str:
        self._fd = os.open(self._run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{NAME}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


def _understood(data: bytes) -> Who | None:
    try:
        who = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(who, dict) or who.get("schema") != "loop.who/1" or not Who.__required_keys__ <= who.keys():
        return None
    return cast("Who", who)
