"""`loop log`: the events, one a line."""

from __future__ import annotations

import difflib
import fnmatch
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events.envelope import Record, content, private_content, to_text
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.moment import past, resolve, unique
from loop.output import clean, console, local, message, print_line
from projections.state import ROUTES

FOLLOW_SECONDS = 0.5
SCREENFUL = 50  # events that a person gets who does not say; scripts get all
TEXT = 46  # columns that a line's facts may take


@dataclass(frozen=True, slots=True)
class Query:
    """What `loop log` is asked for, as given on the command line."""

    types: tuple[str, ...] = ()
    session: str | None = None
    category: str | None = None
    since: str | None = None
    until: str | None = None
    after: int = 0
    limit: int | None = None
    at: str | None = None


def as_json(record: Record) -> dict[str, Any]:
    """One event as `loop log --json` prints it; its hash in hex besides."""
    return {
        "position": record.position,
        "id": record.id,
        "type": record.type,
        "version": record.version,
        "at": record.at,
        "tick": record.tick,
        "cause": record.cause,
        "session": record.session,
        "category": record.category,
        "actor": record.actor,
        "data": content(record),
        "private": private_content(record),
        "hash": record.hash.hex(),
    }


def run(db: Path, query: Query, *, json_lines: bool, follow: bool) -> int:
    """Print matching events, oldest first; with `follow` go on as they come."""
    _check_types(query.types)
    log = EventLog.read(db)
    try:
        wanted = _filter(log, query)
        limit = query.limit
        if screenful := limit is None and not json_lines and query.after == 0 and query.since is None:
            limit = SCREENFUL
        records = log.select(wanted, limit=limit, newest=limit is not None)
        if screenful and len(records) == SCREENFUL:
            message(f"the newest {SCREENFUL}; more: -n {10 * SCREENFUL}")
        _print(records, json_lines)
        while follow:
            time.sleep(FOLLOW_SECONDS)
            if records:
                wanted = wanted._replace(after=records[-1].position)
            records = log.select(wanted) or records[-1:]
            _print([record for record in records if record.position > wanted.after], json_lines)
    finally:
        log.close()
    return 0


def _check_types(patterns: tuple[str, ...]) -> None:
    """Raise UsageError for a type, or a pattern of types, that no event can have."""
    for pattern in patterns:
        if not fnmatch.filter(ROUTES, pattern):
            near = difflib.get_close_matches(pattern, ROUTES, n=1)
            rooms = ", ".join(sorted({f"{type.partition('.')[0]}.*" for type in ROUTES}))
            hint = f"did you mean {near[0]}?" if near else f"there are: {rooms}"
            raise UsageError(f"no event has a type like {pattern!r}", hint)


def _filter(log: EventLog, query: Query) -> Filter:
    now = resolve(log, None).now
    since, until = (None if text is None else to_text(past(text, now)) for text in (query.since, query.until))
    session = None if query.session is None else unique(log, query.session, ("session",))[1]
    return Filter(
        types=query.types,
        session=session,
        category=query.category,
        since=since,
        until=until,
        after=query.after,
        upto=None if query.at is None else resolve(log, query.at).position,
    )


def _print(records: list[Record], json_lines: bool) -> None:
    if json_lines:
        for record in records:
            print_line(as_json(record))
        return
    from rich.text import Text

    out = console()
    for record in records:
        line = Text.assemble((f"{record.position:>6} ", "dim"), f"{local(record.at)[-8:]} ")
        line.append(f"{record.type:<20} ", "bold red" if _bad(record.type) else "bold")
        if record.category is not None:
            line.append(f"{clean(record.category)} ", "cyan")
        if record.session is not None:
            line.append(f"{record.session} ", "dim")
        line.append(clean(_facts(record), TEXT), "")
        out.print(line, soft_wrap=True)


def _bad(type: str) -> bool:
    return type in {"violation.detected", "selection.rejected", "session.lost", "session.spawn_failed", "lock.refused"}


_SAID = (
    "outcome",
    "answer",
    "verdict",
    "reason",
    "code",
    "rule",
    "task",
    "key",
    "token",
    "backend",
    "trigger",
    "pool",
    "scope",
    "name",
    "until",
    "why",
    "pid",
    "grade",
    "seconds",
    "started",
)


def _facts(record: Record) -> str:
    data = content(record)
    if record.type == "fanout.decided":
        return f"{', '.join(choice['category'] for choice in data['chosen']) or 'nobody'} of {len(data['candidates'])}"
    if record.type == "selection.made":
        return " ".join(entry["category"] for entry in data["ranking"]) or "nothing worth starting"
    return " ".join(f"{name}={data[name]}" for name in _SAID if data.get(name) not in (None, "", []))
