"""`loop diff`: what changed in the status between two moments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from events.store import EventLog
from loop.audit.diff import Change, changes, detached
from loop.moment import Moment, resolve, word
from loop.output import as_of, clean, console, local, print_commands, print_json

VALUE = 34  # columns that a value may take
HEAD = "head"
MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}
SAID = (  # what tells an added or removed item best
    "category", "backend", "outcome", "session", "task", "kind", "mode", "state", "text", "spawned", "until",
)  # fmt: skip

_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{6}Z")


def run(db: Path, first: str, second: str | None, *, everything: bool, as_json: bool) -> int:
    """Print what differs from the status at `first` to that at `second` (head where None), each any `--at` word."""
    log = EventLog.read(db)
    try:
        begin, end = (resolve(log, None if text in (None, HEAD) else text) for text in (first, second))
        found = changes(_status(log, begin), _status(log, end), everything=everything)
        command = f"loop diff {word(log, begin)} {word(log, end)}" + (" --all" if everything else "")
    finally:
        log.close()
    count = abs(end.position - begin.position)
    if as_json:
        report = {
            "schema": "loop.diff/1",
            "as_of": as_of(end.position, end.at),
            "from": as_of(begin.position, begin.at),
            "to": as_of(end.position, end.at),
            "changes": [change.as_dict() for change in found],
            "events": count,
            "command": command,
        }
        print_json(report)
        return 0
    from rich.text import Text

    out = console()
    counts = f"{_many(count, 'event')}, {_many(len(found), 'change')}"
    out.print(Text(f"{_moment(begin)} → {_moment(end, begin)}: {counts}", "bold"))
    if found:
        out.print(table(found))
    print_commands(out, command)
    return 0


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _status(log: EventLog, moment: Moment) -> dict[str, Any]:
    return detached(moment.state(log), moment.now)


def _moment(moment: Moment, beside: Moment | None = None) -> str:
    return f"{moment.position} ({local(moment.at, None if beside is None else beside.at)})"


def table(found: Iterable[Change]) -> Any:
    """Changes as lines: a mark, the path, what it was and what it became."""
    from rich.table import Table
    from rich.text import Text

    lines = Table.grid(padding=(0, 1))
    for _ in range(3):
        lines.add_column()
    for change in found:
        mark, style = MARKS[change.kind]
        text = Text()
        if change.kind == "changed":
            text.append(said(change.before, VALUE), "dim")
            text.append(f" → {said(change.after, VALUE)}")
        else:
            text.append(said(change.after if change.kind == "added" else change.before, 2 * VALUE))
        lines.add_row(Text(mark, style), Text(clean(change.path)), text)
    return lines


def said(value: Any, limit: int) -> str:
    """A value in few words: of an object what tells it from others."""
    if isinstance(value, dict):
        parts = [f"{name}={value[name]}" for name in SAID if value.get(name) not in (None, "", [])]
        return clean(" ".join(parts) or json.dumps(value, ensure_ascii=False), limit)
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None:
        return "none"
    if isinstance(value, str) and _TIME.fullmatch(value):
        return local(value)
    return clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), limit)
