"""What a simulation appends is written by another process, where there is a second core for it.

The simulated machine needs of an event only its position and its data. To chain and to store it takes about a third of
all the work, and nothing waits for it: so drafts go through a pipe, in batches, with the state that they lead to.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Protocol

from events.envelope import Event, short_id, to_micros
from events.errors import LoopError, StoreError
from events.store import Draft, EventLog
from loop.simulate.clock import ToldClock
from projections import snapshots
from projections.state import State

if TYPE_CHECKING:
    from events.catalog import Payload

LONG = 30  # days from which a process of its own is worth its start
SECONDS = 60.0  # to wait for a process that was told to end

Batch = tuple[Sequence[Draft], bytes]
"""Drafts in order, and the State after the last, dumped."""


class Writer(Protocol):
    def write(self, batch: Batch) -> None:
        """Append a batch, and keep a snapshot if one is due. May still be under way when this returns."""


class Ahead:
    """The face of a transaction for a log that is written behind: `drafts` is what nobody has been handed yet."""

    def __init__(self, store: str, head: int) -> None:
        self._store = store
        self.head = head
        self.now = 0
        self.at = ""
        self.drafts: list[Draft] = []

    def session_id(self, token: int) -> str:
        return short_id("s", self._store, token)

    def tick_id(self, position: int) -> str:
        return short_id("t", self._store, position)

    def append(
        self,
        payload: Payload,
        *,
        actor: str,
        tick: str | None = None,
        cause: int | None = None,
        session: str | None = None,
        category: str | None = None,
    ) -> Event:
        draft, data = Draft.of(self.at, payload, actor, tick, cause, session, category)
        self.drafts.append(draft)
        self.head += 1
        return Event(self.head, draft.type, draft.at, tick, cause, session, category, data)


class Here:
    """Writes at once, in this process."""

    def __init__(self, log: EventLog, clock: ToldClock) -> None:
        self._log, self._clock = log, clock

    def write(self, batch: Batch) -> None:
        drafts, state = batch
        self._clock.reach(to_micros(drafts[-1].at))
        with self._log.transaction() as transaction:
            for draft in drafts:
                transaction.add(draft)
        snapshots.save(self._log, State.load(state))


class There:
    """Writes in another process. What that one raises is raised here, by the next batch or at the end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, batch: Batch) -> None:
        self._say(batch)

    def finish(self) -> None:
        """Wait until all is written."""
        self._say(None)
        self._raise_what_it_says()

    def _say(self, batch: Batch | None) -> None:
        try:
            self._connection.send(batch)
        except OSError:
            self._raise_what_it_says()

    def _raise_what_it_says(self) -> None:
        try:
            error: LoopError | None = self._connection.recv()
        except (EOFError, OSError):
            hint = "was it killed? then run the simulation again"
            raise StoreError("the process that writes the simulated store ended before its time", hint) from None
        if error is not None:
            raise error


@contextmanager
def writing(path: Path, time: int, entropy: Random, *, apart: bool) -> Iterator[Writer]:
    """A writer for the store at `path`, whose clock begins at `time`; all is written when the block ends well.

    With `apart` it is another process. Raises StoreError where something cannot be written.
    """
    if not apart:
        log, clock = _open(path, time, entropy)
        try:
            yield Here(log, clock)
        finally:
            log.close()
        return
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, path, time, entropy), daemon=True)
    process.start()
    theirs.close()  # or its end would go unnoticed
    there = There(ours)
    try:
        yield there
        there.finish()
    finally:
        ours.close()  # which ends it, if it is still there
        process.join(SECONDS)


def has_room(days: float) -> bool:
    """Whether a simulation of so many days is better off with a second process."""
    return days >= LONG and len(os.sched_getaffinity(0)) > 1


def _open(path: Path, time: int, entropy: Random) -> tuple[EventLog, ToldClock]:
    clock = ToldClock(time)
    return EventLog.open(path, clock=clock, entropy=entropy.randbytes, bulk=True), clock


def _serve(connection: Connection, path: Path, time: int, entropy: Random) -> None:
    """The other process: write batches until none comes any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that simulates
    with suppress(EOFError, OSError):  # it is gone, and so is whoever wanted this store
        try:
            log, clock = _open(path, time, entropy)
            try:
                here = Here(log, clock)
                while (batch := connection.recv()) is not None:
                    here.write(batch)
            finally:
                log.close()
        except LoopError as error:
            connection.send(error)
        else:
            connection.send(None)
