"""`<state>/STOP`: the brake that needs no store. While it is there nothing is started and every session is stopped.

Each shim looks at it as often as at its own `stop.json`, and each pass before it does anything. An empty file stops
with TERM, the session's grace, KILL; one that says `kill` stops at once. Whatever is there under that name counts, even
if it cannot be read. Standard library only: the shim carries this module in memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # every `loop status` looks here, and need not wait for what a run directory takes
    from loop.sessions import rundir

NAME = "STOP"
KILL = b"kill"
READ = 64  # bytes; one word is looked for


def path_of(state_dir: str) -> str:
    return os.path.join(state_dir, NAME)


def read(state_dir: str) -> rundir.Stop | None:
    """The stop that the file asks for, or None where there is no such file. Raises nothing."""
    path = path_of(state_dir)
    if not os.path.lexists(path):
        return None
    return {"schema": "loop.stop/1", "kill": _content(path).strip().lower() == KILL, "by": NAME}


def problem(state_dir: str) -> str | None:
    """What to say of the file, while it is there."""
    return None if read(state_dir) is None else f"{NAME} is there: every session is stopped, none is started"


def _content(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it may be a FIFO that nobody writes to
    except OSError:
        return b""
    try:
        return os.read(fd, READ)
    except OSError:
        return b""
    finally:
        os.close(fd)
