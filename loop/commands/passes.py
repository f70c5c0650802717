"""`loop plan`, `loop tick`, `loop start`: a pass rehearsed, a pass made, one category by hand."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from typing import Any

from events.catalog import OperatorRequested, SelectionMade, SelectionRejected
from events.clock import Clock, SystemClock
from events.envelope import to_micros
from events.errors import RefusedError, UsageError
from events.store import EventLog
from loop import guard
from loop.alarm import alarmed
from loop.commands.why import decision_table, selection_line, slots_text
from loop.config import Config
from loop.config_file import load
from loop.config_report import warnings
from loop.controller import Loop, Result
from loop.gates import asking
from loop.home import Home
from loop.host import measure
from loop.journal import Rehearsal
from loop.moment import Moment, resolve
from loop.notices import announcing
from loop.observe import Selection, ask_selector, interpret
from loop.output import as_of, clean, console, here, message, print_json
from loop.passes import Decided, Facts, Fire, configure, decide_pass, raises_slots
from loop.sessions import stopfile
from projections import schedule
from projections.state import State
from projections.view import view

WOULD_START = 10


def plan(
    home: Home,
    environ: Mapping[str, str],
    *,
    payload: str | None,
    recorded: bool,
    at: str | None,
    quiet: bool,
    exit_code: bool,
    as_json: bool,
) -> int:
    """Decide as a pass would now, and start nothing: the facts are folded in memory, the store is only read."""
    if payload is not None and (recorded or at is not None):
        raise UsageError("--payload brings an answer, --recorded and --at take a recorded one", "choose one of them")
    log = EventLog.read(home.db)
    try:
        if not home.config.exists():
            log.refuse_imported()
        moment = resolve(log, at)
        state = moment.state(log)
        config = load(home.config)
        notes = [*warnings(config), *_raising(log, state, moment, config)]
        stop = stopfile.problem(str(home.state)) if at is None else None
    finally:
        log.close()
    if recorded or at is not None:
        rehearsed, observed = _recorded(state, moment, config, at is not None)
    else:
        rehearsed, observed = _observed(state, moment, config, environ, payload)
    decision = rehearsed.decision.as_dict() | {"basis": moment.position}
    would = 0 if stop else len(decision["chosen"])
    selection = _selection(observed.selection)
    if as_json:
        print_json(
            {
                "schema": "loop.plan/1",
                "as_of": as_of(moment.position, moment.at),
                "inputs": rehearsed.inputs,
                "selection": {**selection, "warnings": selection["warnings"] + notes + ([stop] if stop else [])},
                **_measured(observed),
                "decision": decision,
            }
        )
    elif quiet:
        print(" ".join(choice["category"] for choice in decision["chosen"] if not stop))
        if stop:
            message(f"warning: {stop}")
    else:
        out = console()
        what = f"a pass would start {len(decision['chosen']) or 'nothing'}"
        what = f"{stop}; but for that {what}" if stop else what
        out.print(f"plan at position {moment.position}, inputs {rehearsed.inputs}: {what}")
        _print_decision(selection, decision, planned=True)
        for note in [*selection["warnings"], *notes]:
            message(f"warning: {note}")
        if payload is None and at is None and not recorded and would:
            out.print(f"do it, if nothing changes: {here(f'loop tick --expect {rehearsed.inputs}')}", soft_wrap=True)
    if selection["rejected"]:
        return 3
    return WOULD_START if exit_code and would else 0


def _raising(log: EventLog, state: State, moment: Moment, config: Config) -> list[str]:
    """A warning for each rung of the readiness ladder that is red while the config raises `slots`."""
    if not raises_slots(state, config):
        return []
    from loop.report import red_rungs

    found = red_rungs(log, upto=moment.position, now=moment.now)
    rise = f"loop.slots rises to {config.loop.slots} while"
    return [f"{rise} {name.replace('_', ' ')} is red: {detail} (loop report)" for name, detail in found.items()]


def _observed(
    state: State, moment: Moment, config: Config, environ: Mapping[str, str], payload: str | None
) -> tuple[Decided, Facts]:
    """Observed as a pass does; a payload stands in for the selector's answer alone."""
    given = None if payload is None else interpret(_payload(payload), config, source="payload")
    before = Rehearsal(state, moment.now)
    configure(before, config)
    with asking(config, environ, dry_run=True) as gates:
        answer = given or ask_selector(config, view(before.state, moment.now), environ, dry_run=True)
    facts = Facts(Fire("manual"), config, answer, gates, measure(config))
    return _rehearsed(state, moment, facts), facts


