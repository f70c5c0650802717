"""What each category really got: sessions started and the minutes they ran, by the hour in which they started.

A session that ended `limited` or `refused` got nothing, so its start is taken back.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, Hours, bucket, keep_exact

UNUSED = frozenset({"limited", "refused"})


class Allocation(TypedDict):
    hours: Hours  # hour -> category -> [started, seconds]
    exact: list[list[Any]]  # [time, category, session, seconds] of the last starts
    open: dict[str, list[str]]  # live session -> [time of its start, category]
    last_started: dict[str, list[Any]]  # category -> [time, total when it started]
    total: int  # starts since the beginning


def initial() -> Allocation:
    return Allocation(hours={}, exact=[], open={}, last_started={}, total=0)


def started(state: Allocation, event: Event) -> None:
    assert event.session is not None
    assert event.category is not None
    cell = bucket(state["hours"], event.at, dict).setdefault(event.category, [0, 0.0])
    cell[0] += 1
    state["total"] += 1
    state["open"][event.session] = [event.at, event.category]
    state["last_started"][event.category] = [event.at, state["total"]]
    keep_exact(state["exact"], [event.at, event.category, event.session, 0.0])


def ended(state: Allocation, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    at, category = opened
    seconds = event.data.get("seconds") or 0.0
    unused = event.data.get("outcome") in UNUSED
    cell = state["hours"].get(at[:13], {}).get(category)
    if cell is not None:
        cell[0] -= unused
        cell[1] += seconds
    state["total"] -= unused
    exact = state["exact"]
    for index in reversed(range(len(exact))):  # from the newest: whoever ends now started lately
        if exact[index][2] == event.session:
            if unused:
                del exact[index]
            else:
                exact[index][3] = seconds
            break


HANDLERS: Handlers = {
    "session.started": started,
    "session.ended": ended,
    "session.lost": ended,
}
