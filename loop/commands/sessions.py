"""`loop sessions` and `loop tail`: who ran, how it ended, what it printed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, get_args

from events.envelope import Record, content, to_text
from events.errors import UsageError
from events.lifecycle import SESSION_ENDS
from events.store import EventLog, Filter
from loop.moment import again, flags, past, resolve, unique
from loop.output import as_of, clean, console, local, print_commands, print_json, span, uncrushed
from loop.sessions import rundir

PAGE = 100
UNREMARKABLE = frozenset({"outcome_file", "no_evidence"})  # the usual ways of a verdict
CHUNK = 1 << 16
FOLLOW_SECONDS = 0.3


def _check_outcome(name: str | None) -> None:
    """Raise UsageError for an outcome that no session has."""
    if name is None:
        return
    from events.catalog import Outcome  # it knows all the vocabulary, which takes its time

    if name not in get_args(Outcome):
        hint = "those that live: --live; " if name in ("live", "starting") else ""
        raise UsageError(f"no session ends {clean(name, 40)!r}", f"{hint}outcomes are: {', '.join(get_args(Outcome))}")


def run(
    db: Path,
    *,
    live: bool,
    since: str | None,
    category: str | None,
    outcome: str | None,
    backend: str | None,
    limit: int,
    at: str | None,
    as_json: bool,
) -> int:
    """Print sessions, newest first: those that match every filter."""
    _check_outcome(outcome)
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        start = None if since is None else past(since, moment.now)
        alive = set(moment.state(log).sessions["live"]) if live else None

        def wanted(item: dict[str, Any]) -> bool:
            return (
                (alive is None or item["id"] in alive)
                and (outcome is None or item["outcome"] == outcome)
                and (backend is None or item["backend"] == backend)
            )

        requests = Filter(
            types=("session.requested",),
            category=category,
            since=None if start is None else to_text(start),
            upto=moment.position,
        )
        options = {"--category": category, "--outcome": outcome, "--backend": backend, "--since": requests.since}
        which = ["--live"] if live else ["-n", str(limit)]
        command = again(log, moment, "sessions", *which, *flags(options))
        chosen = list(islice(filter(wanted, _newest(log, requests)), len(alive) if alive is not None else limit))
    finally:
        log.close()
    if as_json:
        report = {"schema": "loop.sessions/1", "as_of": as_of(moment.position, moment.at)}
        print_json({**report, "items": chosen, "command": command})
    else:
        out = console()
        out.print(_table(chosen))
        print_commands(out, command)
    return 0


def _newest(log: EventLog, requests: Filter) -> Iterator[dict[str, Any]]:
    """Sessions by their requests, newest first, fetched a page at a time."""
    upto = requests.upto
    while rows := log.select(requests._replace(upto=upto), limit=PAGE, newest=True):
        for row in reversed(rows):
            item = _requested(row)
            for later in log.select(Filter(types=("session.*",), session=row.session, upto=requests.upto)):
                _fold(item, later)
            yield item
        upto = rows[0].position - 1


def _requested(row: Record) -> dict[str, Any]:
    data = content(row)
    return {
        "id": row.session,
        "category": row.category,
        "backend": data["backend"],
        "task": data["task"],
        "rule": data["rule"],
        "trigger": data["trigger"],
        "chain": data["chain"],
        "token": row.position,
        "requested_at": row.at,
        "started_at": None,
        "pid": None,
        "outcome": None,
        "reason": None,
        "grade": None,
        "seconds": None,
        "exit_code": None,
        "signal": None,
        "ended_at": None,
    }


def _fold(item: dict[str, Any], row: Record) -> None:
    data = content(row)
    if row.type == "session.started":
        item["started_at"], item["pid"] = row.at, data["pid"]
    elif row.type == "session.graded":
        item["grade"] = data["grade"]
    elif row.type in SESSION_ENDS:
        item["ended_at"] = row.at
        item["outcome"] = data.get("outcome") or ("lost" if row.type == "session.lost" else "refused")
        item["reason"] = data.get("reason") or data.get("code") or data.get("why")
        for name in ("grade", "seconds", "exit_code", "signal"):
            item[name] = data.get(name)


def _table(items: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    if not items:
        return Text("no session matches", "dim")
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("session", "category", "requested", "outcome", "grade", "ran", "backend", "reason"):
        table.add_column(name, no_wrap=name != "reason", justify="right" if name in ("grade", "ran") else "left")
    for item in items:
        outcome = item["outcome"] or ("live" if item["started_at"] else "starting")
        style = {"productive": "green", "live": "bold", "failed": "red", "lost": "red"}.get(outcome, "")
        table.add_row(
            item["id"],
            Text(clean(item["category"], 16)),
            local(item["requested_at"])[-8:],
            Text(outcome, style),
            "–" if item["grade"] is None else f"{item['grade']:.2f}",
            span(item["seconds"]),
            Text(clean(item["backend"], 12)),
            Text("" if item["reason"] in UNREMARKABLE else clean(item["reason"] or "", 24)),
        )
    return uncrushed(table)


def tail(db: Path, session: str, *, follow: bool, errors: bool, lines: int) -> int:
    """Print the end of a session's output as it wrote it, without control characters; with `follow` go on."""
    log = EventLog.read(db)
    try:
        _, id = unique(log, session, ("session",))
        path = os.path.join(rundir.path_of(str(db.parent), id), "err.log" if errors else "out.log")
        if not os.path.exists(path):
            from loop.sessions.retention import removal_of

            if removed := removal_of(log, id):
                when, why = local(str(removed["at"])), removed["why"]
                raise UsageError(
                    f"the output of session {id} was removed at {when}, by {why} ([retention] in loop.toml)",
                    f"its events are kept: loop log --session {id}",
                )
            raise UsageError(f"session {id} has no output at {path}", f"see: loop log --session {id}")
        with open(path, "rb") as file:
            offset = max(0, os.fstat(file.fileno()).st_size - CHUNK)
            file.seek(offset)
            text = _visible(file.read())
            kept = text.splitlines()[-lines:]
            print("\n".join(kept), flush=True)
            while follow:
                chunk = file.read(CHUNK)
                if chunk:
                    sys.stdout.write(_visible(chunk))
                    sys.stdout.flush()
                elif _ended(log, id):
                    return 0
                else:
                    time.sleep(FOLLOW_SECONDS)
    finally:
        log.close()
    return 0


def _ended(log: EventLog, session: str) -> bool:
    return bool(log.select(Filter(types=tuple(SESSION_ENDS), session=session), limit=1))


def _visible(data: bytes) -> str:
    """Output as text: holes and escape sequences must not reach the terminal."""
    text = data.replace(b"\0", b"").decode("utf-8", "replace")
    return "".join(letter if letter in "\n\t" or letter.isprintable() else " " for letter in text)