def _recorded(state: State, moment: Moment, config: Config, past: bool) -> tuple[Decided, Facts]:
    """The last recorded answer again, under the config of then (`--at`) or of now; too old, it is a rejection.

    Gates and host are what was last recorded of them, where that still counts.
    """
    last = state.selection["last"]
    if last is None:
        raise UsageError("no answer of the selector is recorded up to here", "ask it: loop plan")
    known = state.control["config"]
    age = moment.now - to_micros(last["at"])
    limit = round(config.selector.max_age * 1_000_000) if known is None else round(known["selector"]["max_age"] * 1e6)
    answer: Selection
    if last["rejected"] or age > limit:
        reason = last["reason"] if last["rejected"] else "too_old"
        answer = SelectionRejected.model_validate({"source": last["source"], "reason": reason, "keys": last["keys"]})
    else:
        answer = SelectionMade.model_validate(
            {"source": last["source"], "tier": last["tier"], "ranking": last["ranking"]}
        )
    facts = Facts(Fire("manual"), config, answer, keep_config=past)
    return _rehearsed(state, moment, facts), facts


def _rehearsed(state: State, moment: Moment, facts: Facts) -> Decided:
    rehearsal = Rehearsal(state, moment.now)
    guard.watch(rehearsal)
    return decide_pass(rehearsal, facts, SystemClock())


def _payload(source: str) -> bytes:
    if source == "-":
        return sys.stdin.buffer.read(1 << 21)
    try:
        with open(source, "rb") as file:
            return file.read(1 << 21)
    except OSError as error:
        raise UsageError(f"--payload {source}: {error.strerror}", "name a file, or - for standard input") from None


def tick(
    home: Home,
    environ: Mapping[str, str],
    *,
    timer: bool,
    expect: str | None,
    as_json: bool,
    clock: Clock | None = None,
) -> int:
    """One pass now: by hand it always decides, with `timer` it is the fire of the current nominal instant."""
    refuse_inside(environ, "tick")
    say_stopped(home)
    with alarmed(home, environ), Loop(home, environ, clock) as loop, announcing(loop):
        nominal = schedule.last_fire(loop.configured(), loop.clock.now()) if timer else None
        result = loop.fire(Fire("timer" if timer else "manual", nominal=nominal, expect=expect))
        return _report(loop, result, as_json)


