"""`loop backends`: availability, which is the pool's and the breaker's, and waiting for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from events.clock import SystemClock
from events.envelope import to_text
from events.errors import UsageError
from events.store import EventLog
from loop.availability import is_available, pools, spent_budgets
from loop.moment import again, resolve
from loop.output import as_of, clean, console, local, message, print_commands, print_json, uncrushed
from loop.status import status
from projections import snapshots
from projections.state import State
from projections.view import backends

POLL_SECONDS = 1.0


def run(db: Path, *, at: str | None, as_json: bool, wait: str | None = None) -> int:
    """Print every configured backend with its pool, its state and when it opens again; with `wait`, once that backend
    or pool takes a session. Raises UsageError for a name that nobody has, and where the past is to be waited for."""
    if wait is not None:
        if at is not None:
            raise UsageError("--wait waits for what comes, --at looks back", "choose one of them")
        _wait(db, wait, quiet=as_json)
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        state = moment.state(log)
        found: dict[str, Any] = status(state, moment.now, moment.since)["backends"]
        found["pools"] = pools(state, moment.now)
        found["command"] = again(log, moment, "backends")
        spent = spent_budgets(state, moment.now)
        imported = log.origin is not None
    finally:
        log.close()
    if as_json:
        print_json({"schema": "loop.backends/1", "as_of": as_of(moment.position, moment.at), **found})
    else:
        _show(found, spent, moment.at, imported)
    return 0


def _wait(db: Path, name: str, *, quiet: bool) -> None:
    clock, said = SystemClock(), ""
    log = EventLog.read(db)
    try:
        state = snapshots.load(log)
        while not (available := is_available(state.fold(log.events(state.position)), name, clock.now())):
            if available is None:
                raise UsageError(f"no backend or pool is named {clean(name, 64)!r}", "see: loop backends")
            text = _waiting(state, name, clock.now())
            if text != said and not quiet:
                message(text)
            said = text
            clock.sleep(POLL_SECONDS)
    finally:
        log.close()


def _waiting(state: State, name: str, now: int) -> str:
    known = [each for each in backends(state, now).values() if name in (each.name, each.pool)]
    untils = [each.until for each in known if each.until is not None]
    return f"waiting for {name}" + (f", expected at {local(to_text(min(untils)))}" if untils else "")


def _show(found: Mapping[str, Any], spent: Mapping[str, str | None], now: str | None, imported: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not found["total"]:
        out.print("no data: no config is in force yet" + ("" if imported else " (loop tick takes it up)"))
        return
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("backend", "pool", "state", "until", "live"):
        table.add_column(name, no_wrap=True)
    shut = 0
    for item in found["items"]:
        over = [scope for scope in (f"backend:{item['name']}", f"pool:{item['pool']}") if scope in spent]
        closed = item["state"] != "available" or item["paused"] or bool(over)
        until = item["until"] if item["state"] != "available" else spent[over[0]] if over else None
        state = "budget spent" if over and item["state"] == "available" and not item["paused"] else _state(item)
        names = (Text(clean(item["name"])), Text(clean(item["pool"])))
        table.add_row(*names, Text(state, "red" if closed else "green"), local(until, now), str(item["live"]))
        shut += closed
    out.print(uncrushed(table))
    out.print(f"{found['total'] - shut} of {found['total']} take sessions")
    print_commands(out, found["command"])


def _state(item: Mapping[str, Any]) -> str:
    """The state in a word or two: `limited (breaker)`, `available, one probe`."""
    if item["paused"]:
        return "paused"
    if item["probe_due"]:
        return f"{item['state']}, one probe"
    return f"{item['state']} ({item['because']})" if item["because"] in ("breaker", "probing") else str(item["state"])
