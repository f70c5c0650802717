"""`loop status`: is it safe, is it right, is it useful, on one screen."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.envelope import to_micros
from events.errors import StoreError, UsageError
from events.place import wal_bytes
from events.store import WAL_LIMIT, EventLog
from loop.moment import again, resolve
from loop.output import WIDTH, clean, console, here, local, message, print_commands, print_json, share, span, uncrushed
from loop.sessions import stopfile
from loop.status import status, unknown
from projections.figures import NEGLECT

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

INVARIANTS = frozenset({"same_lock", "intent_ignored", "not_started"})
"""Problems that only a fault of loop itself, or its sudden death, can bring."""
LOCKS_SHOWN = 12
FAILED = frozenset({"failed", "timed_out", "stalled", "lost", "refused"})


def run(db: Path, *, at: str | None, as_json: bool, watch: float | None, check: bool) -> int:
    """Print the status; with `watch` again every so many seconds until interrupted; exit 4 with `check` if unsafe.

    Raises UsageError where `watch` would have to ignore what else was asked for.
    """
    if watch is not None:
        for option, given in (("--at", at is not None), ("--json", as_json), ("--check", check)):
            if given:
                raise UsageError(f"--watch and {option} exclude each other", "loop log -f --json follows the events")
        return _watch(db, watch)
    try:
        report = read(db, at)
    except StoreError:
        if (stop := stopfile.problem(str(db.parent))) is not None:
            message(stop)
        raise
    if as_json:
        print_json(report)
    else:
        out = console()
        out.print(render(report))
        print_commands(out, report["command"])
    return 4 if check and any(problem["code"] in INVARIANTS for problem in report["problems"]) else 0


def read(db: Path, at: str | None) -> dict[str, Any]:
    """The status object of a store at a moment."""
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        report = status(moment.state(log), moment.now, moment.since)
        report["command"] = again(log, moment, "status")
        if log.origin is not None and log.origin.kind == "gptme-locks":
            report.setdefault("foreign", None)  # before the first of its locks
            unknown(report)
    finally:
        log.close()
    if at is None and (stop := stopfile.problem(str(db.parent))) is not None:  # of the machine too, and above all else
        mend = f"rm {stopfile.path_of(str(db.parent))}"
        report["problems"].insert(0, {"code": "stopped", "text": stop, "command": mend})
    if at is None and (size := wal_bytes(db)) > WAL_LIMIT:  # of this machine now; the log knows nothing of it
        text = f"a reader keeps {size >> 20} MiB from being written back into the log"
        report["problems"].append({"code": "wal_long", "text": text, "command": f"fuser {db}"})
    return report


def _watch(db: Path, seconds: float) -> int:
    """The screen drawn again and again; where it is no terminal a report each time, until whoever reads it leaves."""
    from rich.live import Live

    out = console()
    while not out.is_terminal:
        out.print(render(read(db, None)))
        out.print()
        time.sleep(seconds)
    with Live(render(read(db, None)), console=out, auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(seconds)
            live.update(render(read(db, None)), refresh=True)


def render(report: Mapping[str, Any]) -> Group:
    """The report for 80 columns: problems first, then safe, right, useful, who runs, the categories, what is next."""
    from rich.console import Group
    from rich.text import Text

    if report["mode"] is None:
        locks = Text("no lock was taken yet") if report["foreign"] is None else foreign_table(report["foreign"])
        return Group(_head(report), *_problems(report), locks)
    parts = [_head(report), *_problems(report), _verdicts(report)]
    if report["sessions"]["live"]:
        parts.append(_live(report))
    if report["categories"]:
        parts.append(_categories(report))
    return Group(*parts, _foot(report))


def _head(report: Mapping[str, Any]) -> Text:
    from rich.text import Text

    mode, as_of = report["mode"], report["as_of"]
    style = {"running": "bold green", "paused": "bold yellow", "draining": "bold yellow"}.get(mode, "bold red")
    if mode is None:  # no loop was there to run or to pause
        text = Text("locks of another program", "bold")
    else:
        held = report["restraints"].get("all")
        until = f" until {local(held['until'], as_of['at'])}" if held and held["until"] and held["mode"] == mode else ""
        text = Text.assemble(("loop ", "bold"), (mode.replace("_", " ") + until, style))
    text.append(f"   as of {local(as_of['at'])}, position {as_of['position']}", "dim")
    return text


def _problems(report: Mapping[str, Any]) -> list[Text]:
    from rich.text import Text

    lines = []
    for problem in report["problems"]:
        line = Text.assemble(("✗ ", "bold red"), (clean(problem["text"], 100), "red"))
        command = Text(f"  → {clean(here(problem['command']))}", "dim")
        fits = line.cell_len + command.cell_len <= console().width  # else it must not be broken in its middle
        lines += [line + command] if fits else [line, command]
    return lines


def _verdicts(report: Mapping[str, Any]) -> Any:
    """Three questions with their denominators."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    violations, chosen, noop = report["violations"], report["selection"], report["noop"]
    if violations["of"]:
        bad = violations["same_lock"]
        safe = Text(f"{bad} same-lock violations in {violations['of']} locks taken", "red" if bad else "green")
    else:
        safe = Text("no data: no lock was taken yet", "dim")
    table.add_row("safe", safe)
    lines = [_of("granted", chosen["granted"]) + _losses(chosen["losses"]), _of("followed", chosen["followed"])]
    neglected = [line["name"] for line in report["categories"] if line["neglected"]]
    lines.append(f"neglected {', '.join(clean(name) for name in neglected)}" if neglected else "nobody neglected")
    table.add_row("right", Text(" · ".join(lines) if report["categories"] else "no data: no config yet"))
    if noop["of"]:
        useful = f"{noop['count']} NOOP in the last {noop['of']} assessed (at most {share(noop['upper95'])}, 95 %)"
    else:
        useful = "no data: nothing assessed yet"
    if noop["unproven"]:
        useful += f" · {noop['unproven']} unproven beside them"
    ends = [item["outcome"] for item in report["sessions"]["recent"]]
    failed = len([outcome for outcome in ends if outcome in FAILED])
    if failed:
        useful += f" · {failed} of the last {len(ends)} ends failed"
    table.add_row("useful", Text(useful, "red" if failed * 2 >= len(ends) > 0 else ""))
    slots, pools = report["slots"], report["backends"]
    capacity = "no data" if slots["capacity"] is None else f"{slots['live']} of {slots['capacity']} in use"
    if slots["peak"] is not None:
        capacity += f", peak {slots['peak']} at {local(slots['peak_at'], report['as_of']['at'])}"
    table.add_row("slots", Text(capacity))
    limited = [item for item in pools["items"] if item["state"] != "available"]
    text = f"{pools['available']} of {pools['total']} available" if pools["total"] else "no data"
    if limited:
        text += "; limited: " + ", ".join(_limit(item, report["as_of"]["at"]) for item in limited[:3])
        text += f" and {len(limited) - 3} more" if len(limited) > 3 else ""
    table.add_row("backends", Text(text))
    held = [
        f"{clean(scope.replace(':', ' '), 40)} {each['mode']}"
        + (f" until {local(each['until'], report['as_of']['at'])}" if each["until"] else "")
        for scope, each in report["restraints"].items()
        if scope != "all"
    ]
    if held:
        table.add_row("held", Text(" · ".join(held), "yellow"))
    return table


