"""`loop select`: the built-in selector's answer now, or the one it gave at a past position, made again from the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from events.errors import UsageError
from events.store import EventLog, Filter
from loop.cascade.payload import derived
from loop.home import Home
from loop.moment import Moment, resolve
from loop.output import as_of, clean, console, message, print_json
from projections import snapshots
from projections.view import view

if TYPE_CHECKING:
    from rich.console import RenderableType


def run(home: Home, *, at: str | None, as_json: bool) -> int:
    """Print the payload; nothing is written. Without `at` the task files of now are read, with it only the log.

    Raises UsageError where the log has no answer of the built-in selector up to `at`, ConfigError for a config that is
    none.
    """
    log = EventLog.read(home.db)
    try:
        moment = resolve(log, at)
        found = _now(home, log, moment) if at is None else _then(log, moment)
    finally:
        log.close()
    report = {"schema": "loop.select/1", "as_of": as_of(moment.position, moment.at), **found}
    if as_json:
        print_json(report)
        return 0
    out = console()
    out.print(_head(report), soft_wrap=True)
    out.print(_table(report))
    for warning in report["diversity_warnings"]:
        message(f"warning: {clean(warning, 300)}")
    return 0


def _now(home: Home, log: EventLog, moment: Moment) -> dict[str, Any]:
    from loop.config_file import load
    from loop.journal import Rehearsal
    from loop.observe import builtin_payload
    from loop.passes import configure

    config = load(home.config)
    rehearsal = Rehearsal(moment.state(log), moment.now)
    configure(rehearsal, config)
    return {**builtin_payload(config, view(rehearsal.state, moment.now)), "rederived": None}


def _then(log: EventLog, moment: Moment) -> dict[str, Any]:
    """The last recorded answer, and whether today's code comes to the same from the log and what it had read."""
    for event in reversed(log.select(Filter(types=("selection.made",), until=moment.position))):
        if event.data["source"] == "builtin":
            break
    else:
        raise UsageError(
            f"the built-in selector gave no answer up to position {moment.position}",
            "see who did: loop log --type selection.made",
        )
    text = (event.private or {}).get("payload")
    try:
        recorded = orjson.loads(text or "")
        read = recorded["read"]
        state = snapshots.load(log, int(read["position"]))
        # A pass asks under its config before it is recorded, so of a changed one the past knows no view.
        known, then = state.control["config"], snapshots.load(log, event.position).control["config"]
        same = None
        if known is not None and then is not None and known["hash"] == then["hash"]:
            same = orjson.loads(orjson.dumps(derived(view(state, int(read["now"])), recorded))) == recorded
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"the answer at position {event.position} was redacted, cut, or given by an older loop",
            f"its ranking is there: loop show {event.position}",
        ) from None
    return {**recorded, "rederived": {"position": event.position, "same": same}}


def _head(report: Mapping[str, Any]) -> str:
    first = report.get("selected")
    what = f"{clean(first['category'], 64)}, task {clean(first.get('id', '–'), 200)}" if first else "by score alone"
    head = f"tier {report['tier']}: {what}"
    again = report["rederived"]
    if again is not None:
        words = {True: "made again from the log: the same", False: "made again from the log: NOT the same"}
        head += f"\nanswer at position {again['position']}; task files as read then; "
        head += words.get(again["same"], "its pass had a new config, so it is only shown")
    return head


def _table(report: Mapping[str, Any]) -> RenderableType:
    from rich.table import Table

    names = list(next(iter(report["terms"].values()), {}))
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("category")
    for name in ("score", "base", *names):
        table.add_column(name, justify="right", no_wrap=True)
    for category, score in report["all_scores"].items():
        lines = report["terms"][category]
        points = [f"{lines[name]['points']:+.2f}" for name in names]
        table.add_row(clean(category, 64), f"{score:.2f}", f"{report['base']:.2f}", *points)
    return table
