"""`loop report`: is it ready for more slots; five questions, the ladder, shares against targets, idle slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.envelope import to_text
from events.errors import UsageError
from events.store import EventLog
from loop.moment import again, past, resolve
from loop.output import clean, console, local, print_commands, print_json, share
from loop.report import report
from loop.words import idle

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.text import Text

SINCE = "48h"
QUESTIONS = {
    "neglected": "neglected served?",
    "over_allocation": "all under 2 times?",
    "same_lock": "locks exclusive?",
    "noop": "NOOPs near zero?",
    "output": "output risen?",
}
RUNGS = {
    "lock_safety": "1 lock safety",
    "noop_rate": "2 NOOP rate",
    "intent": "3 intent",
    "distribution": "4 distribution",
    "more_slots": "5 more slots",
}
MARKS = {True: ("✓", "green"), False: ("✗", "bold red"), None: ("?", "yellow")}
BAR = 24  # columns of a bar; the target stands in its middle, so that a full one has twice its target
REASONS_SHOWN = 5
REASONS = {"no_pass": "no pass looked at it", "invalid_config": "the config was invalid"}


def run(db: Path, *, since: str | None, at: str | None, as_json: bool) -> int:
    """Print the report of a store over the time since `since`: two days, or all of an imported store."""
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        start = moment.since if since is None else None
        if start is None:
            start = past(since or SINCE, moment.now)
        if start > moment.now or (start == moment.now and since is not None):
            raise UsageError(
                f"--since {clean(since)} is {to_text(start)}, not before {moment.at}",
                "name a time that is: --since 48h",
            )
        found = report(log, upto=moment.position, now=moment.now, span=max(moment.now - start, 1))
        window = () if since is None and moment.since is not None else ("--since", to_text(start))
        found["command"] = again(log, moment, "report", *window)
    finally:
        log.close()
    if as_json:
        print_json(found)
    else:
        out = console()
        out.print(render(found))
        print_commands(out, found["command"])
    return 0


def render(found: Mapping[str, Any]) -> Group:
    """One screen of 80 columns: questions, ladder, shares, idle slots."""
    from rich.console import Group

    parts: list[RenderableType] = [_head(found), _lines(found["questions"], QUESTIONS)]
    parts += [_next(found), _lines(found["ladder"], RUNGS)]
    if any(line["target"] for line in found["categories"]):
        parts += [_bars(found)]
    return Group(*parts, *_idle(found))


def _head(found: Mapping[str, Any]) -> Text:
    from rich.text import Text

    data, as_of = found["data"], found["as_of"]
    text = Text.assemble(("report ", "bold"), f"{data['hours']:.1f} h, {data['sessions']} sessions")
    text.append(f"   since {local(data['from'])}, position {as_of['position']}", "dim")
    return text


def _lines(items: list[Mapping[str, Any]], names: Mapping[str, str]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, width=max(len(name) for name in (*QUESTIONS.values(), *RUNGS.values())))
    table.add_column()
    for item in items:
        mark, style = MARKS[item["ok"]]
        table.add_row(Text(mark, style), Text(names[item["name"]], "bold"), Text(clean(item["detail"])))
    return table


def _next(found: Mapping[str, Any]) -> Text:
    from rich.text import Text

    held = found["held_back_by"]
    text = Text("ready for more slots: ", "bold")
    if held is None:
        text.append("yes", "green")
    else:
        text.append(f"not yet, held back by {RUNGS[held][2:]}", "yellow")
    return text


def _bars(found: Mapping[str, Any]) -> RenderableType:
    """Shares against targets, the largest ratio first."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("category")
    for name in ("started", "share", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"{'0':<{BAR // 2}}│{'twice its target':>{BAR - BAR // 2}}", no_wrap=True)
    for line in sorted(found["categories"], key=lambda line: -(line["ratio"] or 0)):
        target = "–" if line["target"] is None else share(line["target"])
        shown = "–" if line["share"] is None else share(line["share"])
        style = "" if line["enough_data"] else "dim"
        bar = Text("" if line["ratio"] is None else _bar(line["ratio"]), "red" if line["over_allocated"] else style)
        table.add_row(Text(clean(line["name"], 24)), str(line["spawned"]), shown, target, bar)
    return table


def _bar(ratio: float) -> str:
    """A share as a bar on which the middle is the target; beyond twice the target an arrow."""
    full = round(ratio * BAR / 2)
    text = "█" * min(full, BAR)
    marked = text + "·" * (BAR // 2 - len(text)) if len(text) < BAR // 2 else text
    return f"{marked[: BAR // 2]}│{marked[BAR // 2 :]}" + ("▶" if full > BAR else "")


def _idle(found: Mapping[str, Any]) -> Iterator[Text]:
    from rich.text import Text

    total = sum(found["idle_slot_hours"].values())
    if not found["slot_hours"]:
        yield Text("idle slots: no data, no decision was made")
        return
    yield Text(f"idle {total:.1f} of {found['slot_hours']:.1f} slot-hours", "bold")
    reasons = list(found["idle_slot_hours"].items())
    for reason, hours in reasons[:REASONS_SHOWN]:
        text = REASONS.get(reason) or idle(reason)
        yield Text(f" {hours:7.1f}  {clean(reason)}" + (f": {clean(text)}" if text != reason else ""))
    if rest := reasons[REASONS_SHOWN:]:
        yield Text(f" {sum(hours for _, hours in rest):7.1f}  for {len(rest)} more reasons", "dim")
