"""`loop select`: the built-in selector's answer now, or the one it gave at a past position, made again from the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from events.envelope import to_json
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.cascade.payload import Payload, derived, payload
from loop.cascade.tasks import read
from loop.home import DEFAULT_TASKS, Home, digest, parse_toml, read_text, resolved
from loop.moment import Moment, resolve
from loop.output import as_of, clean, message, print_json
from projections import snapshots
from projections.view import view


def run(home: Home, *, at: str | None, as_json: bool) -> int:
    """Print the payload; nothing is written. Without `at` the task files of now are read, with it only the log.

    Raises UsageError where the built-in selector was not the last to answer at `at`, ConfigError for a config that is
    none.
    """
    log = EventLog.read(home.db)
    try:
        moment = resolve(log, at)
        found = _now(home, log, moment) if at is None else _then(log, moment)
        known = moment.state(log).control["config"] if at is None else None
    finally:
        log.close()
    report = {"schema": "loop.select/1", "as_of": as_of(moment.position, moment.at), **found}
    if as_json:
        print_json(report)
        return 0
    if known is not None and known["selector"]["kind"] != "builtin":
        message("this project's selector is a command; this is what builtin = true would say in its place")
    print(_head(report))
    if report["all_scores"]:
        print("", *_table(report), sep="\n")
    empty = [f"{clean(name, 64)} needs supply: {why}" for name, why in report["needs_supply"].items()]
    if empty:
        print("", *empty, sep="\n")
    for warning in report["diversity_warnings"]:
        if warning not in empty:
            message(f"warning: {clean(warning, 300)}")
    return 0


def _now(home: Home, log: EventLog, moment: Moment) -> dict[str, Any]:
    text = read_text(home.config)
    state = moment.state(log)
    known = state.control["config"]
    if known is None or known["source"] != digest(text):
        return {**_validated(home, moment, log), "rederived": None}
    # The file is the one in force, which was validated when it was recorded: what checks it need not be loaded.
    tasks = parse_toml(text, home.config)["selector"].get("tasks", DEFAULT_TASKS)  # type: ignore[attr-defined]
    selector = known["selector"]
    found = payload(
        view(state, moment.now),
        read(resolved(home.root, tasks)),
        aliases=selector["aliases"],
        weights=selector["weights"],
        learn=selector["learn"],
        default=selector["default_category"],
    )
    return {**found, "rederived": None}


def _validated(home: Home, moment: Moment, log: EventLog) -> Payload:
    """The answer under a config that no pass has seen yet."""
    from loop.config_file import load
    from loop.journal import Rehearsal
    from loop.observe import builtin_payload
    from loop.passes import configure

    config = load(home.config)
    rehearsal = Rehearsal(moment.state(log), moment.now)
    configure(rehearsal, config)
    return builtin_payload(config, view(rehearsal.state, moment.now))


def _then(log: EventLog, moment: Moment) -> dict[str, Any]:
    """The last recorded answer, and whether today's code comes to the same from the log and what it had read."""
    last = moment.state(log).selection["last"]
    if last is None or last["source"] != "builtin":
        who = "no selector gave an answer" if last is None else f"the last answer, at {last['position']}, was given by"
        raise UsageError(
            f"{who} {'' if last is None else last['source']}".strip() + f", as of position {moment.position}",
            "see who did: loop log --type 'selection.*'",
        )
    position = last["position"]
    (event,) = log.select(Filter(after=position - 1, upto=position))
    try:
        recorded = orjson.loads(orjson.loads(event.private or "null")["payload"])
        had = recorded["read"]
        state = snapshots.load(log, int(had["position"]))
        again = orjson.loads(to_json(derived(view(state, int(had["now"])), recorded)))
    except (KeyError, TypeError, ValueError):
        raise UsageError(
            f"the answer at position {position} was redacted, cut, or given by an older loop",
            f"its ranking is there: loop show {position}",
        ) from None
    # A pass asks under its config before that is recorded, so of a changed one the log knows no such view.
    known, then = state.control["config"], snapshots.load(log, position).control["config"]
    same = None
    if known is not None and then is not None and known["hash"] == then["hash"]:
        same = all(again[key] == value for key, value in recorded.items())
    return {**again, **recorded, "rederived": {"position": position, "same": same}}


def _head(report: Mapping[str, Any]) -> str:
    first = report.get("selected")
    what = f"{clean(first['category'], 64)}, task {clean(first.get('id', '–'), 200)}" if first else "by score alone"
    if not report["all_scores"]:
        what = "nothing is worth starting"
    head = f"tier {report['tier']}: {what}"
    behind = [each for each in report.get("diversity_alternatives", []) if "id" in each]
    head += "".join(f"\nbehind it {clean(each['category'], 64)}, task {clean(each['id'], 200)}" for each in behind)
    again = report["rederived"]
    if again is not None:
        words = {True: "made again from the log: the same", False: "made again from the log: NOT the same"}
        head += f"\nanswer at position {again['position']}; task files as they were read then; "
        head += words.get(again["same"], "its pass had a new config, so it is only shown")
    return head


def _table(report: Mapping[str, Any]) -> list[str]:
    """Each category's points, term by term; under them what every score begins with, and the weights.

    Plain text, since names of categories and numbers are: loading what draws tables would take longer than the rest.
    """
    lines = report["terms"]
    first = next(iter(lines.values()))
    names = [name for name in first if name != "learned" or report["read"]["learn"]]
    rows = [["category", "score", *names]]
    for category, score in report["all_scores"].items():
        points = [f"{lines[category][name]['points']:+.2f}" for name in names]
        rows.append([clean(category, 64), f"{score:.2f}", *points])
    rows.append(["base, weights", f"{report['base']:.2f}", *(f"×{first[name]['weight']:g}" for name in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return ["  ".join(row) for row in aligned]
