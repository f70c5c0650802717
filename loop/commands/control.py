"""`pause`, `resume`, `drain`, `stop`: an operator's word, in the log before anything is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from events.catalog import LoopDraining, LoopPaused, LoopResumed, OperatorRequested
from events.clock import SystemClock
from events.envelope import to_text
from events.errors import UsageError
from loop.controller import Loop
from loop.home import Home
from loop.moment import ahead, unique
from loop.output import as_of, clean, console, message, print_json
from loop.sessions import handshake, rundir
from loop.status import mode

ACTOR = "operator"
POLL_SECONDS = 0.2

Scope = Literal["all", "category", "backend"]


def restrain(
    home: Home,
    environ: Mapping[str, str],
    *,
    action: Literal["pause", "resume", "drain"],
    category: str | None,
    backend: str | None,
    until: str | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Append `loop.paused`, `loop.resumed` or `loop.draining` for the whole loop, a category or a backend."""
    if category is not None and backend is not None:
        raise UsageError("--category and --backend exclude each other", "say it once for each")
    scope: Scope = "category" if category is not None else "backend" if backend is not None else "all"
    name = category or backend
    model = {"pause": LoopPaused, "resume": LoopResumed, "drain": LoopDraining}[action]
    with Loop(home, environ) as loop:
        config = loop.journal.state.control["config"]
        known = {} if config is None else config["categories" if scope == "category" else "backends"]
        if name is not None and config is not None and name not in known:
            raise UsageError(f"no {scope} is named {clean(name, 64)!r}", f"there are: {', '.join(known)}")
        with loop.journal.transaction() as entry:
            time = None if until is None else to_text(ahead(until, entry.now))
            entry.append(model(scope=scope, name=name, until=time, reason=reason), actor=ACTOR)
        return _report(loop, as_json)


def wait_drained(home: Home, environ: Mapping[str, str], *, quiet: bool) -> int:
    """Wait until no session lives, saying who is left."""
    clock = SystemClock()
    said: list[str] = []
    with Loop(home, environ) as loop:
        while True:
            loop.reconcile(settle=True)
            live = loop.journal.refresh().sessions["live"]
            left = [f"{session} ({item['category']})" for session, item in live.items()]
            if not left:
                return 0
            if left != said and not quiet:
                message(f"waiting for {len(left)}: {', '.join(left[:6])}")
                said = left
            clock.sleep(POLL_SECONDS)


def stop(
    home: Home, environ: Mapping[str, str], session: str | None, *, kill: bool, reason: str | None, as_json: bool
) -> int:
    """Stop one session, or pause the loop and stop all: TERM, grace, KILL; with `kill`, KILL at once."""
    with Loop(home, environ) as loop:
        live = loop.journal.state.sessions["live"]
        if session is None:
            wanted = list(live)
        else:
            _, id = unique(loop.journal.log, session, ("session",))
            if id not in live:
                raise UsageError(f"session {id} does not live", f"see: loop log --session {id}")
            wanted = [id]
        with loop.journal.transaction() as entry:
            if session is None:
                entry.append(LoopPaused(reason=reason or "loop stop"), actor=ACTOR)
            for id in wanted:
                asked = OperatorRequested(action="stop" if session is None else "cancel", kill=kill, reason=reason)
                item = entry.state.sessions["live"].get(id)
                entry.append(asked, actor=ACTOR, session=id, category=item["category"] if item else None)
        for id in wanted:
            handshake.stop(rundir.path_of(str(home.state), id), kill=kill, by=ACTOR)
        return _report(loop, as_json, stopping=wanted)


def _report(loop: Loop, as_json: bool, **more: Any) -> int:
    state = loop.journal.state
    now = loop.clock.now()
    if as_json:
        found = {"schema": "loop.control/1", "as_of": as_of(state.position, state.at), "mode": mode(state, now)}
        print_json({**found, "modes": state.control["modes"], **more})
        return 0
    out = console()
    out.print(f"loop is {mode(state, now)}")
    for scope, held in state.control["modes"].items():
        if scope != "all":
            out.print(f"{clean(scope.replace(':', ' '))} is {held['mode']}")
    if stopping := more.get("stopping"):
        out.print(f"asked to stop: {', '.join(stopping)}")
    elif "stopping" in more:
        out.print("no session lives")
    if state.control["modes"]:
        out.print("go on with: loop resume")
    return 0
