"""Replay beside `eventsourcing`: the same events, each from its own store, into the same projections.

The peer does what its users do on SQLite, where it has no subscriptions: its reader pulls sections of the notification
log, its mapper makes domain events of them, and a projection gets each with its tracking, into a view in memory (a
`POPOTrackingRecorder`, as its manual has them). That view holds a `State` and folds with our handlers, so that the job
is the same, and both must come to the same State, byte for byte. Sections are of 10 events where nobody says otherwise;
the goal is beside sections of 1,000. One class of domain event spares it the dispatch by class.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from functools import partial, singledispatchmethod
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Tracking
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.system import NotificationLogReader

from events.envelope import Event
from events.store import EventLog
from projections.state import State
from tests.bench.measure import Goal, Line, paired

EVENTS = 20_000
SAVED = 1_000  # events that one transaction of the peer's saves
SECTIONS = (1_000, 10)  # events that the peer reads at once
ROUNDS = 7


class Fact(Aggregate.Event):
    """An event of ours as a domain event: everything a fold may read."""

    type: str
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    data: dict[str, Any]


def fact(event: Event, stream: UUID) -> Fact:
    fields = asdict(event)
    position, now = fields.pop("position"), Fact.create_timestamp()
    return Fact(originator_id=stream, originator_version=position, timestamp=now, **fields)


class View(POPOTrackingRecorder):
    """A materialised view in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.state = State()

    def fold(self, fact: Fact, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            self.state.apply(
                Event(
                    fact.originator_version, fact.type, fact.at, fact.tick, fact.cause, fact.session, fact.category,
                    fact.data,
                )
            )  # fmt: skip
            self._insert_tracking(tracking)


class Projected(Projection[View]):
    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        raise NotImplementedError(type(domain_event))

    @process_event.register
    def _(self, domain_event: Fact, tracking: Tracking) -> None:
        self.view.fold(domain_event, tracking)


class Facts(Application[UUID]):
    log_section_size = max(SECTIONS)


class Peer:
    """An application of the peer's that holds the first events of a log of ours."""

    def __init__(self, path: Path, log: EventLog) -> None:
        self.application = Facts(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})
        stream, events = uuid4(), log.events(0, EVENTS)
        while page := list(islice(events, SAVED)):
            self.application.save(*(fact(event, stream) for event in page))

    def replay(self, section: int) -> State:
        application, projection = self.application, Projected(View())
        name, mapper = application.name, application.mapper
        reader = NotificationLogReader(application.notification_log, section_size=section)
        for notifications in reader.select(start=None):
            for notification in notifications:
                projection.process_event(mapper.to_domain_event(notification), Tracking(name, notification.id))
        return projection.view.state


def bench(directory: Path, db: Path) -> Iterator[Line]:
    """Both in CPU time, over the first EVENTS events of the log at `db`."""
    with closing(EventLog.read(db)) as log:
        peer = Peer(directory / "replays.db", log)
        expected = State().fold(log.events(0, EVENTS)).dump()

        def ours() -> float:
            begun = process_time()
            return State().fold(log.events(0, EVENTS)).position / (process_time() - begun)

        def theirs(section: int) -> float:
            begun = process_time()
            return peer.replay(section).position / (process_time() - begun)

        for section in SECTIONS:
            assert peer.replay(section).dump() == expected, "the same events, and another State"
            name = f"replay beside eventsourcing, by {section:,}"
            goal = Goal("ratio", "≥", 5) if section == SECTIONS[0] else None
            yield paired(name, "events/s", ROUNDS, ours, partial(theirs, section), goal)
        peer.application.close()
