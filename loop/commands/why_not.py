"""`loop why-not CATEGORY`: what kept it from starting, and the smallest change that would have let it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.store import EventLog
from loop.audit.why_not import why_not
from loop.moment import resolve
from loop.output import as_of, clean, console, here, local, print_json
from loop.words import verdict

if TYPE_CHECKING:
    from rich.text import Text

TEXT = 160  # characters of a fact's words


def run(db: Path, category: str, *, at: str | None, as_json: bool) -> int:
    """Print the verdict for `category` in the last fire's decision, its note, and the flips."""
    log = EventLog.read(db)
    try:
        moment = resolve(log, at)
        found = why_not(log, category, moment.position)
        last = moment.state(log).selection["last"]
    finally:
        log.close()
    report = {"schema": "loop.why-not/1", "as_of": as_of(moment.position, moment.at), **found}
    if as_json:
        print_json(report)
    else:
        asked = found["verdict"] == "not_ranked" and last is not None and last["source"] == "builtin"
        console().print(_render(report, [f"loop select --at {found['decision']}"] if asked else []))
    return 0


def _render(report: Mapping[str, Any], more: Sequence[str]) -> Text:
    """The answer for a person; `more` are further commands that explain it."""
    from rich.text import Text

    name = clean(report["category"], 64)
    chosen = report["verdict"] == "chosen"
    text = Text.assemble((name, "bold"), " ")
    if chosen:
        text.append(f"was chosen, as session {report['session'] or '–'}", "green")
    else:
        text.append(f"did not start: {clean(report['text'], TEXT)}", "yellow")
    if report["also"]:
        text.append(f" (also {', '.join(report['also']).replace('_', ' ')})", "dim")
    text.append(f"\ndecision {report['decision']} of pass {report['tick']}, {local(report['decided_at'])}", "dim")
    if report["rederived"]["same"] is not True:
        text.append(f"\n{report['rederived']['reason'] or 'today’s code decides otherwise on what was known'}", "red")
    if report["note"]:
        text.append(f"\nnote: {report['note']}")
    if not chosen:
        _append_flips(text, report)
    for command in (report["command"], f"loop why {report['decision']}", *more):
        text.append(f"\n→ {clean(here(command))}", "dim")
    return text


def _append_flips(text: Text, report: Mapping[str, Any]) -> None:
    if not report["flips"]:
        text.append("\nno one or two changes of fact would have started it")
    elif report["changes"] == 1:
        text.append("\nit would have started, had one fact been different: if")
    else:
        text.append("\nno single change suffices; it would have started, had two been different: if")
    by_hand = report["by_hand"]
    useless = None if by_hand is not None and by_hand["starts"] else f"loop start {report['category']}"
    before = None
    for flip in report["flips"]:
        if flip["fact"] != before:
            _append_fact(text, flip, "  · ", ", and one of these" if flip["and"] else "", useless)
        for other in flip["and"]:
            _append_fact(text, other, "      ‣ ", "", useless)
        before = flip["fact"]
    if by_hand is not None and by_hand["starts"]:
        text.append(f"\nby hand it would have started: {here(by_hand['command'])}")
    elif by_hand is not None:
        text.append(f"\nnot even by hand: {clean(verdict(by_hand['verdict'], by_hand['detail']), TEXT)}", "dim")


def _append_fact(text: Text, flip: Mapping[str, Any], mark: str, end: str, useless: str | None) -> None:
    """One fact and how to change it; `useless` is a command that would be refused all the same."""
    text.append(f"\n{mark}{clean(flip['text'], TEXT)}{end}")
    hows = [clean(here(how), TEXT) for how in (flip["command"], flip["setting"]) if how not in (None, useless)]
    if hows:
        text.append(f"   → {'  or  '.join(hows)}", "dim")
