"""What is known against pools and backends: limits, breakers, and which session tries whether they serve again.

A *limit* is the word of a backend that refused work; it closes the pool, which is the quota. A *breaker* opens by what
sessions came to, without anybody's word: counted in a window, so that no single success hides that most fail. It is
the backend's own, but for a refused login, which closes the pool, as that is the account. What has been closed takes
one session at first, the *probe*, and opens for all by its end. `projections.pools` evaluates the times.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

from events.envelope import Event, to_micros, to_text
from events.lifecycle import BACKEND
from projections.fold import HOUR, Handlers, keep_recent

ENDS_KEPT = 12  # ends of a backend's sessions that its breaker looks at
FAILURES = 3  # failures in BREAKER_WINDOW from which it opens …
ONE_IN = 2  # … where they are at least one in so many of the ends that say something
BREAKER_WINDOW = HOUR
MISSING = frozenset({"command_not_found", "not_executable", "argv_too_long"})  # of a backend's own command: no worker
UNAUTHORISED = "unauthorised"  # the reason of a failure that a refused login was
NO_CONVERSATION = "no_conversation"  # … and of one that was to go on with a conversation that is gone
SERVED = frozenset({"productive", "noop", "unproven", "blocked", "timed_out"})  # ends that only work done can have
BROKEN = frozenset({"failed", "stalled"})


class Pool(TypedDict):
    state: str  # a state of events.lifecycle.BACKEND
    since: str
    until: str | None
    source: str
    refusals: int  # in a row: this one, and those of the probes before it
    probe: str | None  # the live session that tries it
    probed: str | None  # when that really started
    asked: str | None  # when an operator asked for a probe


class Breaker(TypedDict):
    ends: list[list[str | bool]]  # [time, failed] of the last that say something, since it was last closed
    opened: str | None  # when; None: it is closed
    why: str
    times: int  # opened in a row
    probe: str | None
    asked: str | None


class Backends(TypedDict):
    pools: dict[str, Pool]  # those that were ever limited
    breakers: dict[str, Breaker]  # "backend:opus", "pool:max"
    live: dict[str, list[Any]]  # session -> [backend, pool, whether it runs its category's own command]
    own: list[str]  # categories with a command of their own: how that ends says nothing of a backend
    pool_of: dict[str, str]  # by the config in force
    last_used: dict[str, int]  # backend -> token of its last session


class Told(NamedTuple):
    """What an end says of the backend: of `scope`, and `at_once` where one such end is enough."""

    what: Literal["served", "broken", "nothing"]
    scope: Literal["backend", "pool"] = "backend"
    why: str = ""
    at_once: bool = False


NOTHING, SERVES = Told("nothing"), Told("served")


def initial() -> Backends:
    return Backends(pools={}, breakers={}, live={}, own=[], pool_of={}, last_used={})


def backend_scope(name: str) -> str:
    return f"backend:{name}"


def pool_scope(name: str) -> str:
    return f"pool:{name}"


def is_backends_failure(code: str | None) -> bool:
    """Whether an end's code is a failure of its backend: nothing that the category's work has to answer for."""
    return code in MISSING or code in (UNAUTHORISED, NO_CONVERSATION)


def configured(state: Backends, event: Event) -> None:
    data = event.data
    state["own"] = [name for name, settings in data["categories"].items() if settings["own_command"]]
    state["pool_of"] = {name: settings["pool"] for name, settings in data["backends"].items()}


# ── limits ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def limited(state: Backends, event: Event) -> None:
    name, until = event.data["pool"], event.data["until"]
    before = state["pools"].get(name)
    refusals = 1
    if before is not None and before["state"] != "available":
        refusals = before["refusals"] + (before["state"] == "probing")
        known = before["until"]
        if until is None and known is not None and known > event.at:
            until = known  # a sibling that was not told when knows no better
    state["pools"][name] = Pool(
        state="limited",
        since=event.at,
        until=until,
        source=event.data["source"],
        refusals=refusals,
        probe=None,
        probed=None,
        asked=None,
    )


def changed(state: Backends, event: Event) -> None:
    pool = state["pools"].get(event.data["pool"])
    after = BACKEND.get((pool["state"] if pool else "available", event.type))
    if pool is None or after is None:
        return
    pool.update({"state": after, "source": event.data["source"]})
    if after == "available":
        pool.update({"since": event.at, "until": None, "refusals": 0, "probe": None, "probed": None, "asked": None})


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def requested(state: Backends, event: Event) -> None:
    assert event.session is not None
    session, backend, pool = event.session, event.data["backend"], event.data["pool"]
    state["last_used"][backend] = event.position
    state["live"][session] = [backend, pool, event.category in state["own"]]
    known = state["pools"].get(pool)
    if known is not None and known["state"] != "available" and known["probe"] is None:
        known["probe"] = session
    for scope in (pool_scope(pool), backend_scope(backend)):
        breaker = state["breakers"].get(scope)
        if breaker is not None and breaker["opened"] is not None and breaker["probe"] is None:
            breaker["probe"] = session


def started(state: Backends, event: Event) -> None:
    _, pool, _ = state["live"].get(event.session or "", ["", "", False])
    known = state["pools"].get(pool)
    if known is not None and known["probe"] == event.session:
        known["probed"] = event.at


def ended(state: Backends, event: Event) -> None:
    session = event.session or ""
    if (live := state["live"].pop(session, None)) is None:
        return
    backend, pool, own = live
    known = state["pools"].get(pool)
    if known is not None and known["probe"] == session:
        known.update({"probe": None, "probed": None})
    told = NOTHING if own else told_by(event)
    for scope, meant in ((pool_scope(pool), told.scope == "pool"), (backend_scope(backend), told.scope == "backend")):
        breaker = state["breakers"].get(scope)
        if breaker is not None and breaker["opened"] is not None:
            _tried(breaker, event, told, meant)
        elif meant and told is not NOTHING:
            _counted(state, scope, event, told)


def told_by(event: Event) -> Told:
    """What the end of a session that ran its backend's command says of that backend. A quota is the limit's matter."""
    data = event.data
    if event.type == "session.spawn_failed" and data["code"] in MISSING:
        return Told("broken", "backend", data["code"], at_once=True)
    if event.type != "session.ended":
        return NOTHING
    outcome = data["outcome"]
    if data["reason"] == UNAUTHORISED:
        return Told("broken", "pool", UNAUTHORISED, at_once=True)
    if outcome in BROKEN:
        return Told("broken", "backend", outcome)
    return SERVES if outcome in SERVED else NOTHING


def _tried(breaker: Breaker, event: Event, told: Told, meant: bool) -> None:
    """What an end does to an open breaker; `meant`: it is the one that the end speaks of."""
    if breaker["probe"] != event.session:
        return  # a session from before: the probe decides
    breaker["probe"] = None
    if told.what == "served":
        breaker.update({"ends": [], "opened": None, "why": "", "times": 0, "asked": None})
    elif told.what == "broken" and meant:
        breaker.update({"opened": event.at, "why": told.why, "times": breaker["times"] + 1, "asked": None})


def _counted(state: Backends, scope: str, event: Event, told: Told) -> None:
    """What an end that says something does to the closed breaker of `scope`."""
    breaker, broken = state["breakers"].get(scope), told.what == "broken"
    if breaker is None:
        breaker = Breaker(ends=[], opened=None, why="", times=0, probe=None, asked=None)
        state["breakers"][scope] = breaker
    said: list[str | bool] = [event.at, broken]
    keep_recent(breaker["ends"], said, ENDS_KEPT)
    if broken and (told.at_once or _too_many(breaker["ends"], event.at)):
        breaker.update({"opened": event.at, "why": told.why, "times": 1, "probe": None, "asked": None})


def _too_many(ends: list[list[str | bool]], at: str) -> bool:
    since = to_text(max(0, to_micros(at) - BREAKER_WINDOW))
    failed = [bool(each[1]) for each in ends if since < str(each[0]) <= at]
    return sum(failed) >= FAILURES and sum(failed) * ONE_IN >= len(failed)


def asked(state: Backends, event: Event) -> None:
    """An operator wants a backend tried before its time."""
    if event.data["action"] != "probe":
        return
    name = event.data["backend"] or ""
    pool = state["pool_of"].get(name, name)
    if (known := state["pools"].get(pool)) is not None and known["state"] != "available":
        known["asked"] = event.at
    for scope in (pool_scope(pool), backend_scope(name)):
        if (breaker := state["breakers"].get(scope)) is not None and breaker["opened"] is not None:
            breaker["asked"] = event.at


HANDLERS: Handlers = {
    "loop.configured": configured,
    "backend.limited": limited,
    "backend.probed": changed,
    "backend.restored": changed,
    "session.requested": requested,
    "session.started": started,
    "session.ended": ended,
    "session.spawn_failed": ended,
    "session.lost": ended,
    "operator.requested": asked,
}
