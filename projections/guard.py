"""What the storm guard goes by: how the last sessions ended since a freeze was lifted, which violations have frozen.

Lifting the freeze of the whole loop begins anew: who does that has seen what led to it. The end of a mere pause says
nothing of the kind, or a nightly `pause` and `resume` would hide any storm.
"""

from __future__ import annotations

from typing import TypedDict

from events.envelope import Event
from projections.fold import Handlers, keep_recent

ENDS_KEPT = 10
FAILED = frozenset({"failed", "timed_out", "stalled"})
UNTRIED = frozenset({"limited", "refused", "cancelled"})  # outcomes of sessions that say nothing of how work goes
NOT_ITS_OWN = frozenset({"cancelled", "voided", "lock_held"})  # ways not to start that are nobody's failure
REBOOT = "reboot"  # a machine that went down took its sessions with it; that is no storm


class End(TypedDict):
    position: int
    session: str
    category: str
    how: str  # an outcome, `lost`, or the code of a start that failed
    failed: bool
    lost: bool


class Guard(TypedDict):
    ends: list[End]  # the last ENDS_KEPT that tell something, since the last freeze of the loop was lifted
    handled: int  # position up to which violations have frozen
    causes: dict[str, str]  # scope -> why it is frozen


def initial() -> Guard:
    return Guard(ends=[], handled=0, causes={})


def ended(state: Guard, event: Event) -> None:
    outcome = event.data["outcome"]
    if outcome not in UNTRIED:
        _end(state, event, outcome, failed=outcome in FAILED)


def spawn_failed(state: Guard, event: Event) -> None:
    if event.data["code"] not in NOT_ITS_OWN:
        _end(state, event, event.data["code"], failed=True)


def lost(state: Guard, event: Event) -> None:
    if event.data["why"] != REBOOT:
        _end(state, event, "lost", failed=True, lost=True)


def _end(state: Guard, event: Event, how: str, *, failed: bool, lost: bool = False) -> None:
    end: End = {
        "position": event.position,
        "session": event.session or "",
        "category": event.category or "",
        "how": how,
        "failed": failed,
        "lost": lost,
    }
    keep_recent(state["ends"], end, ENDS_KEPT)


def frozen(state: Guard, event: Event) -> None:
    because = event.data["because"]
    scope = event.data["scope"]
    state["causes"][scope if event.data["name"] is None else f"{scope}:{event.data['name']}"] = because or ""
    if because == "violation":
        state["handled"] = event.position


def resumed(state: Guard, event: Event) -> None:
    if event.data["scope"] == "all":
        if "all" in state["causes"]:
            state["ends"] = []
        state["causes"] = {}
    else:
        state["causes"].pop(f"{event.data['scope']}:{event.data['name']}", None)


HANDLERS: Handlers = {
    "session.ended": ended,
    "session.spawn_failed": spawn_failed,
    "session.lost": lost,
    "loop.frozen": frozen,
    "loop.resumed": resumed,
}
