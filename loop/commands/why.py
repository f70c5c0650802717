"""`loop why`, and the table of a decision that `plan` and `tick` print too."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.envelope import to_micros
from events.store import EventLog
from loop.audit.why import find, knew, rederive, session_of, state_before
from loop.moment import resolve
from loop.output import as_of, clean, console, here, local, print_json, span, uncrushed
from loop.words import REJECTIONS, figure, idle, verdict, weighed
from projections.state import State
from projections.view import view

if TYPE_CHECKING:
    from rich.console import Group


def run(db: Path, target: str, *, at: str | None, as_json: bool) -> int:
    """Print one recorded decision, what it knew, and whether today's code decides the same.

    Asked about a session, its own line comes first: the rule, the rank, the backend and why that one.
    """
    log = EventLog.read(db)
    try:
        found = find(log, target, None if at is None else resolve(log, at).position)
        record, decision = found.record, found.decision
        state = state_before(log, record)
        again = rederive(state, decision)
        seen = view(state, to_micros(decision["now"]))
        session = None if found.session is None else session_of(log, found.session, decision, seen)
    finally:
        log.close()
    current = state.control["current"]
    report = {
        "schema": "loop.why/1",
        "as_of": as_of(record.position, record.at),
        "tick": record.tick,
        "trigger": current["trigger"] if current else None,
        "missed": current["missed"] if current else 0,
        "session": session,
        "decision": decision,
        "selection": selection_of(state),
        "knew": knew(seen),
        "rederived": again,
        "command": f"loop why {record.position if found.session is None else found.session}",
    }
    if as_json:
        print_json(report)
    else:
        console().print(_render(report))
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


def _render(report: Mapping[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    position, decision = report["as_of"]["position"], report["decision"]
    what = {"timer": "a timer's fire", "manual": "by hand", "session_end": "after a session's end"}.get(
        report["trigger"], "by hand"
    )
    head = Text.assemble(
        ("decision ", "bold"),
        (str(position), "bold"),
        f" of pass {report['tick']}, {local(report['as_of']['at'])}, {what}",
    )
    if report["missed"]:
        head.append(f"; it stands in for {report['missed']} missed fires")
    lines: list[Any] = [] if report["session"] is None else [_session_text(report["session"])]
    lines += [head, selection_line(report["selection"]), _knew_text(report["knew"])]
    foot = _foot(report["rederived"], report["command"], position)
    return Group(*lines, decision_table(decision), slots_text(decision), foot)


def _session_text(session: Mapping[str, Any]) -> Any:
    from rich.text import Text

    text = Text.assemble((f"{session['id']} ", "bold"), clean(session["text"]))
    if session["outcome"] is not None:
        text.append(f"; it ended {session['outcome']}")
    return text


def _knew_text(known: Mapping[str, Any]) -> Any:
    """Age of the answer, restraints, backends, starts, respawns: what the verdicts rest on."""
    from rich.text import Text

    answer, backends, starts = known["answer"], known["backends"], known["starts"]
    parts = []
    if answer is not None and not answer["asked"]:
        parts.append(f"an answer {span(answer['age'])} old" + ("" if answer["usable"] else ", not usable"))
    for scope, held in known["restraints"].items():
        until = "" if held["until"] is None else f" until {local(held['until'])}"
        parts.append(f"{'the loop' if scope == 'all' else clean(scope.replace(':', ' '))} {held['mode']}{until}")
    if backends["unavailable"]:
        names = ", ".join(clean(each["name"], 20) for each in backends["unavailable"][:4])
        parts.append(f"{len(backends['unavailable'])} of {backends['total']} backends unavailable ({names})")
    parts.append(f"{starts['hour']} of {starts['hour_limit']} starts in the hour")
    if starts["day_limit"] is not None:
        parts.append(f"{starts['day']} of {starts['day_limit']} in the day")
    for said, gated in _by_answer(known["gates"]).items():
        parts.append(f"gates: {said} {', '.join(clean(name, 24) for name in gated[:6])}")
    parts += [figure(each["name"], each["value"], each["bound"]) for each in known["host"]]
    if known["due"]:
        parts.append(f"respawns due: {', '.join(clean(due['category'], 24) for due in known['due'][:6])}")
    return Text(f"it knew: {' · '.join(parts)}", "dim")


def _by_answer(gates: Mapping[str, str | None]) -> dict[str, list[str]]:
    """What gates said, in words, and which: `work`, `no work`, `error`, `no answer`."""
    found: dict[str, list[str]] = {}
    for name, said in gates.items():
        found.setdefault("no answer" if said is None else said.replace("_", " "), []).append(name)
    return found


def _foot(again: Mapping[str, Any], command: str, position: int) -> Any:
    from rich.text import Text

    if again["same"] is None:
        foot = Text(str(again["reason"]), "yellow")
    elif again["same"]:
        foot = Text("today's code decides the same on what was known then", "dim")
    else:
        foot = Text("today's code decides otherwise on what was known then", "bold red")
        for each in again["differs"][:6]:
            foot.append(f"; {clean(each['category'], 24)}: {each['then']} → {each['now']}")
    foot.append(f"\n→ {here(command)}\n→ {here(f'loop status --at {position - 1}')}", "dim")
    return foot


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


def decision_table(decision: Mapping[str, Any], *, planned: bool = False, failed: Collection[str] = ()) -> Any:
    """Every candidate: rank, category, the rule that named it, the verdict in words; `failed` were chosen in vain."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("category", no_wrap=True)
    table.add_column("named by")
    accounts = (decision.get("ledger") or {}).get("accounts")
    if accounts is not None:
        table.add_column("claim", justify="right", no_wrap=True)
    table.add_column("verdict")
    chosen = {choice["category"]: choice for choice in decision["chosen"]}
    for candidate in decision["candidates"]:
        good = candidate["verdict"] == "chosen"
        text = Text(verdict(candidate["verdict"], candidate["detail"], planned=planned), "green" if good else "")
        if good and candidate["category"] in failed:
            text = Text("could not be started", "red")
        if good and (choice := chosen.get(candidate["category"])):
            text.append(f" on {clean(choice['backend'], 20)}")
            text.append(f", task {clean(choice['task'], 40)}" if choice["task"] else "")
        elif words := weighed(candidate.get("backends")):
            text.append(f" – {words}", "dim")
        if candidate["also"]:
            text.append(f" (also {', '.join(candidate['also']).replace('_', ' ')})", "dim")
        rule_style = "red" if candidate["rule"] == "allowlist" else ""
        table.add_row(
            "–" if candidate["rank"] is None else str(candidate["rank"]),
            Text(clean(candidate["category"], 24), "bold" if good else ""),
            Text(candidate["rule"] or "–", rule_style, no_wrap=True, overflow="ellipsis"),
            *([] if accounts is None else [_claim(accounts.get(candidate["category"]))]),
            text,
        )
    return uncrushed(table)


def _claim(account: Mapping[str, Any] | None) -> str:
    """What policy `fair` went by, in slots."""
    return "–" if account is None else f"{account['claim'] / 1e6:.2f}"


def slots_text(decision: Mapping[str, Any]) -> Any:
    """The slots, and for each that stayed free, why."""
    from rich.text import Text

    slots = decision["slots"]
    text = Text(f"slots: {slots['capacity']}, {slots['live']} in use, {slots['free']} free")
    text.append(f", {len(decision['chosen'])} given")
    for line in decision["idle"]:
        text.append(f"\nidle: {line['slots']} – {idle(line['reason'])}", "yellow")
    return text