def foreign_table(found: Mapping[str, Any]) -> Any:
    """Another program's lock history: what is certain, what is possible, what nobody can tell."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    overlaps, peak = found["overlaps"], found["peak"]
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("span", f"{local(found['from'])} to {local(found['to'])}")
    certain = f"{overlaps['certain']} same-lock overlaps in {found['acquisitions']} locks taken"
    table.add_row("certain", Text(certain, "red" if overlaps["certain"] else "green"))
    unknown = f"{overlaps['unknown']} locks were taken while the holder before had no release: overlap, or killed"
    table.add_row("possible", f"{overlaps['same_second']} pairs share no more than a second · {unknown}")
    at_once = "unknown" if peak["count"] is None else f"{peak['count']} at once, at {local(peak['at'])}"
    if peak["possible"] != peak["count"]:
        at_once += f"; at most {peak['possible']} if those without a release held on until their lock was taken again"
    table.add_row("peak", at_once)
    orphans = f"{found['orphan_releases']} releases without an acquire"
    table.add_row("ends", f"{found['unreleased']} locks taken without a release · {orphans}")
    for name in ("noop", "backends", "categories"):
        table.add_row(name, Text("unknown", "dim"))
    locks = Table(box=None, padding=(0, 1), header_style="dim")
    locks.add_column("lock")
    for name in ("taken", "certain", "possible", "unreleased"):
        locks.add_column(name, justify="right", no_wrap=True)
    for line in found["locks"][:LOCKS_SHOWN]:
        pairs = line["overlaps"]
        counts = (line["acquisitions"], pairs["certain"], pairs["possible"], line["unreleased"])
        locks.add_row(Text(clean(line["key"], 40)), *map(str, counts))
    rest = len(found["locks"]) - LOCKS_SHOWN
    return Group(table, locks, *([Text(f"and {rest} more locks", "dim")] if rest > 0 else []))


def _of(word: str, ratio: Mapping[str, int]) -> str:
    return f"{word} {ratio['count']} of {ratio['of']}" if ratio["of"] else f"{word}: no data"


def _losses(losses: Mapping[str, int]) -> str:
    """Why the rest was not granted, the most frequent reasons first."""
    parts = [f"{count} {clean(reason.replace('_', ' '), 20)}" for reason, count in losses.items()]
    return f" ({', '.join(parts[:3])}{', …' if len(parts) > 3 else ''})" if parts else ""


def _limit(item: Mapping[str, Any], now: str) -> str:
    return clean(item["name"]) + (f" until {local(item['until'], now)}" if item["until"] else " (reset unknown)")


def _live(report: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("session", "category", "for", "backend", "chosen by", "task"):
        # Where 80 columns are too few the last two give way: an id must stay whole.
        table.add_column(name, no_wrap=name not in ("chosen by", "task"), justify="right" if name == "for" else "left")
    now = to_micros(report["as_of"]["at"])
    for session in report["sessions"]["live"]:
        started = session["started_at"]
        age = span((now - to_micros(started)) / 1e6) if started else "starting"
        rule = session["rule"] + (" ⚠" if session["rule"] == "allowlist" else "")
        yielding = (Text(cell, no_wrap=True, overflow="ellipsis") for cell in (rule, clean(session["task"] or "", 22)))
        backend = Text(clean(session["backend"], 14))
        table.add_row(Text(session["id"]), Text(session["category"]), age, backend, *yielding)
    return uncrushed(table)


def _categories(report: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("category", no_wrap=console().width < WIDTH)  # a long name wraps, but does not make room
    for name in ("started", "minutes", "share", "target", "ratio", "last start"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for line in report["categories"]:
        ratio = "–" if line["ratio"] is None else f"{line['ratio']:.2f}"
        style = "red" if line["over_allocated"] else ""
        notes = []
        if line["neglected"]:
            notes.append("neglected")
        if line["capped"]:
            notes.append("at its cap")
        if line["cooldown_until"]:
            notes.append(f"cools until {local(line['cooldown_until'], report['as_of']['at'])}")
        if line["backoff_until"]:
            notes.append(f"backs off until {local(line['backoff_until'], report['as_of']['at'])}")
        if line["blocked_until"]:
            notes.append(f"blocked until {local(line['blocked_until'], report['as_of']['at'])}")
        elif line["supply"] == "none":
            notes.append("no work")
        table.add_row(
            Text(line["name"], "bold" if line["live"] else ""),
            str(line["spawned"]),
            f"{line['minutes']:.1f}",
            share(line["share"]) if line["share"] is not None else "–",
            "–" if line["target"] is None else f"{line['target'] * 100:.0f} %",
            Text(ratio if line["enough_data"] or line["ratio"] is None else f"({ratio})", style),
            local(line["last_started_at"], report["as_of"]["at"]),
            Text(", ".join(notes), "yellow"),
        )
    return uncrushed(table)


def _foot(report: Mapping[str, Any]) -> Text:
    from rich.text import Text

    last, now = report["last_tick"], report["as_of"]["at"]
    text = Text()
    if last is None:
        text.append("last decision: none yet (loop tick makes one)")
    else:
        text.append(f"last decision {local(last['at'], now)}, {last['trigger']}, started {last['started']}")
        text.append(f"  → {here('loop why last')}", "dim")
    fire = report["next_fire"]
    text.append("\nnext fire ")
    text.append("none: no controller runs and no timer fired lately" if fire is None else local(fire, now))
    if any(line["ratio"] is not None and not line["enough_data"] for line in report["categories"]):
        text.append("\n(ratios in brackets rest on too few starts to judge)", "dim")
    if any(line["neglected"] for line in report["categories"]):
        text.append(f"\nneglected: its share of the starts since its last one exceeds {NEGLECT:.0f}", "dim")
    return text
