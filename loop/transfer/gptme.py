"""`loop import --gptme-locks FILE`: a lock history of gptme's, as observations in a store of its own.

A line is `epoch|ACQUIRED or RELEASED|pid|lock|script|description`; the description may hold bars, whoever is killed
writes no RELEASED, and anything else may stand between. A release belongs to the last acquire of its process and lock
that has none yet. Whatever cannot be read is counted and shown, never guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from events.catalog import Foreign, LockAcquired, LockReleased, StoreMigrated
from events.clock import Clock
from events.envelope import short_id, to_text
from events.errors import ImportFailed
from events.imported import building, refuse_taken
from events.origin import Origin
from events.sqlite import sqlite_version
from events.store import BEGINNING, SCHEMA
from loop import __version__
from loop.text import visible
from loop.transfer.importing import STORE
from projections import snapshots
from projections.state import State

LONGEST = 1 << 16  # bytes of a line that are looked at
WORDS = 4_096  # characters kept of script and description
EXAMPLES = 5  # lines not understood that are shown
LATEST = 253_402_300_799  # the last second that four digits of a year can tell
_LINE = re.compile(r"(\d{1,12})\|(ACQUIRED|RELEASED)\|(\d{1,10})\|([^|]+)\|([^|]*)\|(.*)", re.ASCII | re.DOTALL)


class Line(NamedTuple):
    """One observation; `epoch` in seconds."""

    epoch: int
    acquired: bool
    pid: int
    lock: str
    script: str
    description: str


class History(NamedTuple):
    """What the file held: its observations in order of time, and what was no observation."""

    observed: list[Line]
    read: int
    not_understood: int
    examples: list[tuple[int, str]]
    """(number, text) of the first lines not understood."""
    out_of_order: int
    """Observations that stood behind a later one."""


def read_history(source: BinaryIO) -> History:
    """All of a history file; blank lines are read and say nothing."""
    observed: list[Line] = []
    examples: list[tuple[int, str]] = []
    read = bad = late = latest = 0
    for raw in _raw_lines(source):
        read += 1
        if not raw.strip():
            continue
        line = parse(raw)
        if line is None:
            bad += 1
            if len(examples) < EXAMPLES:
                examples.append((read, visible(raw.decode("utf-8", "replace"), 80)))
            continue
        late += line.epoch < latest
        latest = max(latest, line.epoch)
        observed.append(line)
    observed.sort(key=lambda line: line.epoch)  # stable: within a second the file's order stays
    return History(observed, read, bad, examples, late)


def parse(raw: bytes) -> Line | None:
    """One line, or None for what is no observation."""
    match = _LINE.fullmatch(raw.decode("utf-8", "replace")) if len(raw) <= LONGEST else None
    if match is None:
        return None
    epoch, what, pid, lock, script, description = match.groups()
    if int(epoch) > LATEST or not lock.strip():
        return None
    return Line(int(epoch), what == "ACQUIRED", int(pid), lock.strip(), script[:WORDS], description[:WORDS])


def import_locks(history: History, name: str, into: Path, clock: Clock) -> State:
    """Make `into` the home of a store with these observations; returns its State.

    Raises ImportFailed where there is none, or something at `into`.
    """
    if not history.observed:
        text = f"{name}: none of its {history.read} lines is `epoch|ACQUIRED or RELEASED|pid|lock|script|description`"
        raise ImportFailed(text, "is it the history of the locks? nothing was imported")
    refuse_taken(Path(os.path.abspath(into)))
    begin = history.observed[0].epoch * 1_000_000
    state = State()
    with building(into, STORE, clock=clock) as store:
        id = short_id("l", store.log.entropy(32).hex())
        store.begin(Origin("gptme-locks", id, *BEGINNING, None, None, False, __version__, to_text(clock.now())))
        log = store.appending(id, begin)
        made = StoreMigrated(store=id, schema_from=0, schema_to=SCHEMA, sqlite=sqlite_version(), release=__version__)
        state.apply(log.append(made, actor="import"))
        until = _ends(history.observed)
        holds: dict[tuple[int, str], tuple[str, int]] = {}  # process and lock -> session and token of its hold
        for number, line in enumerate(history.observed):
            at, owner, position = to_text(line.epoch * 1_000_000), (line.pid, line.lock), log.head + 1
            payload: LockAcquired | LockReleased
            if line.acquired:
                session = short_id("s", "gptme-locks", line.pid, line.lock, line.epoch)
                holds[owner] = (session, position)
                payload = LockAcquired(
                    key=line.lock,
                    token=position,
                    imported=True,
                    foreign=Foreign(pid=line.pid, until=until.get(number)),
                    script=line.script or None,
                    description=line.description or None,
                )
            else:
                told = holds.pop(owner, None)
                session, token = told or (short_id("s", "gptme-locks", *owner, line.epoch), position)
                payload = LockReleased(key=line.lock, token=token, imported=True, how="clean")
            event = log.append(payload, actor="import", session=session, at=at)
            state.apply(event)
        store.snapshot(snapshots.version(), state.position, snapshots.packed(state))
    return state


def _ends(observed: Iterable[Line]) -> dict[int, str]:
    """Number of an acquire -> the time of its release, of those that have one."""
    open: dict[tuple[int, str], int] = {}
    ends: dict[int, str] = {}
    for number, line in enumerate(observed):
        if line.acquired:
            open[line.pid, line.lock] = number
        elif (begun := open.pop((line.pid, line.lock), None)) is not None:
            ends[begun] = to_text(line.epoch * 1_000_000)
    return ends


def _raw_lines(source: BinaryIO) -> Iterator[bytes]:
    """Lines without their ends; of one that is too long only its beginning, which is longer than LONGEST."""
    while raw := source.readline(LONGEST + 2):
        while not raw.endswith(b"\n") and len(raw) > LONGEST:
            rest = source.readline(LONGEST + 2)
            if not rest or rest.endswith(b"\n"):
                break
        yield raw.rstrip(b"\r\n")
