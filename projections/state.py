"""`State`: every projection, folded to one position. The same code serves head and the past."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import orjson

from events.envelope import Event
from events.errors import DAMAGED, LoopError, StoreError, StoreTooNew
from projections import (
    allocation,
    backends,
    control,
    guard,
    host,
    ledger,
    lessons,
    locks,
    notices,
    outcomes,
    resumes,
    selection,
    sessions,
    spending,
    supply,
)
from projections.fold import Handler

PROJECTIONS = {
    "sessions": sessions,
    "locks": locks,
    "allocation": allocation,
    "outcomes": outcomes,
    "backends": backends,
    "spending": spending,
    "selection": selection,
    "supply": supply,
    "host": host,
    "control": control,
    "ledger": ledger,
    "guard": guard,
    "notices": notices,
    "lessons": lessons,
    "resumes": resumes,
}

# Facts that no projection needs; listed, so that an unknown type is an error and not a silent gap.
UNFOLDED = frozenset(
    {
        "tick.finished",
        "host.suspended",
        "output.removed",
        "lock.refused",
        "session.adopted",
    }
)


def _routes() -> Mapping[str, tuple[tuple[str, Handler], ...]]:
    routes: dict[str, list[tuple[str, Handler]]] = {type: [] for type in UNFOLDED}
    for name, module in PROJECTIONS.items():
        for type, handler in module.HANDLERS.items():
            routes.setdefault(type, []).append((name, handler))
    return MappingProxyType({type: tuple(handlers) for type, handlers in routes.items()})


ROUTES = _routes()
"""Event type -> the handlers it goes to, each with the name of its projection."""


def _unknown(event: Event) -> StoreTooNew:
    return StoreTooNew(
        f"event {event.position} has the type {event.type!r}, which this loop does not know",
        "upgrade loop: pip install --upgrade loop-control",
    )


BROKEN = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError)
"""What a fold raises on an event that is unlike any that we append."""

BATCH = 1_000
"""Events that a replay takes through one projection before it turns to the next.

No projection looks at another, so that the order between them is free; one at a time, its code and what it holds stay
in the processor's caches, which makes a replay a fifth faster than event by event.
"""

Queues = Mapping[str, list[Event]]


def _check_next(event: Event, position: int) -> None:
    """Raise StoreError where `event` is not the one after `position`, StoreTooNew where its type is unknown."""
    if event.position != position + 1:
        raise unfoldable(position + 1, LookupError(f"the event after {position} is {event.position}"))
    if event.type not in ROUTES:
        raise _unknown(event)


def unfoldable(position: int, error: Exception) -> StoreError:
    """`error`, which a fold raised on the event at `position`, as ours."""
    return StoreError(f"event {position} is missing or cannot be folded: {type(error).__name__} {error}", DAMAGED)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the cycle collector, which looks over a state again and again while it grows, and finds no cycle."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


class State:
    """All projections at `position`. `apply` folds the next event in place; `copy` before what must not be kept."""

    __slots__ = ("_parts", "at", "position", *PROJECTIONS)

    def __init__(self, position: int = 0, at: str | None = None, parts: dict[str, Any] | None = None) -> None:
        self.position = position
        self.at = at
        if parts is None:
            parts = {name: module.initial() for name, module in PROJECTIONS.items()}
        self._parts = parts
        self.sessions: sessions.Sessions = parts["sessions"]
        self.locks: locks.Locks = parts["locks"]
        self.allocation: allocation.Allocation = parts["allocation"]
        self.outcomes: outcomes.Outcomes = parts["outcomes"]
        self.backends: backends.Backends = parts["backends"]
        self.spending: spending.Spending = parts["spending"]
        self.selection: selection.Selection = parts["selection"]
        self.control: control.Control = parts["control"]
        self.ledger: ledger.Ledger = parts["ledger"]
        self.supply: supply.Supply = parts["supply"]
        self.host: host.Host = parts["host"]
        self.guard: guard.Guard = parts["guard"]
        self.notices: notices.Notices = parts["notices"]
        self.lessons: lessons.Lessons = parts["lessons"]
        self.resumes: resumes.Resumes = parts["resumes"]

    def apply(self, event: Event) -> None:
        """Fold one event: the one after `position`, of a type that this version knows.

        Raises like `fold`.
        """
        parts = self._parts
        _check_next(event, self.position)
        try:
            for name, handler in ROUTES[event.type]:
                handler(parts[name], event)
        except BROKEN as error:
            raise unfoldable(event.position, error) from error
        self.position, self.at = event.position, event.at

    def fold(self, events: Iterable[Event], progress: Callable[[int], None] | None = None) -> State:
        """Fold all of `events` in place and return self; `progress` hears the position now and then.

        Raises StoreError for the first event that a fault has made unlike any that we append, or that is not the next
        one, StoreTooNew for an unknown type: then the state may hold half of something and is of no use any more.
        Whatever `events` raises leaves it at a position from where the fold can go on.
        """
        queues: Queues = {name: [] for name in PROJECTIONS}
        puts: dict[str, list[Callable[[Event], None]]] = {}  # type -> into the queues of those that it goes to
        position, last = self.position, None
        with uncollected():
            try:
                for event in events:
                    if event.position != position + 1 or event.type not in puts:
                        _check_next(event, position)
                        puts[event.type] = [queues[name].append for name, _ in ROUTES[event.type]]
                    for put in puts[event.type]:
                        put(event)
                    position, last = position + 1, event
                    if position % BATCH == 0:
                        last = None
                        self._take(queues, event)
                        if progress is not None and position % 10_000 == 0:
                            progress(position)
            except LoopError:
                if last is not None:
                    self._take(queues, last)  # what lies before it comes first, and may be worse
                raise
            if last is not None:
                self._take(queues, last)
        return self

    def _take(self, queues: Queues, last: Event) -> None:
        """Empty the queues, each into its projection; `last` is the newest event in them."""
        broken: tuple[int, Exception] | None = None  # the first event that a projection could not take
        for name, queue in queues.items():
            part, handlers, event = self._parts[name], PROJECTIONS[name].HANDLERS, last
            try:
                for event in queue if broken is None else [each for each in queue if each.position < broken[0]]:
                    handlers[event.type](part, event)
            except (*BROKEN, StoreError) as error:
                broken = event.position, error
            queue.clear()
        if broken is not None:
            position, cause = broken
            raise cause if isinstance(cause, StoreError) else unfoldable(position, cause) from cause
        self.position, self.at = last.position, last.at

    def dump(self) -> bytes:
        """The state as JSON text, keys in the order in which they came: a loaded state folds on exactly alike."""
        return orjson.dumps({"position": self.position, "at": self.at, **self._parts})

    @classmethod
    def load(cls, text: str | bytes) -> State:
        """The state that `dump` wrote. Raises ValueError for what is no JSON, KeyError where a part is missing."""
        parts: dict[str, Any] = orjson.loads(text)
        return cls(parts.pop("position"), parts.pop("at"), parts)

    def copy(self) -> State:
        """A state of its own, that can be folded on without changing this one."""
        return State.load(self.dump())
