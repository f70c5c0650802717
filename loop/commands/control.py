"""`pause`, `resume`, `drain`, `stop`: an operator's word, in the log before anything is done about it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from events.catalog import LoopDraining, LoopPaused, LoopResumed, OperatorRequested
from events.clock import SystemClock
from events.envelope import to_text
from events.errors import ConfigError, RefusedError, StoreError, UsageError
from events.store import Filter
from loop import guard
from loop.commands.passes import refuse_inside, say_stopped
from loop.config_file import load
from loop.controller import Loop
from loop.home import Home
from loop.moment import ahead, unique
from loop.output import as_of, clean, console, here, message, print_json
from loop.sessions import handshake, rundir, stopfile
from loop.status import mode
from projections.state import State
from projections.view import restraints

ACTOR = "operator"
POLL_SECONDS = 0.2

Scope = Literal["all", "category", "backend"]


def restrain(
    home: Home,
    environ: Mapping[str, str],
    *,
    action: Literal["pause", "drain"],
    category: str | None,
    backend: str | None,
    until: str | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Append `loop.paused` or `loop.draining` for the whole loop, a category or a backend."""
    scope, name = _scope(category, backend)
    model = {"pause": LoopPaused, "drain": LoopDraining}[action]
    with Loop(home, environ) as loop:
        _check_known(loop, scope, name)
        with loop.journal.transaction() as entry:
            time = None if until is None else to_text(ahead(until, entry.now))
            entry.append(model(scope=scope, name=name, until=time, reason=reason), actor=ACTOR)
        return _report(loop, as_json)


def resume(
    home: Home,
    environ: Mapping[str, str],
    *,
    category: str | None,
    backend: str | None,
    reason: str | None,
    as_json: bool,
) -> int:
    """Append `loop.resumed`: for all, which lifts every restraint, or for a category or a backend its own.

    A freeze is lifted only with a reason, and only one that was there to be seen: else raises UsageError, which says
    why it froze.
    """
    refuse_inside(environ, "resume")
    scope, name = _scope(category, backend)
    own = scope if name is None else f"{scope}:{name}"
    with Loop(home, environ) as loop:
        with loop.journal.transaction() as entry:
            before = entry.state.position
            guard.watch(entry)
            seen = entry.state.position == before
            held = restraints(entry.state, entry.now)
            lifted = {key: restraint.mode for key, restraint in held.items() if own in ("all", key)}
            if name is not None and not lifted:
                _check_known(loop, scope, name)  # what is restrained may be of a config that has gone
            frozen = [key for key, mode in lifted.items() if mode == "frozen"]
            refused = bool(frozen) and not (seen and (reason or "").strip())
            if not refused:
                entry.append(LoopResumed(scope=scope, name=name, reason=reason), actor=ACTOR)
        if refused:
            raise UsageError(
                "; ".join(f"{_named(key)} is frozen: {_why(loop, loop.journal.state, key)}" for key in frozen),
                f'say what was done about it: loop resume{_option(scope, name)} --reason "…"',
            )
        if name is not None and not lifted and not as_json:
            message(f"{_named(own)} had no restraint of its own")
        return _report(loop, as_json, lifted=lifted)


def _scope(category: str | None, backend: str | None) -> tuple[Scope, str | None]:
    if category is not None and backend is not None:
        raise UsageError("--category and --backend exclude each other", "say it once for each")
    return ("category" if category is not None else "backend" if backend is not None else "all"), category or backend


def _check_known(loop: Loop, scope: Scope, name: str | None) -> None:
    """Raise UsageError for a name that neither the config in force nor the file has."""
    if name is None:
        return
    config = loop.journal.state.control["config"]
    kind = "categories" if scope == "category" else "backends"
    known = {} if config is None else config[kind]
    if name not in known:
        with contextlib.suppress(ConfigError):  # a file that cannot be read now is no reason not to brake
            known = {**known, **getattr(load(loop.home.config), kind)}
    if name not in known:
        raise UsageError(f"no {scope} is named {clean(name, 64)!r}", f"there are: {', '.join(known) or 'none'}")


def _why(loop: Loop, state: State, key: str) -> str:
    """What the freeze of a scope itself says, else its rule."""
    scope, _, name = key.partition(":")
    for record in reversed(loop.journal.log.select(Filter(types=("loop.frozen",)), limit=64, newest=True)):
        data, private = json.loads(record.data), json.loads(record.private or "{}")
        if (data["scope"], data["name"] or "") == (scope, name) and private.get("reason"):
            return clean(private["reason"], 600)
    return guard.why_frozen(state, key)


