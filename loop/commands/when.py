"""`loop when`: every interval in which an expression holds, who opened it and what ended it."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from events.envelope import to_micros, to_text
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.audit.expression import parse
from loop.audit.when import Interval, intervals
from loop.moment import Moment, past, resolve, word
from loop.output import as_of, console, local, print_commands, print_json, span
from loop.progress import progress

SCREENFUL = 20  # intervals that a person is shown


def run(
    db: Path,
    text: str,
    *,
    since: str | None,
    until: str | None,
    at: str | None,
    limit: int | None,
    as_json: bool,
) -> int:
    """Print the intervals in which `text` holds, the last `limit` of them (without it a screenful, in JSON all)."""
    expression = parse(text)
    log = EventLog.read(db)
    try:
        end = _end(log, until, at)
        start = _start(log, since, end)
        begun = time.perf_counter()
        with progress("searching") as hear:
            told = None if hear is None else lambda position: hear(position, end.position)
            found = intervals(log, expression, start, end, told)
        seconds = time.perf_counter() - begun
        shown = found[-(limit or (len(found) if as_json else SCREENFUL)) :]
        command = f"loop when {shlex.quote(expression.text)}"
        if since is not None:
            command += f" --since {start.at}"
        command += f" --at {word(log, end)}"
        events = end.position - max(start.position, log.base().position)
        if as_json:
            report = {
                "schema": "loop.when/1",
                "as_of": as_of(end.position, end.at),
                "expression": expression.text,
                "since": as_of(start.position, start.at) if start.position else None,
                "events": events,
                "count": len(found),
                "intervals": [interval.as_dict() for interval in shown],
                "command": command,
            }
            print_json(report)
            return 0
        summary = f"{_many(len(found), 'interval')} in {_many(events, 'event')} ({seconds:.2f} s)"
        if len(shown) < len(found):
            summary += f"; the last {len(shown)} of them, more with -n"
        _print(log, shown, end, summary, command)
    finally:
        log.close()
    return 0


def _many(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _end(log: EventLog, until: str | None, at: str | None) -> Moment:
    if until is None:
        return resolve(log, at)
    if at is not None:
        raise UsageError("--until and --at both say where to end", "give one of them")
    time = past(until, resolve(log, None).now)
    return Moment(log.position_at(to_text(time)), time)


def _start(log: EventLog, since: str | None, end: Moment) -> Moment:
    if since is None:
        return Moment(0, 0)
    time = past(since, resolve(log, None).now)
    start = Moment(log.position_at(to_text(time)), time)
    if start.now > end.now or start.position > end.position:
        raise UsageError(f"the search would begin at {start.at} and end at {end.at}", "let --since be the earlier")
    return start


def _print(log: EventLog, found: list[Interval], end: Moment, summary: str, command: str) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if found:
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for name in ("from", "to", "lasted"):
            table.add_column(name, no_wrap=True, justify="right" if name == "lasted" else "left")
        for name in ("opened by", "ended by"):  # these wrap where all has no place, so that no time is cut
            table.add_column(name, overflow="fold")
        for interval in found:
            begin, ended = interval.begin, interval.end
            lasted = (to_micros(ended.at if ended else end.at) - to_micros(begin.at)) / 1e6
            opened = "before" if interval.earlier else _event(log, begin.by)
            table.add_row(
                local(begin.at, end.at),
                "still" if ended is None else local(ended.at, begin.at),
                span(lasted) if lasted >= 0 else "–",
                Text(opened),
                Text("–" if ended is None else _event(log, ended.by)),
            )
        out.print(table)
    out.print(Text(summary))
    print_commands(out, command)
    first = next((interval.begin for interval in reversed(found) if interval.begin.by is not None), None)
    if first is not None:
        print_commands(out, f"loop show {first.position}")


def _event(log: EventLog, position: int | None) -> str:
    """An event as position and type; `time` where none did it."""
    if position is None:
        return "time"
    return f"{position} {log.select(Filter(after=position - 1, upto=position))[0].type}"
