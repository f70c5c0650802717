"""What /proc says, read without the product: who belongs to this torture run, and a signal to exactly that process.

Everything a run starts carries RUN_VARIABLE with its own word, so nothing else on the machine can be taken for it.
"""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

RUN_VARIABLE = "TORTURE_RUN"
KEYS_VARIABLE = "TORTURE_KEYS"
FILE_VARIABLE = "TORTURE_FILE"


class Process(NamedTuple):
    """A process for as long as the machine is up: a pid alone is used again."""

    pid: int
    start: int  # clock ticks since boot


def living(pid: int) -> Process | None:
    """The process that has this pid now; None if there is none, or only its zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else Process(pid, int(fields[19]))
    except (OSError, IndexError):
        return None


def lives(process: Process) -> bool:
    return living(process.pid) == process


def everybody() -> list[Process]:
    return [found for name in os.listdir("/proc") if name.isdecimal() and (found := living(int(name))) is not None]


def environment(process: Process) -> dict[str, str]:
    """The environment it was started with; empty once it is gone."""
    try:
        with open(f"/proc/{process.pid}/environ", "rb") as file:
            data = file.read()
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in data.split(b"\0") if entry)
    return {name: value for name, _, value in pairs} if lives(process) else {}


def words(process: Process) -> list[str]:
    """Its command line; empty once it is gone."""
    try:
        with open(f"/proc/{process.pid}/cmdline", "rb") as file:
            return [os.fsdecode(word) for word in file.read().split(b"\0") if word]
    except OSError:
        return []


def of_run(run: str) -> list[Process]:
    """Every living process of that torture run, workers and what they forked included."""
    return [process for process in everybody() if environment(process).get(RUN_VARIABLE) == run]


def send(process: Process, number: signal.Signals) -> bool:
    """Signal this very process; False if it is gone."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not lives(process):
            return False
        signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
