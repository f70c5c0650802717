"""`loop why`: a recorded decision with what it knew, and whether today's code decides the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from events.envelope import Record, content, to_micros, to_text
from events.errors import UsageError
from events.lifecycle import SESSION_ENDS
from events.store import EventLog, Filter
from loop.decider import DECIDER, Choice, Decision, able_backends, decide
from loop.moment import unique
from loop.words import granted_because
from projections import snapshots
from projections.state import State
from projections.view import View, view

DECIDED = "fanout.decided"
REQUESTED = "session.requested"


@dataclass(frozen=True, slots=True)
class Found:
    """A recorded decision; `session` is the one that was asked about, where the question named one."""

    record: Record
    session: str | None

    @property
    def decision(self) -> dict[str, Any]:
        """The decision as it was recorded."""
        decision: dict[str, Any] = content(self.record)
        return decision


def find(log: EventLog, target: str, upto: int | None = None) -> Found:
    """The decision that `target` means: `last` (the last fire's), a position, or the id of a session, pass or event.

    For a session it is the decision that granted it; for a position the decision of the same pass. With `upto` none
    after that position counts. Raises UsageError.
    """
    if target == "last":
        return Found(last_fire(log, upto), None)
    row = _row(log, target)
    if row.type == DECIDED:
        found = Found(row, None)
    else:
        made = [] if row.tick is None else log.select(Filter(types=(DECIDED,), tick=row.tick))
        if not made:
            hint = "see: loop log --type 'fanout.*'"
            raise UsageError(f"event {row.position} ({row.type}) belongs to no decision", hint)
        found = Found(made[-1], row.session)
    if upto is not None and found.record.position > upto:
        text = f"decision {found.record.position} was made after position {upto}, which --at asks about"
        raise UsageError(text, f"leave --at out: loop why {found.record.position}")
    return found


def _row(log: EventLog, target: str) -> Record:
    if target.isascii() and target.isdigit():
        rows = log.select(Filter(after=int(target) - 1, upto=int(target)))
        if not rows:
            raise UsageError(f"the log has no position {target}", f"1 to {log.head().position} can be asked")
        return rows[0]
    kind, id = unique(log, target)
    if kind == "session":
        rows = log.select(Filter(types=(REQUESTED,), session=id), limit=1)
        if not rows:
            raise UsageError(f"session {id} was granted by no decision of this log", f"see: loop log --session {id}")
        return rows[0]
    if kind == "tick":
        return log.select(Filter(tick=id), limit=1)[0]
    position = log.position_of_id(id)
    return log.select(Filter(after=position - 1, upto=position))[0]


def last_fire(log: EventLog, upto: int | None = None) -> Record:
    """The newest decision of a fire up to a position; where there was none, the newest decision. Raises UsageError."""
    before = upto
    while fires := log.select(Filter(types=("selection.*",), upto=before), limit=1, newest=True):
        if fires[0].tick is not None:
            found = log.select(Filter(types=(DECIDED,), tick=fires[0].tick, upto=upto))
            if found:
                return found[-1]
        before = fires[0].position - 1  # asked, but by then not decided
    newest = log.select(Filter(types=(DECIDED,), upto=upto), limit=1, newest=True)
    if not newest:
        when = "no decision has been made" + (" yet" if upto is None else f" up to position {upto}")
        hint = "make one: loop tick" if log.origin is None else "the log was imported; what it holds: loop status"
        raise UsageError(when, hint)
    return newest[0]


def state_before(log: EventLog, decision: Record) -> State:
    """The State that a decision was made on."""
    return snapshots.load(log, decision.position - 1)


def rederive(state: State, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Decide again with today's code. `same` is None where another version of the rules decided; `differs` has the
    candidates whose verdicts do, with the verdict then and now."""
    if recorded["decider"] != DECIDER:
        reason = f"decided by version {recorded['decider']} of the rules"
        return {"same": None, "decider": DECIDER, "reason": reason, "differs": []}
    again = decide(view(state, to_micros(recorded["now"])))
    same = again.as_dict() == recorded
    return {"same": same, "decider": DECIDER, "reason": None, "differs": [] if same else differing(recorded, again)}


def differing(recorded: Mapping[str, Any], again: Decision) -> list[dict[str, Any]]:
    """The candidates whose verdicts differ: category, the verdict then and the one now (null: no candidate)."""
    then = {candidate["category"]: candidate["verdict"] for candidate in recorded["candidates"]}
    now = {candidate.category: candidate.verdict for candidate in again.candidates}
    return [
        {"category": name, "then": then.get(name), "now": now.get(name)}
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


def knew(seen: View) -> dict[str, Any]:
    """What a decision knew beside the ranking: age of the answer (seconds), restraints, backends that could take
    nothing, starts against their ceilings, due respawns, what the gates said, the host's figures and bounds."""
    answer = seen.answer
    return {
        "answer": None
        if answer is None
        else {"age": answer.age / 1e6, "asked": answer.asked_now, "usable": answer.fresh and not answer.rejected},
        "restraints": {
            scope: {"mode": held.mode, "until": _text(held.until)} for scope, held in seen.restraints.items()
        },
        "backends": {
            "total": len(seen.backends),
            "unavailable": [
                {"name": each.name, "state": "paused" if each.paused else each.state, "until": _text(each.until)}
                for each in seen.backends.values()
                if each.paused or each.state != "available"
            ],
        },
        "starts": {
            "hour": seen.rates.hour,
            "hour_limit": seen.rates.hour_limit,
            "day": seen.rates.day,
            "day_limit": seen.rates.day_limit,
        },
        "due": [{"session": due.session, "category": due.category, "chain": due.chain} for due in seen.due],
        "gates": {name: each.gate.answer for name, each in seen.categories.items() if each.gate is not None},
        "host": [{"name": each.bound_name, "bound": each.bound, "value": each.value} for each in seen.host],
    }


def session_of(log: EventLog, session: str, decision: Mapping[str, Any], seen: View) -> dict[str, Any] | None:
    """Why one session of a decision was granted: the rule and rank, the backend and why that one, the chain; and what
    became of it. None where the decision did not grant it."""
    rows = log.select(Filter(types=("session.*",), session=session))
    request = next((row for row in rows if row.type == REQUESTED), None)
    names = [choice["category"] for choice in decision["chosen"]]
    if request is None or request.category not in names:
        return None
    index = names.index(request.category)
    choice = decision["chosen"][index]
    candidate = next(each for each in decision["candidates"] if each["category"] == choice["category"])
    ends = [row for row in rows if row.type in SESSION_ENDS]
    code, able = _why_backend(decision, index, seen)
    found = {
        "id": session,
        "category": choice["category"],
        "task": choice["task"],
        "rule": choice["rule"],
        "rank": candidate["rank"],
        "of": sum(each["rank"] is not None for each in decision["candidates"]),
        "backend": choice["backend"],
        "backend_reason": code,
        "backends_able": able,
        "chain": choice["chain"],
        "parent": choice["parent"],
        "started": any(row.type == "session.started" for row in rows),
        "outcome": _outcome(ends[-1]) if ends else None,
    }
    return {**found, "text": granted_because(found)}


def _outcome(end: Record) -> str:
    return str(content(end).get("outcome") or ("lost" if end.type == "session.lost" else "refused"))


def _why_backend(decision: Mapping[str, Any], index: int, seen: View) -> tuple[str | None, list[str]]:
    """Why a choice got its backend: `asked_for`, `first_named`, `next_named`, `only_one`, `unused_longest`; and all
    that could have taken it. None where today's rules cannot tell."""
    choices = [Choice(**{**choice, "keys": tuple(choice["keys"])}) for choice in decision["chosen"]]
    choice = choices[index]
    category = seen.categories.get(choice.category)
    if category is None:
        return None, []
    wanted = None if seen.manual is None else seen.manual.backend
    able = able_backends(seen, choices[:index], category, wanted)
    if choice.backend not in able:
        return None, able
    if wanted is not None:
        return "asked_for", able
    if category.backends is not None:
        return "first_named" if category.backends[0] == choice.backend else "next_named", able
    return "only_one" if len(able) == 1 else "unused_longest", able


def _text(time: int | None) -> str | None:
    return None if time is None else to_text(time)
