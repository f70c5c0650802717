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
    hours, sum = state["hours"], state["sum"]
    if sum is not None:
        if event.at[:13] not in hours:
            window.move(sum, hours, event.at)
        window.add(sum, event.at[:13], event.category, 1, 0)
    cell = bucket(hours, event.at, dict).setdefault(event.category, [0, 0])
    cell[0] += 1
    state["total"] += 1
    state["open"][event.session] = [event.at, event.category]
    state["last_started"][event.category] = [event.at, state["total"]]
    keep_exact(state["exact"], [event.at, event.category, event.session, 0])


def ended(state: Allocation, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    at, category = opened
    micros = round((event.data.get("seconds") or 0) * 1_000_000)
    unused = event.data.get("outcome") in UNUSED
    cell = state["hours"].get(at[:13], {}).get(category)
    if cell is not None:
        cell[0] -= unused
        cell[1] += micros
        if state["sum"] is not None:
            window.add(state["sum"], at[:13], category, -unused, micros)
    state["total"] -= unused
    exact = state["exact"]
    for index in reversed(range(len(exact))):  # from the newest: whoever ends now started lately
        if exact[index][2] == event.session:
            if unused:
                del exact[index]
            else:
                exact[index][3] = micros
            break


HANDLERS: Handlers = {
    "loop.configured": configured,
    "session.started": started,
    "session.ended": ended,
    "session.lost": ended,
}
