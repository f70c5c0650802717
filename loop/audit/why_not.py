"""`loop why-not`: the verdict for one category in the decision that applies, and what would have turned it."""

from __future__ import annotations

import difflib
import shlex
from typing import Any

from events.envelope import Record, content, private_content, to_micros
from events.lifecycle import SESSION_ENDS
from events.store import EventLog, Filter
from loop.audit.changes import Change
from loop.audit.flips import flips
from loop.audit.why import last_fire, rederive, state_before
from loop.decider import decide
from loop.output import clean
from loop.words import verdict
from projections.view import ManualStart, View, view

CONFIGURED = "loop.configured"
REQUESTED = "session.requested"


def why_not(log: EventLog, name: str, upto: int | None = None) -> dict[str, Any]:
    """Why `name` was not chosen by the last fire's decision at or before `upto` (head without it).

    `verdict` is null where it was no candidate there. `flips` are the smallest changes of fact after which today's
    decider chooses it: each a single one, or, where none suffices, one with a second under `and`; `changes` says how
    many each takes, null where up to two do not suffice. Raises UsageError before any decision.
    """
    record = last_fire(log, upto)
    decision: dict[str, Any] = content(record)
    state = state_before(log, record)
    seen = view(state, to_micros(decision["now"]))
    candidate = next((each for each in decision["candidates"] if each["category"] == name), None)
    chosen = candidate is not None and candidate["verdict"] == "chosen"
    found = [] if chosen else flips(seen, name)
    return {
        "category": name,
        "verdict": None if candidate is None else candidate["verdict"],
        "also": [] if candidate is None else candidate["also"],
        "detail": {} if candidate is None else candidate["detail"],
        "rank": None if candidate is None else candidate["rank"],
        "rule": None if candidate is None else candidate["rule"],
        "text": _no_candidate(seen, name) if candidate is None else verdict(candidate["verdict"], candidate["detail"]),
        "note": _note(log, name, record.position),
        "session": _session(log, record, name) if chosen else None,
        "changes": min(map(len, found), default=None),
        "flips": [_as_dict(log, flip[0], *flip[1:]) for flip in found],
        "by_hand": None if chosen else _by_hand(seen, name),
        "decision": record.position,
        "decided_at": record.at,
        "tick": record.tick,
        "rederived": rederive(state, decision),
        "command": f"loop why-not {shlex.quote(name)} --at {record.position}",
    }


def _as_dict(log: EventLog, change: Change, *more: Change) -> dict[str, Any]:
    return {
        "fact": change.fact,
        "from": change.old,
        "to": change.new,
        "text": change.text,
        "command": _of_use(log, change.command),
        "setting": change.setting,
        "and": [_as_dict(log, each) for each in more],
    }


def _of_use(log: EventLog, command: str | None) -> str | None:
    """A command, unless it would stop a session that has ended since."""
    if command is None or not command.startswith("loop stop "):
        return command
    session = command.rpartition(" ")[2]
    return None if log.select(Filter(types=tuple(SESSION_ENDS), session=session), limit=1) else command


def _no_candidate(seen: View, name: str) -> str:
    if name in seen.categories:
        return "it was no candidate of this decision, which was not a fire's"
    near = difflib.get_close_matches(name, seen.categories, n=1)
    known = f"did you mean {near[0]}?" if near else f"there are: {', '.join(seen.categories)}"
    return f"it was no candidate: the config has no such category, and nobody asked for it; {known}"


def _by_hand(seen: View, name: str) -> dict[str, Any] | None:
    """What `loop start` would have come to on the same facts; None for a category that is not configured."""
    if name not in seen.categories:
        return None
    asked = seen._replace(trigger="manual", ended=None, manual=ManualStart(name, "", None))
    candidate = decide(asked).candidates[0]
    return {
        "command": f"loop start {name}",
        "starts": candidate.verdict == "chosen",
        "verdict": candidate.verdict,
        "detail": candidate.detail,
    }


def _session(log: EventLog, record: Record, name: str) -> str | None:
    """The session that the decision granted the category."""
    if record.tick is None:
        return None
    rows = log.select(Filter(types=(REQUESTED,), tick=record.tick, category=name), limit=1)
    return rows[0].session if rows else None


def _note(log: EventLog, name: str, upto: int) -> str | None:
    """The category's note in the config in force. It is private: no fold has it, and a redacted log has none."""
    rows = log.select(Filter(types=(CONFIGURED,), upto=upto), limit=1, newest=True)
    private = (private_content(rows[0]) if rows else None) or {}
    try:
        note = private["settings"]["categories"][name]["note"]
    except (KeyError, TypeError):
        return None
    return None if note is None else clean(note, 400)
