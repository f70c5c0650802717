"""Which backends take sessions at an instant: limits and breakers, settled at `now`. State has the facts.

Whatever was closed is *half-open* once its time has come: it takes one session, the probe, and nobody else until that
one's end, or until it has run for PROVEN since a quota refuses at once. Times are microseconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from events.envelope import to_micros
from projections.backends import Backends, Breaker, Pool, backend_scope, pool_scope
from projections.fold import HOUR
from projections.state import State

MINUTE = HOUR // 60
UNKNOWN_LIMIT = HOUR  # how long a pool without a known reset stays closed before one session may try it
RETRY = MINUTE  # how soon after a refusal a pool is tried at the earliest, doubled with each probe that is refused, …
RETRY_LONGEST = HOUR  # … up to this: a reset that was told wrongly must not make a stampede of probes
PROVEN = 5 * MINUTE  # a probe of a limit that has run for so long was not refused
BREAK = 30 * MINUTE  # how long a breaker stays open, doubled with each time in a row, …
LONGEST = 8  # … up to so many times as long
JITTER = 8  # and up to one in so many parts longer, so that not all breakers of a host try at once

Availability = Literal["available", "limited", "unknown"]


class Access(NamedTuple):
    """Whether something takes sessions; `because` (`limited`, `breaker`, `probing`) of what is closed.

    `trial`: the scopes that are half-open, of each of which one session more is the most.
    """

    state: Availability = "available"
    until: int | None = None
    because: str | None = None
    trial: tuple[str, ...] = ()


OPEN = Access()


def access(state: State, config: Mapping[str, Any], now: int) -> dict[str, Access]:
    """Every configured backend's."""
    store = state.control["store"] or ""
    pools: dict[str, Access] = {}
    found = {}
    for name, settings in config["backends"].items():
        pool = settings["pool"]
        if pool not in pools:
            pools[pool] = of_pool(state.backends, pool, now, store)
        breaker = state.backends["breakers"].get(backend_scope(name))
        found[name] = pools[pool]
        if breaker is not None and breaker["opened"] is not None:
            found[name] = _both(pools[pool], _of_breaker(breaker, backend_scope(name), now, store))
    return found


def of_pool(state: Backends, pool: str, now: int, store: str) -> Access:
    """What a pool's limit and its breaker leave open; `store` is the store's id, which the jitter is drawn from."""
    known, breaker = state["pools"].get(pool), state["breakers"].get(pool_scope(pool))
    found = OPEN if known is None else _of_limit(known, pool_scope(pool), now)
    if breaker is not None and breaker["opened"] is not None:
        found = _both(found, _of_breaker(breaker, pool_scope(pool), now, store))
    return found


def is_limited(state: State, pool: str, now: int) -> bool:
    """Whether a pool is closed at `now` for all of its backends; what a notice of it asks."""
    return of_pool(state.backends, pool, now, state.control["store"] or "").state != "available"


def instants(state: State, backend: str) -> Iterator[int]:
    """When a backend's access may change by time alone."""
    store, found = state.control["store"] or "", state.backends
    pool = found["pool_of"].get(backend)
    if pool is None:
        return
    if (known := found["pools"].get(pool)) is not None and known["state"] != "available":
        if known["until"] is not None:
            yield to_micros(known["until"])
        if known["probed"] is not None:
            yield to_micros(known["probed"]) + PROVEN
        yield _limit_over(known)
    for scope in (pool_scope(pool), backend_scope(backend)):
        breaker = found["breakers"].get(scope)
        if breaker is not None and breaker["opened"] is not None:
            yield _breaker_over(breaker, scope, store)


def _of_limit(pool: Pool, scope: str, now: int) -> Access:
    if pool["state"] == "available":
        return OPEN
    if pool["probe"] is not None:
        if pool["probed"] is not None and now >= to_micros(pool["probed"]) + PROVEN:
            return OPEN
        return Access("limited", _ahead(pool["until"], now), "probing")
    over = _limit_over(pool)
    if now >= over:
        return Access(trial=(scope,))
    return Access("unknown", None, "limited") if pool["until"] is None else Access("limited", over, "limited")


def _limit_over(pool: Pool) -> int:
    """When a limit is to be tried."""
    since = to_micros(pool["since"])
    soonest = since + min(RETRY << min(pool["refusals"] - 1, 10), RETRY_LONGEST)
    told = since + UNKNOWN_LIMIT if pool["until"] is None else to_micros(pool["until"])
    over = max(told, soonest)
    return over if pool["asked"] is None else min(over, to_micros(pool["asked"]))


def _of_breaker(breaker: Breaker, scope: str, now: int, store: str) -> Access:
    if breaker["probe"] is not None:
        return Access("limited", None, "probing")
    over = _breaker_over(breaker, scope, store)
    return Access(trial=(scope,)) if now >= over else Access("limited", over, "breaker")


def _breaker_over(breaker: Breaker, scope: str, store: str) -> int:
    """When a breaker half-opens: twice as late with each time in a row, and a little later, by a hash, never by chance:
    whoever folds the same log comes to the same instant."""
    assert breaker["opened"] is not None
    length = BREAK * min(1 << min(breaker["times"] - 1, 10), LONGEST)
    drawn = hashlib.sha256(f"{store}\0{scope}\0{breaker['opened']}".encode()).digest()
    over = to_micros(breaker["opened"]) + length + int.from_bytes(drawn[:8], "big") % (length // JITTER)
    return over if breaker["asked"] is None else min(over, to_micros(breaker["asked"]))


def _ahead(until: str | None, now: int) -> int | None:
    found = None if until is None else to_micros(until)
    return found if found is not None and found > now else None


def _both(one: Access, other: Access) -> Access:
    """What two doors one behind the other leave open."""
    closed = [each for each in (one, other) if each.state != "available"]
    if not closed:
        return Access(trial=(*one.trial, *other.trial))
    if len(closed) == 1:
        return closed[0]
    until = None if one.until is None or other.until is None else max(one.until, other.until)
    state: Availability = "unknown" if "unknown" in (one.state, other.state) else "limited"
    return Access(state, until, one.because)
