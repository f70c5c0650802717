"""`loop why`, and the table of a decision that `plan` and `tick` print too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.store import EventLog
from loop.audit.why import find, rederive, state_before
from loop.moment import resolve
from loop.output import as_of, clean, console, local, print_json
from loop.words import REJECTIONS, idle, verdict
from projections.state import State

if TYPE_CHECKING:
    from rich.console import Group


def run(db: Path, target: str, *, at: str | None, as_json: bool) -> int:
    """Print one recorded decision, what it knew, and whether today's code decides the same."""
    log = EventLog.read(db)
    try:
        upto = None if at is None else resolve(log, at).position
        record = find(log, target, upto)
        decision: dict[str, Any] = json.loads(record.data)
        state = state_before(log, record)
        again = rederive(state, decision)
    finally:
        log.close()
    if as_json:
        current = state.control["current"]
        report = {
            "schema": "loop.why/1",
            "as_of": as_of(record.position, record.at),
            "tick": record.tick,
            "trigger": current["trigger"] if current else None,
            "decision": decision,
            "selection": selection_of(state),
            "rederived": again,
            "command": f"loop why {record.position}",
        }
        print_json(report)
    else:
        console().print(_render(record.position, record.tick, record.at, decision, state, again))
    return 0


def selection_of(state: State) -> dict[str, Any] | None:
    """The answer that a decision on `state` had; `asked` says whether it was asked in the same pass."""
    last, current = state.selection["last"], state.control["current"]
    if last is None:
        return None
    asked = current is not None and last["tick"] is not None and last["tick"] == current["id"]
    return {
        "tier": last["tier"],
        "at": last["at"],
        "source": last["source"],
        "rejected": last["rejected"],
        "reason": last["reason"],
        "keys": last["keys"],
        "ranking": last["ranking"],
        "asked": asked,
    }


def _render(
    position: int, tick: str | None, at: str, decision: dict[str, Any], state: State, again: Mapping[str, Any]
) -> Group:
    from rich.console import Group
    from rich.text import Text

    current = state.control["current"]
    trigger = current["trigger"] if current else "manual"
    what = {"timer": "a timer's fire", "manual": "by hand", "session_end": "after a session's end"}[trigger]
    head = Text.assemble(("decision ", "bold"), (str(position), "bold"), f" of pass {tick}, {local(at)}, {what}")
    if current and current["missed"]:
        head.append(f"; it stands in for {current['missed']} missed fires")
    if again["same"] is None:
        foot = Text(str(again["reason"]), "yellow")
    elif again["same"]:
        foot = Text("today's code decides the same on what was known then", "dim")
    else:
        foot = Text("today's code decides otherwise on what was known then", "bold red")
    foot.append(f"   loop why {position} --json   loop status --at {position - 1}", "dim")
    return Group(head, selection_line(selection_of(state)), decision_table(decision), slots_text(decision), foot)


def selection_line(selection: Mapping[str, Any] | None) -> Any:
    """What the selector said, in one line."""
    from rich.text import Text

    if selection is None:
        return Text("selection: none", "dim")
    if selection["rejected"]:
        reason = REJECTIONS.get(selection["reason"], clean(selection["reason"]))
        text = Text(f"selection rejected: {reason}", "bold red")
        if selection["keys"]:
            text.append(f" ({', '.join(clean(key, 40) for key in selection['keys'][:5])})")
        return text
    tier = "" if selection["tier"] is None else f"tier {selection['tier']}, "
    when = "" if selection["asked"] else f", asked {local(selection['at'])}"
    return Text(f"selection: {tier}{len(selection['ranking'])} ranked, from {selection['source']}{when}")


def decision_table(decision: Mapping[str, Any], *, planned: bool = False) -> Any:
    """Every candidate: rank, category, the rule that named it, the verdict in words."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("category", no_wrap=True)
    table.add_column("named by", no_wrap=True)
    table.add_column("verdict")
    chosen = {choice["category"]: choice for choice in decision["chosen"]}
    for candidate in decision["candidates"]:
        good = candidate["verdict"] == "chosen"
        text = Text(verdict(candidate["verdict"], candidate["detail"], planned=planned), "green" if good else "")
        if good and (choice := chosen.get(candidate["category"])):
            text.append(f" on {clean(choice['backend'], 20)}")
            text.append(f", task {clean(choice['task'], 40)}" if choice["task"] else "")
        if candidate["also"]:
            text.append(f" (also {', '.join(candidate['also'])})", "dim")
        table.add_row(
            "–" if candidate["rank"] is None else str(candidate["rank"]),
            Text(clean(candidate["category"], 24), "bold" if good else ""),
            Text(candidate["rule"] or "–", "red" if candidate["rule"] == "allowlist" else ""),
            text,
        )
    return table


def slots_text(decision: Mapping[str, Any]) -> Any:
    """The slots, and for each that stayed free, why."""
    from rich.text import Text

    slots = decision["slots"]
    text = Text(f"slots: {slots['capacity']}, {slots['live']} in use, {slots['free']} free")
    text.append(f", {len(decision['chosen'])} given")
    for line in decision["idle"]:
        text.append(f"\nidle: {line['slots']} – {idle(line['reason'])}", "yellow")
    return text
