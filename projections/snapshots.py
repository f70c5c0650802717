"""Snapshots: a State kept in the store, so that a command folds a tail and not the whole log.

A snapshot counts only while the folds that made it are byte for byte the ones that would read it, and while the chain
still has the hash it was taken at. Anything else is ignored, and the log folded anew: a snapshot can be lost, never
wrong.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

from events import envelope, lifecycle, upcast
from events.errors import StoreError
from events.store import EventLog
from projections.state import State, uncollected

EVERY = 250  # events between two snapshots, at least
SHARE = 5  # all snapshots take at most one part in so many of the store: a quarter of what the events take


@cache
def version() -> str:
    """A digest of the code that folds: these modules, what turns stored rows into events, the state machines."""
    digest = hashlib.sha256(b"loop.snapshot/1")
    sources = sorted(Path(__file__).parent.glob("*.py"))
    for source in (*sources, Path(envelope.__file__), Path(lifecycle.__file__), Path(upcast.__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def load(log: EventLog, upto: int | None = None, progress: Callable[[int], None] | None = None) -> State:
    """The State at `upto` (head without it): the newest usable snapshot and the tail behind it."""
    with uncollected():
        return _load(log, log.head().position if upto is None else upto, progress)


def _load(log: EventLog, end: int, progress: Callable[[int], None] | None) -> State:
    state = None
    if end > EVERY and (found := log.load_snapshot(version(), end)) is not None:
        try:
            state = State.load(unpacked(found[1]))
        except (zlib.error, ValueError, KeyError):  # damaged: `loop verify` says so, the log itself is whole
            state = None
    if state is None:
        state = first(log)
    return state.fold(log.events(state.position, end), progress)


def first(log: EventLog) -> State:
    """The State before the log's first event: what came with it where an import holds only a range.

    Raises StoreError where other folds than today's made that.
    """
    origin = log.origin
    if origin is None or origin.state is None:
        return State()
    if origin.folds != version():
        raise StoreError(
            f"this store begins behind position {origin.position}, with a state that other folds made"
            f" ({origin.folds}, of loop {origin.release}; today's are {version()})",
            f"read it with loop {origin.release}, or import an export of the whole log",
        )
    return State.load(unpacked(origin.state))


def packed(state: State) -> bytes:
    """A State as snapshots and origins hold it."""
    return zlib.compress(state.dump(), 6)


def unpacked(text: bytes) -> bytes:
    """The text of a State that was `packed`, into room that is enough at once, as a rule: growing it takes time."""
    return zlib.decompress(text, bufsize=8 * len(text) + 1)


def save(log: EventLog, state: State) -> None:
    """Keep a snapshot of `state` if the newest is more than EVERY events behind. For writers, after their work.

    Where states are large they are kept more rarely: snapshots stay within a quarter of what the events take.
    """
    position, newest = log.load_snapshot(version(), state.position) or (0, b"")
    if state.position - position > EVERY:
        room = log.size() // SHARE - log.snapshot_bytes(version())
        if len(newest) <= room and len(state_now := packed(state)) <= room:  # the newest tells, without any packing
            log.save_snapshot(version(), state.position, state_now)