def start(
    home: Home,
    environ: Mapping[str, str],
    category: str,
    *,
    task: str | None,
    backend: str | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Start one category by hand: outside the allowlist and its cool-down, but never past a lock or a full house."""
    refuse_inside(environ, "start")
    say_stopped(home)
    log = EventLog.read(home.db)
    try:
        log.refuse_imported()  # before the config, which an imported store does not have
    finally:
        log.close()
    config = load(home.config)
    for what, name, known in (("category", category, config.categories), ("backend", backend, config.backends)):
        if name is not None and name not in known:
            raise UsageError(f"no {what} is named {clean(name, 64)!r}", f"there are: {', '.join(known)}")
    if backend is not None and backend not in config.backends_of(category):
        allowed = ", ".join(config.backends_of(category))
        raise UsageError(f"{category} may not run on {backend}", f"its backends are: {allowed}")
    asked = OperatorRequested(action="start", task=task, backend=backend, reason=reason)
    with alarmed(home, environ), Loop(home, environ) as loop, announcing(loop):
        result = loop.fire(Fire("manual", start=asked, category=category))
        code = _report(loop, result, as_json)
        if result.decided is not None and not result.started:
            candidate = result.decided.decision.candidates[0]
            if candidate.verdict in ("paused", "draining", "frozen"):
                return 0
            if candidate.verdict != "chosen":
                return RefusedError.exit_code
            return 1
        return code


def refuse_inside(environ: Mapping[str, str], command: str) -> None:
    """A session must not drive the loop that runs it. Raises RefusedError."""
    if session := environ.get("LOOP_SESSION"):
        raise RefusedError(
            f"loop {command} inside session {clean(session, 64)}: a session does not drive its own loop",
            "run it outside; reading (loop status) is fine",
        )


def say_stopped(home: Home) -> None:
    """Say on stderr that STOP is there; before the store is opened, which may be broken."""
    if (problem := stopfile.problem(str(home.state))) is not None:
        message(f"{problem}; to go on: rm {stopfile.path_of(str(home.state))}")


def _report(loop: Loop, result: Result, as_json: bool) -> int:
    state = loop.journal.state
    decided = result.decided
    started = [{"session": each.session, "category": each.category, "pid": each.pid} for each in result.started]
    for trouble in loop.troubles:
        message(f"warning: {trouble}")
    selection = _selection(result.selection)
    if as_json:
        print_json(
            {
                "schema": "loop.tick/1",
                "as_of": as_of(state.position, state.at),
                "tick": decided.tick if decided else None,
                "inputs": decided.inputs if decided else None,
                "selection": selection,
                **_measured(result.observed),
                "decision": decided.decision.as_dict() if decided else None,
                "started": started,
                "skipped": result.skipped,
            }
        )
    elif decided is None:
        console().print(f"skipped: {result.skipped}")
    else:
        running = {each.session for each in result.started}
        failed = {grant.session: grant.choice.category for grant in decided.grants if grant.session not in running}
        _print_decision(selection if result.selection else None, decided.decision.as_dict(), failed=failed.values())
        out = console()
        for each in result.started:
            out.print(f"started {each.session} {clean(each.category)}" + (f", pid {each.pid}" if each.pid else ""))
        for session in sorted(failed):
            message(f"{session} could not be started: loop log --session {session}")
    return 3 if result.selection is not None and selection["rejected"] else 0


def _print_decision(
    selection: dict[str, Any] | None,
    decision: dict[str, Any],
    *,
    planned: bool = False,
    failed: Collection[str] = (),
) -> None:
    out = console()
    if selection is not None:
        out.print(selection_line({**selection, "asked": True}))
    out.print(decision_table(decision, planned=planned, failed=failed))
    out.print(slots_text(decision))


def _measured(observed: Facts | None) -> dict[str, Any]:
    """What the gates said and how the host was, as `plan` and `tick` print it; empty where nobody was asked."""
    host = None if observed is None else observed.host
    return {
        "gates": {
            name: {"answer": each.answer, "exit_code": each.exit_code, "seconds": each.seconds, "text": each.text}
            for name, each in (observed.gates if observed is not None else {}).items()
        },
        "host": None if host is None else host.model_dump(),
    }


def _selection(answer: Selection | None) -> dict[str, Any]:
    """An answer as `plan` and `tick` print it."""
    rejected = isinstance(answer, SelectionRejected)
    return {
        "source": answer.source if answer else None,
        "tier": answer.tier if isinstance(answer, SelectionMade) else None,
        "rejected": rejected,
        "reason": answer.reason if isinstance(answer, SelectionRejected) else None,
        "keys": answer.keys if isinstance(answer, SelectionRejected) else [],
        "text": answer.text if isinstance(answer, SelectionRejected) else None,
        "warnings": list(answer.warnings or []) if isinstance(answer, SelectionMade) else [],
        "ranking": [entry.model_dump() for entry in answer.ranking] if isinstance(answer, SelectionMade) else [],
    }