def _named(key: str) -> str:
    return "the loop" if key == "all" else clean(key.replace(":", " "))


def _option(scope: Scope, name: str | None) -> str:
    return "" if name is None else f" --{scope} {name}"


def wait_drained(home: Home, environ: Mapping[str, str], *, quiet: bool) -> int:
    """Wait until no session lives, saying who is left. A run directory that cannot be read is said, and waited for."""
    clock = SystemClock()
    said: list[str] = []
    with Loop(home, environ) as loop:
        while True:
            loop.reconcile(settle=True)
            damage = loop.troubles
            state = loop.journal.refresh()
            left = [f"{session} ({item['category']})" for session, item in state.sessions["live"].items()]
            if not left:
                return 0
            if mode(state, clock.now()) == "running":
                raise RefusedError(
                    f"the loop runs again, with {len(left)} sessions: it was resumed, or the drain's time is up",
                    "drain again: loop drain --wait",
                )
            if left + damage != said and not quiet:
                message(f"waiting for {len(left)}: {', '.join(left[:6])}")
                for text in damage:
                    message(text)
                said = left + damage
            clock.sleep(POLL_SECONDS)


def stop(
    home: Home, environ: Mapping[str, str], session: str | None, *, kill: bool, reason: str | None, as_json: bool
) -> int:
    """Stop one session, or pause the loop and stop all: TERM, grace, KILL; with `kill`, KILL at once.

    All are those that live once the pause is in the log, so that none is granted behind its back. Raises StoreError
    where the store is broken, and names the STOP file, which does not need it.
    """
    try:
        with Loop(home, environ) as loop:
            id = None if session is None else _living(loop, session)
            with loop.journal.transaction() as entry:
                if id is None:
                    entry.append(LoopPaused(reason=reason or "loop stop"), actor=ACTOR)
                live = entry.state.sessions["live"]
                wanted = [each for each in live if id in (None, each)]
                asked = OperatorRequested(action="stop" if id is None else "cancel", kill=kill, reason=reason)
                for each in wanted:
                    entry.append(asked, actor=ACTOR, session=each, category=live[each]["category"])
            failed = [text for each in wanted if (text := _ask(home, each, kill)) is not None]
            _report(loop, as_json, stopping=wanted, unreached=failed)
            for text in failed:
                message(text)
            return 1 if failed else 0
    except StoreError as error:
        path = stopfile.path_of(str(home.state))
        error.hint += f"; to stop every session without the store: touch {path}"
        raise


def _living(loop: Loop, prefix: str) -> str:
    _, id = unique(loop.journal.log, prefix, ("session",))
    if id not in loop.journal.state.sessions["live"]:
        raise UsageError(f"session {id} does not live", f"see: loop log --session {id}")
    return id


def _ask(home: Home, session: str, kill: bool) -> str | None:
    """Leave the request where the shim looks, also one that is yet to come; what went wrong, if it did."""
    run_dir = rundir.path_of(str(home.state), session)
    try:
        rundir.make_directory(run_dir)
        handshake.stop(run_dir, kill=kill, by=ACTOR)
    except OSError as error:
        return f"{session} could not be asked: {error}; touch {stopfile.path_of(str(home.state))} stops every session"
    return None


def _report(loop: Loop, as_json: bool, **more: Any) -> int:
    state = loop.journal.state
    now = loop.clock.now()
    say_stopped(loop.home)
    if as_json:
        found = {"schema": "loop.control/1", "as_of": as_of(state.position, state.at), "mode": mode(state, now)}
        print_json({**found, "modes": state.control["modes"], **more})
        return 0
    out = console()
    out.print(f"loop is {mode(state, now)}")
    held = restraints(state, now)
    for scope, restraint in held.items():
        if scope != "all":
            out.print(f"{_named(scope)} is {restraint.mode}")
    if stopping := more.get("stopping"):
        out.print(f"asked to stop: {', '.join(stopping)}")
    elif "stopping" in more:
        out.print("no session lives")
    for scope, mode_ in more.get("lifted", {}).items():
        out.print(f"{_named(scope)} is no longer {mode_}")
    for scope, restraint in held.items():
        kind, _, name = scope.partition(":")
        reason = ' --reason "…"' if restraint.mode == "frozen" else ""
        command = f"loop resume{f' --{kind} {clean(name)}' if name else ''}{reason}"
        out.print(f"go on with: {here(command)}", soft_wrap=True)
    return 0
