"""What led to an event and what it led to, and the commands that go on from it."""

from __future__ import annotations

from typing import NamedTuple

from events.envelope import Record
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.moment import position_of

CAUSES = 50  # links of a chain that are followed
EFFECTS = 200  # effects that are listed
NEAR = 500  # positions behind an event that are searched besides its pass and its session


class Effects(NamedTuple):
    """Events that name one as their cause; `more` where there may be others than these."""

    items: list[Record]
    more: bool


def record_of(log: EventLog, target: str) -> Record:
    """The event that `target` means: a position, or the id of an event, a session (its start) or a pass (its decision).

    Raises UsageError for anything else, and for a position that the log does not have.
    """
    position = int(target) if target.isascii() and target.isdigit() else position_of(log, target)
    rows = log.select(Filter(after=position - 1, upto=position)) if 0 < position < 2**63 else []
    if not rows:
        raise UsageError(f"the log has no position {position}", f"it goes from 1 to {log.head().position}")
    return rows[0]


def causes(log: EventLog, record: Record) -> list[Record]:
    """What caused the event, what caused that, and so on to the beginning, the nearest first."""
    found: list[Record] = []
    cause = record.cause
    while cause is not None and len(found) < CAUSES:
        found.append(record_of(log, str(cause)))
        cause = found[-1].cause
    return found


def effects(log: EventLog, record: Record) -> Effects:
    """The events that name this one as their cause.

    They are looked for in its pass, among its session's events, and in the next NEAR positions: what an event causes
    belongs to one of these.
    """
    near = Filter(after=record.position)
    places = [near._replace(upto=record.position + NEAR)]
    if record.tick is not None:
        places.append(near._replace(tick=record.tick))
    if record.session is not None:
        places.append(near._replace(session=record.session))
    rows = {row.position: row for place in places for row in log.select(place) if row.cause == record.position}
    found = [rows[position] for position in sorted(rows)]
    return Effects(found[:EFFECTS], len(found) > EFFECTS)


def commands(record: Record) -> list[str]:
    """What to ask next about an event."""
    position = record.position
    found = [f"loop status --at {position}", f"loop diff {position - 1} {position}"]
    if record.cause is not None:
        found.append(f"loop show {record.cause}")
    if record.tick is not None:
        found.append(f"loop why {record.tick}")
    if record.session is not None:
        found += [f"loop log --session {record.session}", f"loop tail {record.session}"]
    return [*found, f"loop step --at {position}"]
