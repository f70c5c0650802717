"""`loop show`: one event whole, what led to it, what it changed, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from events.envelope import Record
from events.store import EventLog
from loop.audit.diff import Change, made_by
from loop.audit.links import Effects, causes, commands, effects, record_of
from loop.commands.diff import table
from loop.commands.log import as_json
from loop.output import as_of, clean, console, local, print_commands, print_json
from projections import snapshots

LISTED = 12  # effects and changes that a person is shown


def show(db: Path, target: str, *, as_json_object: bool) -> int:
    """Print one event: by position, or by the id of an event, session (its start) or pass (its decision)."""
    log = EventLog.read(db)
    try:
        record = record_of(log, target)
        led, came = causes(log, record), effects(log, record)
        changes = made_by(log, record.position, snapshots.load(log, record.position - 1))
    finally:
        log.close()
    event, command = as_json(record), f"loop show {record.position}"
    if as_json_object:
        report = {
            "schema": "loop.event/1",
            "as_of": as_of(record.position, record.at),
            "event": event,
            "causes": [link(cause) for cause in led],
            "causes_truncated": (led or [record])[-1].cause is not None,
            "effects": [link(effect) for effect in came.items],
            "effects_truncated": came.more,
            "changes": [change.as_dict() for change in changes],
            "next": commands(record),
            "command": command,
        }
        print_json(report)
        return 0
    out = console()
    for part in (*event_lines(event), *links_lines(record, led, came), *change_lines(changes)):
        out.print(part)

    print_commands(out, command, *commands(record))
    return 0


def link(record: Record) -> dict[str, Any]:
    """An event in short, for a chain of causes or a list of effects."""
    return {
        "position": record.position,
        "type": record.type,
        "at": record.at,
        "session": record.session,
        "category": record.category,
    }


def event_lines(event: dict[str, Any]) -> list[Any]:
    """The envelope as a table, then `data` and `private` as JSON."""
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim", no_wrap=True)
    lines.add_column()
    for name, value in event.items():
        if value is not None and name not in ("data", "private"):
            lines.add_row(name, Text(clean(value)))
    found: list[Any] = [lines]
    for part in ("data", "private"):
        if event[part] is not None:
            found.append(Text(part, "bold"))
            found += [Text(clean(line)) for line in json.dumps(event[part], indent=2, ensure_ascii=False).splitlines()]
    return found


def links_lines(record: Record, led: Sequence[Record], came: Effects) -> list[Any]:
    """Causes upwards and effects downwards, a line each."""
    from rich.text import Text

    found: list[Any] = []
    if record.cause is not None:
        found.append(Text("caused by", "bold"))
        found += _linked(led)
        if (before := (led or [record])[-1].cause) is not None:
            found.append(Text(f"  {before:>6} and what led to it; not shown, or not in this log", "dim"))
    if came.items:
        found.append(Text("led to", "bold"))
        found += _linked(came.items[:LISTED])
        if came.more or len(came.items) > LISTED:
            found.append(Text(f"  and {len(came.items) - LISTED}{' or more' if came.more else ''} more: --json", "dim"))
    return found


def _linked(records: Iterable[Record]) -> list[Any]:
    from rich.text import Text

    lines = []
    for record in records:
        line = Text.assemble((f"  {record.position:>6} ", "dim"), f"{local(record.at)[-8:]} ", (record.type, "bold"))
        line.append(f" {clean(record.category, 30)}" if record.category else "", "cyan")
        line.append(f" {record.session}" if record.session else "", "dim")
        lines.append(line)
    return lines


def change_lines(changes: Sequence[Change]) -> list[Any]:
    """What the event changed in the status."""
    from rich.text import Text

    if not changes:
        return [Text("changed nothing in the status", "dim")]
    found: list[Any] = [Text("changed", "bold"), table(changes[:LISTED])]
    if len(changes) > LISTED:
        found.append(Text(f"  and {len(changes) - LISTED} more", "dim"))
    return found
