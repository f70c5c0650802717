"""`loop replay`: the recorded decisions made again, by today's rules, by another policy or under another config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.envelope import to_text
from events.errors import UsageError
from events.store import EventLog
from loop.audit.replay import EXACT, ITEMS, Other, Tally, compared, other_config, other_policy, replay
from loop.moment import Moment, again, flags, past, resolve
from loop.output import as_of, clean, console, local, print_commands, print_json
from loop.progress import progress

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

SHOWN = 20  # divergences that a person is shown
MEANING = (
    "exact: one step from each recorded state. What sessions that never ran would have changed is not in it, so the "
    "sums say how often the choice would have been another, not how the log would have gone on."
)


CARRIED = (
    "modelled: policy fair needs a credit ledger, which these decisions had not; it is carried on from decision to "
    "decision made again, as if each of their starts had come about."
)


def run(
    db: Path,
    *,
    since: str | None,
    until: str | None,
    at: str | None,
    policy: str | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Make every recorded decision again and print what differs; with `policy` or `config` also the starts by category.

    The log is only read. Exit code 0 whatever differs: rules may change.
    """
    if policy is not None and config is not None:
        raise UsageError("--policy and --config exclude each other", "a config names its policy: [loop] policy")
    other = _other(policy, config)
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        start = None if since is None else past(since, moment.now)
        end = None if until is None else past(until, moment.now)
        after = 0 if start is None else log.position_at(to_text(start - 1))
        upto = moment.position if end is None else min(moment.position, log.position_at(to_text(end)))
        after = max(min(after, upto), log.base().position)
        with progress("replaying") as hear:
            tally = replay(log, after, upto, other=other, progress=None if hear is None else lambda at: hear(at, upto))
        options = {
            "--since": None if start is None else to_text(start),
            "--until": None if end is None else to_text(end),
            "--policy": policy,
            "--config": None if config is None else str(config),
        }
        command = again(log, moment, "replay", *flags(options))
    finally:
        log.close()
    report = _report(tally, moment, after, upto, other)
    report["command"] = command
    if as_json:
        print_json(report)
    else:
        out = console()
        out.print(_render(report))
        print_commands(out, report["command"])
    return 0


def _other(policy: str | None, config: Path | None) -> Other | None:
    if policy is not None:
        return other_policy(policy)
    if config is None:
        return None
    from loop.config import facts  # a config is validated; replaying without one loads no pydantic
    from loop.config_file import load

    return other_config(str(config), facts(load(config))[0])


def _report(tally: Tally, moment: Moment, after: int, upto: int, other: Other | None) -> dict[str, Any]:
    report: dict[str, Any] = {
        "schema": "loop.replay/1",
        "as_of": as_of(moment.position, moment.at),
        "from": after + 1,
        "to": upto,
        "decisions": tally.decisions,
        "same": tally.same,
        "other_version": tally.other_version,
        "first_divergence": tally.first,
        "divergences": tally.diverged,
        "items": tally.items,
        "label": tally.label,
    }
    if other is not None:
        meaning = MEANING if tally.label == EXACT else f"{MEANING} {CARRIED}"
        report |= {"other": other.name, "meaning": meaning, **compared(tally)}
    return report


# ── for people ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _render(report: Mapping[str, Any]) -> Group:
    from rich.console import Group
    from rich.text import Text

    lines: list[Any] = [_head(report)]
    if "other" in report:
        lines += [_categories(report), _error(report)]
    if report["items"]:
        lines.append(_divergences(report))
        more = report["divergences"] - min(len(report["items"]), SHOWN)
        if more > 0:
            known = "" if report["divergences"] <= ITEMS else f" (--json has the first {ITEMS})"
            lines.append(Text(f"and {more} more{known}", "dim"))
    if "other" in report:
        lines.append(Text(report["meaning"], "dim"))
    return Group(*lines)


def _head(report: Mapping[str, Any]) -> Any:
    from rich.text import Text

    count, same = report["decisions"], report["same"]
    what = "today's rules" if "other" not in report else clean(report["other"], 80)
    first, last = report["from"], report["to"]
    where = f"positions {first} to {last}" if first <= last else f"no position after {last}"
    text = Text(f"{count} decisions made again by {what}, {where}: ")
    if not count:
        return text.append("no data", "yellow")
    text.append(f"{same} the same", "green" if report["first_divergence"] is None else "")
    if report["divergences"]:
        text.append(f", {report['divergences']} otherwise, the first at {report['first_divergence']}", "bold red")
    if report["other_version"]:
        compared = "" if "other" in report else ", not compared"
        text.append(f", {report['other_version']} made by another version of the rules{compared}", "yellow")
    return text


def _categories(report: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("category")
    for name in ("target", "starts then", "now", "difference"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for line in report["categories"]:
        table.add_row(
            Text(clean(line["name"], 24)),
            "–" if line["target"] is None else f"{line['target'] * 100:.0f} %",
            str(line["then"]),
            str(line["now"]),
            f"{line['difference']:+d}" if line["difference"] else "0",
            Text(line["label"], "dim"),
        )
    starts = report["starts"]
    table.add_row(
        Text("all", "bold"), "", str(starts["then"]), str(starts["now"]), f"{starts['now'] - starts['then']:+d}",
        Text(starts["label"], "dim"),
    )  # fmt: skip
    return table


def _error(report: Mapping[str, Any]) -> Any:
    from rich.text import Text

    error = report["allocation_error"]
    then, now = ("no data" if error[key] is None else f"{error[key] * 100:.1f} %" for key in ("then", "now"))
    text = Text(f"allocation error: {then} then, {now} now ")
    return text.append(f"({error['label']}; starts that would have to go elsewhere to meet the targets)", "dim")


def _divergences(report: Mapping[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("decision", justify="right", no_wrap=True)
    table.add_column("at", no_wrap=True)
    for name in ("started then", "now", "verdicts"):
        table.add_column(name)
    for item in report["items"][:SHOWN]:
        changed = [f"{each['category']}: {each['then']} → {each['now']}" for each in item["verdicts"][:3]]
        then, now = _chosen(item["recorded"], item["now"]), _chosen(item["now"], item["recorded"])
        table.add_row(str(item["position"]), local(item["at"])[-8:], then, now, Text(clean(", ".join(changed), 120)))
    return table


def _chosen(choices: list[dict[str, Any]], others: list[dict[str, Any]]) -> Any:
    """The categories chosen; with the backend where only that differs."""
    from rich.text import Text

    names = [choice["category"] for choice in choices]
    if names == [choice["category"] for choice in others]:
        names = [f"{choice['category']} on {choice['backend']}" for choice in choices]
    return Text(clean(", ".join(names) or "nobody", 120))
