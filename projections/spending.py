"""What sessions cost, by the hour in which they were granted and by whom it is to be paid: category, backend, pool.

A grant takes a run at once, and its tokens and money are open until its end tells them. What an end does not tell is
counted as *unknown*, never as zero. Money is in whole millionths of a US dollar, so that no sum depends on its order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from events.envelope import Event
from projections.backends import is_backends_failure
from projections.fold import Handlers, Hours, bucket

KEPT = 30  # hours with a grant in them; a rolling day touches 25
MICRO = 1_000_000
MOST = 10**13  # of one session: what it tells is hostile input, and sums of it must stay numbers of 64 bits
TURNED_AWAY = frozenset({"limited", "refused"})  # outcomes that the category has not to answer for
INPUT, OUTPUT, WRITTEN = "input_tokens", "output_tokens", "cache_write_tokens"

RUNS, TOKENS_KNOWN, TOKENS, TOKENS_UNKNOWN, COST_KNOWN, COST, COST_UNKNOWN = range(7)
"""Places in a cell: runs; sessions that told their tokens, the tokens, sessions that did not; the same for money."""


class Spending(TypedDict):
    hours: Hours  # hour -> "category:code", "backend:opus" or "pool:max" -> a cell
    live: dict[str, list[Any]]  # session -> [hour of its grant, its scopes]


def initial() -> Spending:
    return Spending(hours={}, live={})


def tokens_of(usage: Mapping[str, Any] | None) -> int | None:
    """The tokens that a session says it used; None: it does not say. What it only read again from a cache is none."""
    if usage is None:
        return None
    if usage.get("tokens") is not None:
        return min(int(usage["tokens"]), MOST)
    if usage.get(INPUT) is None or usage.get(OUTPUT) is None:
        return None
    return min(int(usage[INPUT] + usage[OUTPUT] + (usage.get(WRITTEN) or 0)), MOST)


def cost_of(usage: Mapping[str, Any] | None) -> int | None:
    """The millionths of a dollar that a session says it cost; None: it does not say."""
    if usage is None:
        return None
    if usage.get("cost_micros") is not None:
        return min(int(usage["cost_micros"]), MOST)
    return None if usage.get("cost_usd") is None else int(min(usage["cost_usd"] * MICRO + 0.5, MOST))


def scopes_of(requested: Event) -> list[str]:
    """Who pays for a session, by its `session.requested`."""
    data = requested.data
    return [f"category:{requested.category}", f"backend:{data['backend']}", f"pool:{data['pool']}"]


def requested(state: Spending, event: Event) -> None:
    scopes = scopes_of(event)
    cells = bucket(state["hours"], event.at, dict, KEPT)
    for scope in scopes:
        if scope not in cells:
            cells[scope] = [0] * 7
        cells[scope][RUNS] += 1
    state["live"][event.session or ""] = [event.at[:13], scopes]


def never_ran(state: Spending, event: Event) -> None:
    for _, cell in _settled(state, event):
        cell[RUNS] -= 1


def ended(state: Spending, event: Event) -> None:
    data = event.data
    usage = data.get("usage")
    tokens, cost = tokens_of(usage), cost_of(usage)
    excused = data.get("outcome") in TURNED_AWAY or is_backends_failure(data.get("reason"))
    for scope, cell in _settled(state, event):
        pardoned = excused and scope.startswith("category:")
        if pardoned:
            cell[RUNS] -= 1
        if tokens is not None:
            cell[TOKENS_KNOWN] += 1
            cell[TOKENS] += tokens
        elif not pardoned:
            cell[TOKENS_UNKNOWN] += 1
        if cost is not None:
            cell[COST_KNOWN] += 1
            cell[COST] += cost
        elif not pardoned:
            cell[COST_UNKNOWN] += 1


def _settled(state: Spending, event: Event) -> list[tuple[str, list[int]]]:
    """The cells of a session that is over; none where its hour is no longer kept."""
    hour, scopes = state["live"].pop(event.session or "", ("", ()))
    cells = state["hours"].get(hour, {})
    return [(scope, cells[scope]) for scope in scopes if scope in cells]


HANDLERS: Handlers = {
    "session.requested": requested,
    "session.spawn_failed": never_ran,
    "session.ended": ended,
    "session.lost": ended,
}
