"""Retention: what sessions wrote is kept for a while and up to a size, oldest given up first; events are kept for ever.

Only the run directory of a session whose end is in the log is ever removed, and only while no process is about it.
The order survives a crash at any instruction: `output.removed` is durable, then the directory leaves `runs/` by one
rename (a shim that wakes late must find no half of it), then it is deleted. The next sweep finishes what is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from events.catalog import OutputRemoved
from events.clock import Clock
from events.envelope import to_micros
from events.lifecycle import SESSION_ENDS
from events.store import EventLog, Filter
from loop.journal import Journal
from loop.sessions import cgroup

ACTOR = "retention"
EVERY = 3600.0  # seconds between two sweeps of the passes
KEPT = 3600.0  # seconds that output stays after its session, however much of it there is: somebody may be reading it
MOST = 1000  # removals of one sweep; the next one goes on


@dataclass(frozen=True, slots=True)
class Output:
    """A run directory whose session is over. `ended` is in microseconds, `bytes` what it takes on disk."""

    session: str
    category: str | None
    ended: int
    position: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Due:
    """Output to be removed, and why; `recorded` where an earlier sweep has said so and did not come to do it."""

    output: Output
    why: Literal["age", "size"]
    recorded: bool = False


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is: bytes of all run directories, live ones included, and what is to be removed, oldest first."""

    count: int
    bytes: int
    due: tuple[Due, ...]
    left: tuple[str, ...]  # names in `removed/`: an earlier sweep did not come to delete them


def survey(log: EventLog, state_dir: Path, *, age: float, size: int, now: int) -> Survey:
    """Look, and change nothing; `age` in seconds, `size` in bytes, `now` in microseconds."""
    runs = state_dir / "runs"
    sizes = {name: _bytes(runs / name) for name in _names(runs)}
    total = sum(sizes.values())
    busy = _in_use(runs)
    due: list[Due] = []
    remaining = total
    over = [output for name, taken in sizes.items() if name not in busy and (output := _over(log, name, taken))]
    for output in sorted(over, key=lambda output: output.position):
        idle = (now - output.ended) / 1e6
        if removal_of(log, output.session) is not None:
            due.append(Due(output, "age", recorded=True))
        elif idle > age:
            due.append(Due(output, "age"))
        elif remaining > size and idle > KEPT:
            due.append(Due(output, "size"))
        else:
            continue
        remaining -= output.bytes
    return Survey(len(sizes), total, tuple(due[:MOST]), tuple(_names(state_dir / "removed")))


def sweep(journal: Journal, state_dir: Path, clock: Clock, *, age: float, size: int) -> tuple[Due, ...]:
    """Remove what is due; returns it. One at a time: the caller holds the retention lock.

    Raises StoreError and StoreBusy before anything is removed, OSError for a directory that cannot be.
    """
    seen = survey(journal.log, state_dir, age=age, size=size, now=clock.now())
    if new := [each for each in seen.due if not each.recorded]:
        with journal.transaction() as entry:
            for each in new:
                output = each.output
                entry.append(
                    OutputRemoved(why=each.why, bytes=output.bytes),
                    actor=ACTOR,
                    cause=output.position,
                    session=output.session,
                    category=output.category,
                )
    removed = state_dir / "removed"
    _delete(removed)  # what an earlier sweep has left would be in the way
    if seen.due:
        removed.mkdir(mode=0o700, exist_ok=True)
    for each in seen.due:
        cgroup.remove(str(state_dir / "runs" / each.output.session))  # where its shim died just before it came to that
        os.rename(state_dir / "runs" / each.output.session, removed / each.output.session)
    _delete(removed)
    return seen.due


def _delete(directory: Path) -> None:
    """Delete all that is in a directory; what cannot be is raised as OSError, after the rest was deleted."""
    failed: OSError | None = None
    for name in _names(directory):
        try:
            shutil.rmtree(directory / name)
        except OSError as error:
            failed = error
    if failed is not None:
        raise failed


def is_due(lock: Path, clock: Clock) -> bool:
    """Whether EVERY has passed since the last sweep, which is the time of the lock file; noted as done if so.

    Before it is done, so that one that fails is not tried again by every pass; a clock that was set back is no excuse.
    """
    now = clock.now() / 1e6
    if abs(now - os.stat(lock).st_mtime) < EVERY:
        return False
    os.utime(lock, (now, now))
    return True


def removal_of(log: EventLog, session: str) -> Mapping[str, object] | None:
    """When and why the output of a session was removed (`at`, `why`, `bytes`); None where it was not."""
    for record in log.select(Filter(types=("output.removed",), session=session), limit=1):
        event = next(log.events(record.position - 1, record.position))
        return {"at": record.at, **event.data}
    return None


def _over(log: EventLog, session: str, taken: int) -> Output | None:
    """The output of a session whose end is in the log; None for any other directory."""
    for record in log.select(Filter(types=tuple(SESSION_ENDS), session=session), limit=1):
        return Output(session, record.category, to_micros(record.at), record.position, taken)
    return None


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _bytes(path: Path) -> int:
    """What a directory takes on disk: holes in a long output take nothing. What vanishes meanwhile counts 0."""
    return sum(_blocks(os.path.join(place, name)) for place, _, files in os.walk(path) for name in files)


def _blocks(path: str) -> int:
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def _in_use(runs: Path) -> frozenset[str]:
    """The run directories that a living process names: a worker's environment, a shim's or an end's command line."""
    needle = os.fsencode(f"{runs}/")
    return frozenset(
        os.fsdecode(text[at + len(needle) :].split(b"/")[0])
        for words in _words()
        for text in words
        if (at := text.find(needle)) >= 0
    )


def _words() -> Iterator[list[bytes]]:
    """The command line and environment of every process that may be looked at."""
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
                    yield file.readall().split(b"\0")
            except OSError:
                continue
