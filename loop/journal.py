"""`Journal`: the log together with the State folded to what this process has seen of it.

Every write goes through `transaction`: the bulk is folded outside, the tail inside the write lock, so that whatever is
decided rests on everything before it. `Rehearsal` offers the same face in memory and stores nothing: `loop plan` is the
same code as a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, Unpack

from events.envelope import About, Event, short_id, to_text
from events.errors import IllegalTransition
from events.lifecycle import BACKEND, LOCK, SESSION, advance
from events.store import EventLog
from projections import snapshots
from projections.state import State

if TYPE_CHECKING:
    from events.catalog import Payload


class Writing(Protocol):
    """What a pass needs of a transaction."""

    state: State

    @property
    def now(self) -> int:
        """Microseconds since the epoch: the one clock reading."""

    def tick_id(self) -> str:
        """The id of the pass whose `tick.started` would be appended next."""

    def session_id(self) -> str:
        """The id of the session whose `session.requested` would be appended next."""

    def append(self, payload: Payload, *, actor: str, **about: Unpack[About]) -> Event:
        """Append an event and fold it."""


class Appending(Protocol):
    """What an `Entry` needs of a transaction."""

    now: int
    at: str

    @property
    def head(self) -> int: ...

    def tick_id(self, position: int) -> str: ...

    def session_id(self, token: int) -> str: ...

    def append(self, payload: Payload, *, actor: str, **about: Unpack[About]) -> Event: ...


class Entry:
    """A write transaction with the state folded to its head."""

    def __init__(
        self, transaction: Appending, state: State, folded: Callable[[Event], None] | None = None
    ) -> None:
        """`folded` hears every event that was appended and folded."""
        self._transaction = transaction
        self.state = state
        self._folded = folded

    @property
    def now(self) -> int:
        return self._transaction.now

    @property
    def at(self) -> str:
        """`now` as the log writes it."""
        return self._transaction.at

    def tick_id(self) -> str:
        return self._transaction.tick_id(self._transaction.head + 1)

    def session_id(self) -> str:
        return self._transaction.session_id(self._transaction.head + 1)

    def append(self, payload: Payload, *, actor: str, **about: Unpack[About]) -> Event:
        """Append an event and fold it; raises IllegalTransition where a state machine forbids it."""
        check_legal(self.state, payload, about.get("session"))
        event = self._transaction.append(payload, actor=actor, **about)
        self.state.apply(event)
        if self._folded is not None:
            self._folded(event)
        return event


class Rehearsal:
    """The same face in memory: events are folded into a copy of the state and go nowhere else."""

    def __init__(self, state: State, now: int) -> None:
        self.state = state.copy()
        self._now = now

    @property
    def now(self) -> int:
        return self._now

    def tick_id(self) -> str:
        return short_id("t", "rehearsal", self.state.position + 1)

    def session_id(self) -> str:
        return short_id("s", "rehearsal", self.state.position + 1)

    def append(self, payload: Payload, *, actor: str, **about: Unpack[About]) -> Event:
        check_legal(self.state, payload, about.get("session"))
        data, _ = payload.split()
        event = Event(
            position=self.state.position + 1,
            type=payload.type,
            at=to_text(self._now),
            tick=about.get("tick"),
            cause=about.get("cause"),
            session=about.get("session"),
            category=about.get("category"),
            data=data,
        )
        self.state.apply(event)
        return event


class Journal:
    """A log and its state. `refresh` catches up with what others appended."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._state: State | None = None

    @property
    def state(self) -> State:
        """The state as far as this process has folded it."""
        if self._state is None:
            self._state = snapshots.load(self.log)
        return self._state

    def refresh(self) -> State:
        """Fold what was appended since; returns the state."""
        try:
            return self.state.fold(self.log.events(self.state.position))
        except BaseException:
            self._state = None  # it may hold half of something
            raise

    @contextmanager
    def transaction(self) -> Iterator[Entry]:
        """One write transaction, entered with the state at head. On any exception nothing is written."""
        self.refresh()
        try:
            with self.log.transaction() as transaction:
                self.state.fold(transaction.events(self.state.position))
                yield Entry(transaction, self.state)
        except BaseException:
            self._state = None  # it may hold events that were rolled back
            raise

    def save_snapshot(self) -> None:
        """Keep a snapshot if one is due."""
        snapshots.save(self.log, self.state)

    def close(self) -> None:
        self.log.close()


def check_legal(state: State, payload: Payload, session: str | None) -> None:
    """Refuse what the tables of `events.lifecycle` forbid; it would be a bug of ours. Raises IllegalTransition."""
    kind, _, _ = payload.type.partition(".")
    if kind == "session":
        live = state.sessions["live"].get(session or "")
        if payload.type in ("session.graded", "session.ungraded"):
            if live is not None:
                raise IllegalTransition(f"session {session}: {payload.type} before its end")
            return
        if live is None and payload.type != "session.requested":
            raise IllegalTransition(f"session {session}: {payload.type}, but it does not live")
        advance(SESSION, live["status"] if live else "", payload.type, f"session {session}")
    elif kind == "lock":
        key = getattr(payload, "key", "")
        if not getattr(payload, "imported", False):
            advance(LOCK, "held" if key in state.locks["held"] else "free", payload.type, f"lock {key}")
    elif kind == "backend":
        pool = getattr(payload, "pool", "")
        known = state.backends["pools"].get(pool)
        advance(BACKEND, known["state"] if known else "available", payload.type, f"pool {pool}")
