"""Events as they are told, laid into a log row by row: also those that a store of our own would never have written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from given import START

from events.catalog import REGISTRY
from events.chain import link
from events.clock import SystemClock
from events.envelope import Event, Record, short_id, to_json
from events.store import EventLog


class Beginning(SystemClock):
    """A clock that stands where the stories begin."""

    def now(self) -> int:
        return START


def record(event: Event, store: str) -> Record:
    """The event as a row of this store, its hash still to come."""
    return Record(
        position=event.position,
        id=short_id("e", store, event.position),
        type=event.type,
        version=REGISTRY[event.type].version,
        at=event.at,
        tick=event.tick,
        cause=event.cause,
        session=event.session,
        category=event.category,
        actor="test",
        data=to_json(event.data),
        private=None,
        salt=None,
        hash=b"",
    )


def written(events: Iterable[Event], path: Path | None = None) -> EventLog:
    """A log with these events; the first, `store.migrated`, is the store's own."""
    log = EventLog.in_memory(clock=Beginning()) if path is None else EventLog.open(path, clock=Beginning())
    with log.transaction():
        before = log.head().hash
        for event in list(events)[1:]:
            row = record(event, log.store_id)
            before = link(before, row)
            log.insert(row._replace(hash=before))
    return log
