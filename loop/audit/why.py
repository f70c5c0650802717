"""`loop why`: a recorded decision with what it knew, and whether today's code decides the same."""

from __future__ import annotations

from typing import Any

from events.envelope import Record, to_json, to_micros
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.decider import DECIDER, decide
from loop.moment import unique
from projections import snapshots
from projections.state import State
from projections.view import view

DECIDED = "fanout.decided"


def find(log: EventLog, target: str, upto: int | None = None) -> Record:
    """The decision that `target` means: `last` (the last fire's), a position, or the id of a session, pass or event.

    For a session it is the decision that granted it; for a position the decision of the same pass. Raises UsageError.
    """
    if target == "last":
        return _last(log, upto)
    if target.isascii() and target.isdigit():
        rows = log.select(Filter(after=int(target) - 1, upto=int(target)))
        if not rows:
            raise UsageError(f"position {target} is beyond the log's head, {log.head().position}")
        row = rows[0]
    else:
        kind, id = unique(log, target)
        column: dict[str, Any] = {"session": {"session": id}, "tick": {"tick": id}}.get(kind, {})
        if column:
            row = log.select(Filter(**column), limit=1)[0]
        else:
            position = log.position_of_id(id)
            row = log.select(Filter(after=position - 1, upto=position))[0]
    if row.type == DECIDED:
        return row
    found = [] if row.tick is None else log.select(Filter(types=(DECIDED,), tick=row.tick))
    if not found:
        raise UsageError(f"event {row.position} ({row.type}) belongs to no decision", "see: loop log --type 'fanout.*'")
    return found[-1]


def _last(log: EventLog, upto: int | None) -> Record:
    """The newest decision of a fire; where there was none, the newest decision."""
    fires = log.select(Filter(types=("selection.*",), upto=upto), limit=1, newest=True)
    if fires and fires[0].tick is not None:
        found = log.select(Filter(types=(DECIDED,), tick=fires[0].tick))
        if found:
            return found[-1]
    newest = log.select(Filter(types=(DECIDED,), upto=upto), limit=1, newest=True)
    if not newest:
        raise UsageError("no decision has been made yet", "make one: loop tick")
    return newest[0]


def state_before(log: EventLog, decision: Record) -> State:
    """The State that a decision was made on."""
    return snapshots.load(log, decision.position - 1)


def rederive(state: State, recorded: dict[str, Any]) -> dict[str, Any]:
    """Decide again with today's code: `same` is None where another version of the rules decided."""
    if recorded["decider"] != DECIDER:
        return {"same": None, "decider": DECIDER, "reason": f"decided by version {recorded['decider']} of the rules"}
    again = decide(view(state, to_micros(recorded["now"]))).as_dict()
    return {"same": to_json(again) == to_json(recorded), "decider": DECIDER, "reason": None}
