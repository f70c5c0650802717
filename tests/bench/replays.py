"""Replay beside `eventsourcing`: the same events, each from its own store, into the same projections.

The peer does what its users do on SQLite, where it has no subscriptions: a reader pulls sections of the notification
log, its mapper makes domain events of them, and a projection gets each with its tracking, into a view in memory (a
`POPOTrackingRecorder`, as its manual has them). All fold with our handlers, so that the job is the same, and both must
come to the same State, byte for byte.

It is measured in two ways. *Each its own*: as the package has it, one view and one projection for each of ours, which
reads the topics that it handles. *All as one*: one projection whose view is our whole State, so that every event is
read once; that dispatch is ours and not the package's. Sections are of 10 events where nobody says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from time import process_time
from typing import Any
from uuid import UUID, uuid4

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate
from eventsourcing.persistence import Tracking
from eventsourcing.popo import POPOTrackingRecorder
from eventsourcing.projection import Projection
from eventsourcing.system import NotificationLogReader
from eventsourcing.utils import get_topic

from events.envelope import Event
from events.store import EventLog
from projections.fold import Handler
from projections.state import PROJECTIONS, ROUTES, State
from tests.bench.measure import Goal, Line, paired

EVENTS = 20_000
SAVED = 1_000  # events that one transaction of the peer's saves
SECTIONS = (10, 1_000)  # events that the peer reads at once
ROUNDS = 7


class Fact(Aggregate.Event):
    """An event of ours as a domain event: everything a fold may read. Each type is a class of its own, see FACTS."""

    type: str
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    data: dict[str, Any]

    def event(self) -> Event:
        return Event(
            self.originator_version, self.type, self.at, self.tick, self.cause, self.session, self.category, self.data
        )


def _class(name: str) -> type[Fact]:
    found = type(name, (Fact,), {"__module__": __name__, "__qualname__": name})
    get_topic(found)  # which makes it known under its topic
    return found


FACTS: Mapping[str, type[Fact]] = {name: _class(name.title().replace(".", "").replace("_", "")) for name in ROUTES}


def fact(event: Event, stream: UUID) -> Fact:
    fields = asdict(event)
    position, now = fields.pop("position"), Fact.create_timestamp()
    return FACTS[event.type](originator_id=stream, originator_version=position, timestamp=now, **fields)


class View(POPOTrackingRecorder):
    """A materialised view in memory: one of our projections, or the whole State."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def fold(self, handler: Handler, fact: Fact, tracking: Tracking) -> None:
        with self._database_lock:
            self._assert_tracking_uniqueness(tracking)
            handler(self.held, fact.event())
            self._insert_tracking(tracking)


def projection(held: Any, handlers: Mapping[str, Handler], selects: bool) -> Projection[View]:
    """A projection into a view of `held`, which dispatches by class; where it `selects`, by the topics it handles."""

    class Projected(Projection[View]):
        topics = tuple(get_topic(FACTS[type]) for type in handlers if selects)

        @singledispatchmethod
        def process_event(self, domain_event: Any, tracking: Tracking) -> None:
            raise NotImplementedError(type(domain_event))

    def register(kind: type[Fact], handler: Handler) -> None:
        def process(self: Projected, domain_event: Fact, tracking: Tracking) -> None:
            self.view.fold(handler, domain_event, tracking)

        Projected.process_event.register(kind, process)

    for type, handler in handlers.items():
        register(FACTS[type], handler)
    return Projected(View(held))


def each_its_own(state: State) -> Sequence[Projection[View]]:
    return [projection(getattr(state, name), module.HANDLERS, selects=True) for name, module in PROJECTIONS.items()]


def all_as_one(state: State) -> Sequence[Projection[View]]:
    return [projection(state, dict.fromkeys(ROUTES, State.apply), selects=False)]


class Facts(Application[UUID]):
    log_section_size = max(SECTIONS)


class Peer:
    """An application of the peer's that holds the first events of a log of ours."""

    def __init__(self, path: Path, log: EventLog) -> None:
        self.application = Facts(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": str(path)})
        stream, events = uuid4(), log.events(0, EVENTS)
        while page := list(islice(events, SAVED)):
            self.application.save(*(fact(event, stream) for event in page))

    def replay(self, state: State, projections: Sequence[Projection[View]], section: int) -> State:
        application = self.application
        name, mapper = application.name, application.mapper
        reader = NotificationLogReader(application.notification_log, section_size=section)
        for each in projections:
            for notifications in reader.select(start=None, topics=each.topics):
                for notification in notifications:
                    each.process_event(mapper.to_domain_event(notification), Tracking(name, notification.id))
        return state


def bench(directory: Path, db: Path) -> Iterator[Line]:
    """Both in CPU time, over the first EVENTS events of the log at `db`."""
    with closing(EventLog.read(db)) as log:
        peer = Peer(directory / "replays.db", log)
        expected = State().fold(log.events(0, EVENTS))

        def ours() -> float:
            begun = process_time()
            return State().fold(log.events(0, EVENTS)).position / (process_time() - begun)

        def theirs(how: Any, section: int) -> float:
            state = State()
            projections = how(state)
            begun = process_time()
            peer.replay(state, projections, section)
            spent = process_time() - begun
            state.position, state.at = expected.position, expected.at  # which a part does not know
            assert state.dump() == expected.dump(), "the same events, and another State"
            return EVENTS / spent

        for how, name in ((each_its_own, "each its own"), (all_as_one, "all as one")):
            goal = Goal("ratio", "≥", 5) if how is each_its_own else None
            for section in SECTIONS:
                title = f"replay beside eventsourcing, {name}, by {section:,}"
                yield paired(title, "events/s", ROUNDS, ours, partial(theirs, how, section), goal)
        peer.application.close()
