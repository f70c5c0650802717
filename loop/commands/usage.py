"""`loop usage`: what sessions used, and how much of each budget is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from events.envelope import to_text
from events.errors import UsageError
from events.store import EventLog
from loop.audit.usage import begins, total, usage
from loop.availability import all_budgets
from loop.moment import again, past, resolve
from loop.output import as_of, clean, console, local, print_commands, print_json, span, uncrushed
from loop.words import amount

DAY = "24h"
KINDS = {"category": "category", "backend": "backend", "pool": "pool"}


def run(db: Path, *, by: str, since: str | None, at: str | None, as_json: bool) -> int:
    """Print what each category, backend or pool used since a time, by default in the rolling day that budgets count."""
    if by not in KINDS:
        raise UsageError(f"--by {clean(by, 32)!r}: no such grouping", f"there are: {', '.join(KINDS)}")
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        start = begins(moment.now, past(since or DAY, moment.now))
        items = usage(log, by, start, moment.position)  # type: ignore[arg-type]  # checked above
        budgets = all_budgets(moment.state(log), moment.now)
        command = again(log, moment, "usage", "--by", by, "--since", to_text(start))
    finally:
        log.close()
    mine = {scope.partition(":")[2]: lines for scope, lines in budgets.items() if scope.startswith(f"{by}:")}
    found: dict[str, Any] = {
        "schema": "loop.usage/1",
        "as_of": as_of(moment.position, moment.at),
        "by": by,
        "from": to_text(start),
        "items": [{**item, "budgets": mine.get(item["name"], [])} for item in items],
        "total": total(items),
        "budgets": [{"scope": scope, **line} for scope, lines in budgets.items() for line in lines],
        "command": command,
    }
    if as_json:
        print_json(found)
    else:
        _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    out, now = console(), found["as_of"]["at"]
    if not found["items"]:
        out.print(f"no data: no session was granted since {local(found['from'], now)}")
    else:
        table = Table(box=None, padding=(0, 1), header_style="dim")
        for name in (found["by"], "sessions", "live", "ran", "tokens", "cost"):
            table.add_column(name, no_wrap=True, justify="left" if name == found["by"] else "right")
        for item in [*found["items"], {"name": "total", **found["total"]}]:
            counts = (str(item["sessions"]), str(item["live"]), span(item["seconds"]))
            tokens, cost = _told(item["tokens"], "{:,}"), _told(item["cost_usd"], "${:,.2f}")
            table.add_row(Text(clean(item["name"], 24)), *counts, tokens, cost)
        out.print(uncrushed(table))
        out.print(f"since {local(found['from'], now)}; +? are sessions that did not tell", style="dim")
    for line in found["budgets"]:
        unit = 1_000_000 if line["kind"] == "cost_usd" else 1
        kind = "cost" if line["kind"] == "cost_usd" else line["kind"]
        spent, limit = (amount(kind, round(line[name] * unit)) for name in ("spent", "limit"))
        rest = "" if line["open"] else f", spent until {local(line['until'], now)}"
        out.print(Text(f"budget of {clean(line['scope'].replace(':', ' '), 80)}: {spent} of {limit}{rest}"))
    print_commands(out, found["command"])


def _told(amount: dict[str, Any], form: str) -> str:
    """A sum, and how many sessions are not in it: `12,000 +2?`; `unknown` where nobody told."""
    if amount["sum"] is None:
        return "unknown" if amount["untold"] else "–"
    return form.format(amount["sum"]) + (f" +{amount['untold']}?" if amount["untold"] else "")
