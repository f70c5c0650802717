"""`loop verify`: is the log whole, and did the loop keep its promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.errors import UsageError
from events.store import EventLog
from loop.audit.verify import Check, Report, verify
from loop.home import LOCKS_NAME
from loop.output import as_of, clean, console, message, print_json
from loop.progress import progress

if TYPE_CHECKING:
    from rich.console import Group

VIOLATED = 4  # exit code
CAVEAT = "A chain proves nothing against whoever can write the whole file; against that keep the anchor elsewhere."


def run(db: Path, *, anchor: str | None, as_json: bool) -> int:
    """Verify the store at `db` and print every check; exit code 4 if one fails.

    A missing store has no events, and they are in order. Raises UsageError for an anchor that is none.
    """
    kept = None if anchor is None else parse_anchor(anchor)
    log = EventLog.read(db)
    try:
        with progress("verifying") as hear:
            report = verify(log, anchor=kept, progress=hear, lock_dir=db.parent / LOCKS_NAME)
    finally:
        log.close()
    if as_json:
        print_json(as_object(report))
    else:
        console().print(render(report))
    if report.events == 0:
        message(f"{db} holds no event yet" if db.exists() else f"there is no store at {db} yet")
    return 0 if report.ok else VIOLATED


def parse_anchor(text: str) -> tuple[int, str]:
    """`POSITION:HASH` as verify prints it. Raises UsageError for anything else."""
    match = re.fullmatch(r"([0-9]{1,18}):([0-9a-fA-F]{64})", text)
    if match is None:
        hint = "write it as loop verify printed it: --anchor POSITION:HASH, the hash of 64 hexadecimal digits"
        raise UsageError(f"{text!r} is no anchor", hint)
    return int(match[1]), match[2].lower()


def as_object(report: Report) -> dict[str, Any]:
    """CONTRACT's object."""
    return {
        "schema": "loop.verify/1",
        "as_of": as_of(report.position, report.at),
        "ok": report.ok,
        "events": report.events,
        "head": report.head,
        "checks": [
            {
                "name": check.name,
                "ok": check.ok,
                "checked": check.checked,
                "first_bad": check.first_bad,
                "detail": check.detail,
            }
            for check in report.checks
        ],
    }


def render(report: Report) -> Group:
    """A line per check, what is wrong with the command that shows it, the anchor to keep, and its purpose."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    bad = [check for check in report.checks if not check.ok]
    verdict = Text("ok", "bold green") if report.ok else Text(f"{len(bad)} of {len(report.checks)} FAIL", "bold red")
    head = Text.assemble((f"{report.events} events ", "bold"), verdict)
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("checked", justify="right", no_wrap=True)
    table.add_column("")
    for check in report.checks:
        word = Text("ok", "green") if check.ok else Text("FAIL", "bold red")
        detail = Text(clean(check.detail, 400), "dim" if check.ok else "red")
        table.add_row(check.name, word, str(check.checked), detail)
    shown = dict.fromkeys(command for check in bad if (command := _command(check, report)))
    look = [Text(f"look: {command}") for command in shown]
    anchor = Text(f"anchor {report.anchor}", no_wrap=True, overflow="ignore")
    return Group(head, table, *look, anchor, Text(CAVEAT, "dim"))


def _command(check: Check, report: Report) -> str | None:
    """The command that shows where a check fails: the event, or the place where one is missing."""
    position = check.first_bad
    if position is None or not 0 < position <= report.position:
        return None
    if check.name == "positions":  # nothing is at this one
        return f"loop log --after {max(0, position - 2)} | head -3"
    return f"loop show {position}"
