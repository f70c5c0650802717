"""`State`: every projection, folded to one position. The same code serves head and the past."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from events.envelope import Event
from events.errors import StoreTooNew
from projections import allocation, backends, control, host, locks, outcomes, selection, sessions, supply
from projections.fold import Handler

PROJECTIONS = {
    "sessions": sessions,
    "locks": locks,
    "allocation": allocation,
    "outcomes": outcomes,
    "backends": backends,
    "selection": selection,
    "supply": supply,
    "host": host,
    "control": control,
}

# Facts that no projection needs; listed, so that an unknown type is an error and not a silent gap.
UNFOLDED = frozenset(
    {
        "tick.finished",
        "host.suspended",
        "lock.refused",
        "session.adopted",
        "notice.sent",
        "notice.failed",
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


class State:
    """All projections at `position`. `apply` folds the next event in place; `copy` before what must not be kept."""

    __slots__ = (
        "allocation",
        "at",
        "backends",
        "control",
        "host",
        "locks",
        "outcomes",
        "position",
        "selection",
        "sessions",
        "supply",
    )

    def __init__(self) -> None:
        self.position = 0
        self.at: str | None = None
        self.sessions = sessions.initial()
        self.locks = locks.initial()
        self.allocation = allocation.initial()
        self.outcomes = outcomes.initial()
        self.backends = backends.initial()
        self.selection = selection.initial()
        self.supply = supply.initial()
        self.host = host.initial()
        self.control = control.initial()

    def apply(self, event: Event) -> None:
        """Fold one event: the one after `position`, of a type that this version knows.

        Raises StoreTooNew for an unknown type; a gap is a bug and fails an assertion.
        """
        assert event.position == self.position + 1, (event.position, self.position)
        try:
            handlers = ROUTES[event.type]
        except KeyError:
            raise StoreTooNew(
                f"event {event.position} has the type {event.type!r}, which this loop does not know",
                "upgrade loop: pip install --upgrade loop-control",
            ) from None
        for name, handler in handlers:
            handler(getattr(self, name), event)
        self.position = event.position
        self.at = event.at

    def fold(self, events: Iterable[Event], progress: Callable[[int], None] | None = None) -> State:
        """Fold all of `events` in place and return self; `progress` hears the position now and then."""
        for event in events:
            self.apply(event)
            if progress is not None and event.position % 10_000 == 0:
                progress(event.position)
        return self

    def dump(self) -> str:
        """The state as JSON text, keys in the order in which they came: a loaded state folds on exactly alike."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__}, separators=(",", ":"))

    @classmethod
    def load(cls, text: str | bytes) -> State:
        """The state that `dump` wrote."""
        state = cls()
        values: dict[str, Any] = json.loads(text)
        for name in cls.__slots__:
            setattr(state, name, values[name])
        return state

    def copy(self) -> State:
        """A state of its own, that can be folded on without changing this one."""
        return State.load(self.dump())
