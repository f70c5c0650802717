"""`loop backends`: availability, which is the pool's."""

from __future__ import annotations

from pathlib import Path

from loop.commands.status import read
from loop.output import clean, console, local, print_json


def run(db: Path, *, at: str | None, as_json: bool) -> int:
    """Print every configured backend with its pool, its state and when it opens again."""
    report = read(db, at)
    found = report["backends"]
    if as_json:
        print_json({"schema": "loop.backends/1", "as_of": report["as_of"], **found})
        return 0
    from rich.table import Table
    from rich.text import Text

    out = console()
    if not found["total"]:
        out.print("no data: no config is in force yet (loop tick takes it up)")
        return 0
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("backend", "pool", "state", "until", "live"):
        table.add_column(name, no_wrap=True)
    for item in found["items"]:
        style = "green" if item["state"] == "available" else "red"
        state = "paused" if item["paused"] else item["state"]
        until = local(item["until"], report["as_of"]["at"])
        names = (Text(clean(item["name"])), Text(clean(item["pool"])))
        table.add_row(*names, Text(state, style), until, str(item["live"]))
    out.print(table)
    out.print(f"{found['available']} of {found['total']} available")
    return 0
