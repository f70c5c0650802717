"""What led to an event and what it led to, and the commands that go on from it."""

from __future__ import annotations

from typing import NamedTuple

from events.envelope import Record
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.moment import position_of

CAUSES = 50  # links of a chain that are followed
EFFECTS = 200  # effects that are listed


class Effects(NamedTuple):
    """Events that name one as their cause; `more` where there are others than these."""

    items: list[Record]
    more: bool


def record_of(log: EventLog, target: str) -> Record:
    """The event that `target` means: a position, or the id of an event, a session (its start) or a pass (its decision).

    Raises UsageError for anything else, and for a position that the log does not have.
    """
    position = int(target) if target.isascii() and target.isdigit() else position_of(log, target)
    rows = log.select(Filter(after=position - 1, upto=position)) if 0 < position < 2**63 else []
    if not rows:
        raise UsageError(f"the log has no position {position}", _extent(log))
    return rows[0]


def _extent(log: EventLog) -> str:
    first, last = log.base().position + 1, log.head().position
    return f"it goes from {first} to {last}" if last >= first else "it is empty"


def causes(log: EventLog, record: Record) -> list[Record]:
    """What caused the event, what caused that, and so on to the beginning, the nearest first.

    It ends early behind CAUSES of them, and where a range of a log begins: the last one then has a cause all the same.
    """
    found: list[Record] = []
    cause, base = record.cause, log.base().position
    while cause is not None and cause > base and len(found) < CAUSES:
        found.append(record_of(log, str(cause)))
        cause = found[-1].cause
    return found


def effects(log: EventLog, record: Record) -> Effects:
    """The events that name this one as their cause, the first EFFECTS of them.

    No index leads to them: each append would pay for it, and to read on from the event takes a second for a million.
    """
    found = log.select(Filter(after=record.position, cause=record.position), limit=EFFECTS + 1)
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
