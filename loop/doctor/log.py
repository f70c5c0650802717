"""The store against the machine: damage, schema, lock files, fires."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from events.envelope import short_id, to_micros
from events.errors import LoopError
from events.store import EventLog
from loop import output
from loop.doctor.check import Check, listed
from loop.home import Home

if TYPE_CHECKING:
    from projections.state import State




def store(home: Home) -> tuple[Check, EventLog | None, State | None]:
    """The store read-only and its state at head; nothing of what cannot be had."""
    from events.store import SCHEMA
    from projections import snapshots

    log = None
    try:
        log = EventLog.read(home.db)
        if not home.db.exists():
            return Check("store", "ok", f"{home.db} is not there yet; the first pass makes it"), log, None
        schema = log.schema()
        if damage := log.quick_check():
            detail = f"{home.db} is damaged: {listed(damage)}"
            return Check("store", "fail", detail, "restore it from a backup"), log, None
        state = snapshots.load(log)
    except LoopError as error:
        return Check("store", "fail", error.message, error.hint), log, None
    except (ValueError, LookupError, TypeError) as error:
        detail = f"{home.db} holds events that cannot be folded: {type(error).__name__} {error}"
        return Check("store", "fail", detail, "look at it: loop log --json"), log, None
    detail = f"{home.db}, at position {state.position}, quick_check ok"
    if log.origin is not None:
        return Check("store", "ok", f"{detail}; imported, a copy for reading: nothing can be started here"), log, state
    if schema < SCHEMA:
        detail += f"; schema {schema}, this loop writes {SCHEMA}"
        mend = "the next pass migrates it, or: loop doctor --fix"
        return Check("store", "warn", detail, mend, opened(home)), log, state
    return Check("store", "ok", detail), log, state


def opened(home: Home) -> Callable[[], str]:
    """A mend: open the store as every writer does, which migrates it and sets its journal mode."""

    def mend() -> str:
        from loop import __version__

        log = EventLog.open(home.db, release=__version__)
        try:
            return f"{home.db} has the schema and the journal mode of this loop"
        finally:
            log.close()

    return mend


def lock_files(home: Home, log: EventLog, state: State) -> Check:
    """A key that was ever held must have its lock file; whether it may be made anew, only the machine can tell."""
    from loop.sessions import locks

    held = sorted(key for key, intervals in state.locks["intervals"].items() if intervals)
    paths = {key: locks.path_of(str(home.lock_dir), key) for key in held}
    missing = {key: path for key, path in paths.items() if not os.path.exists(path)}
    if not missing:
        return Check("lock_files", "ok", f"there, for {listed(held)}" if held else "no key has been held yet")
    store = log.store_id
    known = {key: _holders(state, store, key) for key in missing}

    def mend() -> str:
        said: list[str] = []
        for key, path in missing.items():
            if why := _still_alive(home, state, key, known[key], path):
                said.append(f"{key} is left alone: {why}")
            else:
                locks.create(str(home.lock_dir), key)
                said.append(f"made {path}")
        return "; ".join(said)

    detail = f"missing though sessions have held the key: {listed(missing.values())}; nothing starts under it"
    return Check("lock_files", "fail", detail, "once nothing of it runs: loop doctor --fix", mend)


def _holders(state: State, store: str, key: str) -> list[str]:
    """The sessions that held a key, as far back as its intervals are kept, and those that live under it."""
    past = [short_id("s", store, token) for *_, token in state.locks["intervals"].get(key, [])]
    return [*past, *state.locks["claims"].get(key, {})]


def _still_alive(home: Home, state: State, key: str, sessions: Sequence[str], path: str) -> str | None:
    """Why a key may still be held by somebody, though its lock file is gone; None when two sweeps find nobody."""
    from loop.sessions import locks, proc, rundir

    if live := list(state.locks["claims"].get(key, {})):
        return f"session {live[0]} has not ended"
    for _ in range(2):
        for session in sessions:
            if pids := proc.marked(rundir.path_of(str(home.state), session)):
                return f"process {pids[0]} of session {session} lives"
        if (pid := locks.holder_of_deleted(path)) is not None:
            return f"process {pid} holds the deleted file"
    return None


def fires(state: State, now: int) -> Check:
    """Does whoever is there to fire do so: a controller that has died or hangs, a timer that no longer comes."""
    from loop.sessions import proc
    from projections.figures import silent_since

    controller, last = state.control["controller"], state.control["last_timer"]
    if controller is None:
        who = "no controller is recorded as running"
        mend = "look at the timer: loop timer show; or at the crontab; or begin anew: loop run"
    else:
        who = f"the controller (pid {controller['pid']})"
        mend = f"is pid {controller['pid']} stuck? stop it, then: loop run"
        known = controller["start"] is not None  # who cannot be told from a later process of that pid counts as alive
        if known and not proc.alive(controller["pid"], controller["start"], controller["boot"]):
            return Check("fires", "fail", f"{who} has ended without a word", "start it again: loop run")
    if (since := silent_since(state, now)) is not None:
        late = output.span((now - to_micros(since)) / 1e6)
        return Check("fires", "fail", f"{who}; no timer fire for {late}, more than two periods", mend)
    if controller is not None:
        return Check("fires", "ok", f"{who} fires in time")
    ago = "never" if last is None else f"{output.span((now - to_micros(last)) / 1e6)} ago"
    return Check("fires", "ok", f"{who}; the last timer fire: {ago}")
