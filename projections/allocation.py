"""What each category really got: sessions started and the time they ran, by the hour in which they started.

Times are whole microseconds, so that no sum depends on its order. A session that ended `limited` or `refused` got
nothing, so its start is taken back.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections import window
from projections.fold import EXACT, Handlers, Hours, bucket, keep_exact

UNUSED = frozenset({"limited", "refused"})
MOST = 10**13  # microseconds that one session counts for; sums of them must stay numbers of 64 bits


class Allocation(TypedDict):
    hours: Hours  # hour -> category -> [started, microseconds]
    sum: window.Sum | None  # of the hours in the allocation window; None where that is counted from exact starts
    exact: list[list[Any]]  # [time, category, session, microseconds] of the last starts
    open: dict[str, list[str]]  # live session -> [time of its start, category]
    last_started: dict[str, list[Any]]  # category -> [time, total when it started]
    total: int  # starts since the beginning


def initial() -> Allocation:
    return Allocation(hours={}, sum=None, exact=[], open={}, last_started={}, total=0)


def configured(state: Allocation, event: Event) -> None:
    length = round(event.data["window"] * 1_000_000)
    state["sum"] = window.begin(state["hours"], event.at, length) if length > EXACT else None


def started(state: Allocation, event: Event) -> None:
    assert event.session is not None
    assert event.category is not None
    at, category, hours, sum = event.at, event.category, state["hours"], state["sum"]
    if sum is not None:
        hour = at[:13]
        if hour not in hours:
            window.move(sum, hours, at)
        window.add(sum, hour, category, 1, 0)
    cell = bucket(hours, at, dict).setdefault(category, [0, 0])
    cell[0] += 1
    state["total"] += 1
    state["open"][event.session] = [at, category]
    state["last_started"][category] = [at, state["total"]]
    keep_exact(state["exact"], [at, category, event.session, 0])


def ended(state: Allocation, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    at, category = opened
    session, data, hour = event.session, event.data, at[:13]
    micros = round(min((data.get("seconds") or 0) * 1_000_000, MOST))
    unused = data.get("outcome") in UNUSED
    if (cells := state["hours"].get(hour)) is not None and category in cells:
        cell, sum = cells[category], state["sum"]
        cell[0] -= unused
        cell[1] += micros
        if sum is not None:
            window.add(sum, hour, category, -unused, micros)
    state["total"] -= unused
    for item in reversed(state["exact"]):  # from the newest: whoever ends now started lately
        if item[2] == session:
            item[3] = micros
            if unused:
                state["exact"].remove(item)
            break


HANDLERS: Handlers = {
    "loop.configured": configured,
    "session.started": started,
    "session.ended": ended,
    "session.lost": ended,
}
