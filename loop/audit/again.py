"""Decisions and snapshots made again from the log, segment by segment, on every core of the machine.

Deciding again takes longer than all other checks together. So whoever folds the log hands out the State at the
beginning of each segment, and other processes fold that segment once more, decide again at every decision in it and
compare every snapshot that was kept in it.
"""

from __future__ import annotations

import os
import signal
import zlib
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from events import audit
from events.envelope import Event, to_json, to_micros
from events.errors import StoreError
from events.store import EventLog
from loop.audit.checks import Tally
from loop.decider import DECIDER, decide
from projections import snapshots
from projections.state import State, uncollected
from projections.view import view

SEGMENT = 10_000  # events
DECIDED = "fanout.decided"


class Found(NamedTuple):
    """One check's result over a segment."""

    checked: int
    others: int
    """Not compared, because another version made them."""
    faults: int
    first_bad: int | None
    text: str


class Segment(NamedTuple):
    """The events after one position up to another, and the State before them, dumped."""

    state: bytes
    after: int
    upto: int


class Again:
    """Takes segments in order, replays them on `workers` processes (none: at once, here), and adds up what is found."""

    def __init__(self, log: EventLog, workers: int) -> None:
        self.decisions = Tally("decisions")
        self.snapshots = Tally("snapshots")
        self._log = log
        self._others = 0
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None
        self._running: deque[tuple[Segment, Future[tuple[Found, Found]]]] = deque()
        path = audit.place(log)
        if workers > 0 and path is not None:
            try:
                self._pool = ProcessPoolExecutor(workers, get_context("spawn"), _open, (path,))
            except (ImportError, OSError):
                self._pool = None  # a system without shared semaphores: slower, not less sure

    def add(self, segment: Segment) -> None:
        """Replay a segment; waits while there is more to do than processes can do soon."""
        if self._pool is None:
            self._count(replay(self._log, segment))
            return
        try:
            self._running.append((segment, self._pool.submit(_replay, segment)))
        except BrokenProcessPool:
            self._count(replay(self._log, segment))
        while len(self._running) > 2 * self._workers:
            self._take()

    def finish(self) -> None:
        """Wait for every segment; then the tallies are complete."""
        while self._running:
            self._take()
        if self._others:
            self.decisions.note = f"{self._others} by another version of the rules, not compared"
        try:
            ignored = audit.snapshot_count(self._log) - self.snapshots.checked
        except StoreError as error:
            self.snapshots.fail(None, f"cannot be read: {error.message}")
            return
        if ignored > 0:
            self.snapshots.note = f"{ignored} of another version or another chain, which nobody reads"

    def close(self) -> None:
        """End the processes; what they have not begun is dropped."""
        if self._pool is not None:
            self._pool.shutdown(wait=not self._running, cancel_futures=True)

    def _take(self) -> None:
        segment, future = self._running.popleft()
        try:
            found = future.result()
        except BrokenProcessPool:  # killed from outside, or out of memory
            found = replay(self._log, segment)
        self._count(found)

    def _count(self, found: tuple[Found, Found]) -> None:
        self._others += found[0].others
        for tally, part in zip((self.decisions, self.snapshots), found, strict=True):
            tally.checked += part.checked
            if part.faults:
                tally.fail(part.first_bad, part.text, part.faults)


def workers_for(events: int) -> int:
    """How many processes are worth starting for a log of this length."""
    return 0 if events <= 3 * SEGMENT else len(os.sched_getaffinity(0))


def replay(log: EventLog, segment: Segment) -> tuple[Found, Found]:
    """Fold one segment again: (its decisions, its snapshots). Never raises for what the log says."""
    with uncollected():
        return _replayed(log, segment)


def _replayed(log: EventLog, segment: Segment) -> tuple[Found, Found]:
    decisions, kept = Tally("decisions"), Tally("snapshots")
    others = 0
    state = State.load(segment.state)
    stored = audit.stored_snapshots(log, snapshots.version(), segment.after, segment.upto)
    try:
        next_kept = next(stored, None)
    except StoreError:  # `finish` says so, once
        next_kept = None
    for record in chain.from_iterable(audit.pages(log, segment.after, segment.upto)):
        event = audit.event_of(record)
        if event.type == DECIDED:
            if event.data.get("decider") == DECIDER:
                decisions.checked += 1
                if (wrong := _difference(state, event, record.data)) is not None:
                    decisions.fail(event.position, wrong)
            else:
                others += 1
        state.apply(event)
        if next_kept is not None and next_kept[0] == event.position:
            kept.checked += 1
            if not _is_snapshot_of(state, next_kept[1]):
                kept.fail(event.position, f"the snapshot at {event.position} is not the fold of the log up to there")
            next_kept = next(stored, None)
    return (
        Found(decisions.checked, others, decisions.faults, decisions.first_bad, decisions.text),
        Found(kept.checked, 0, kept.faults, kept.first_bad, kept.text),
    )


def _difference(state: State, event: Event, stored: str) -> str | None:
    """What is wrong with a decision that was made on `state`; None if today's code makes the same, byte for byte."""
    recorded, position = event.data, event.position
    if recorded.get("basis") != position - 1:
        return f"decision {position} rests on position {recorded.get('basis')}, not on the one before it"
    if recorded.get("now") != event.at:
        return f"decision {position} took {recorded.get('now')} for now, and was made at {event.at}"
    try:
        again = decide(view(state, to_micros(event.at))).as_dict()
    except Exception as error:  # on a log that somebody changed it may be anything, and all of it is a finding
        return f"decision {position} cannot be made again: {type(error).__name__} {error}"
    if to_json(again) == stored:
        return None
    differing = [name for name, value in again.items() if value != recorded.get(name)]
    return f"decision {position} comes out otherwise today{_first(differing)}: loop why {position}"


def _first(names: list[str]) -> str:
    return f", first in {names[0]!r}" if names else ""


def _is_snapshot_of(state: State, stored: bytes) -> bool:
    """Whether a stored snapshot is this state; no more is unpacked than the comparison needs."""
    expected = state.dump()
    try:
        return zlib.decompressobj().decompress(stored, len(expected) + 1) == expected
    except zlib.error:
        return False


# ── in the other processes ────────────────────────────────────────────────────────────────────────────────────────────

_logs: list[EventLog] = []


def _open(path: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits
    _logs.append(EventLog.read(path))


def _replay(segment: Segment) -> tuple[Found, Found]:
    return replay(_logs[0], segment)
