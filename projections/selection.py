"""The selector's last answer, and how much of what it asked for really started.

`granted` counts confirmed starts among the first k of the unfiltered ranking, of k, at each fire (k: the free slots or
the ranking's length, whichever is less; at a rejected fire the free slots, with none granted). `followed` counts the
starts that came from a ranking, of all but respawns and starts by hand. `lost` counts starts that no ranking asked for.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, Hours, bucket, keep_recent

RANKED_RULES = frozenset({"selected", "diversity_alternatives", "alternatives", "all_scores"})
UNJUDGED_RULES = frozenset({"respawn", "manual"})
PENDING_KEPT = 64


class Answer(TypedDict):
    position: int
    at: str
    tick: str | None
    tier: int | None
    source: str
    rejected: bool
    reason: str | None
    keys: list[str]
    ranking: list[dict[str, Any]]  # category, rule, task, score
    used: list[str]  # categories that were given a session on its strength


class Selection(TypedDict):
    last: Answer | None
    hours: Hours  # hour -> granted, granted_of, followed, followed_of, lost, rules
    pending: list[list[Any]]  # [pass, time of its decision, categories wanted and not yet started]
    open: dict[str, list[Any]]  # session requested and not yet started -> [rule, pass, answer it used up or None]


def initial() -> Selection:
    return Selection(last=None, hours={}, pending=[], open={})


def _new_hour() -> dict[str, Any]:
    return {"granted": 0, "granted_of": 0, "followed": 0, "followed_of": 0, "lost": 0, "rules": {}}


def made(state: Selection, event: Event) -> None:
    data = event.data
    state["last"] = Answer(
        position=event.position,
        at=event.at,
        tick=event.tick,
        tier=data["tier"],
        source=data["source"],
        rejected=False,
        reason=None,
        keys=[],
        ranking=data["ranking"],
        used=[],
    )


def rejected(state: Selection, event: Event) -> None:
    data = event.data
    state["last"] = Answer(
        position=event.position,
        at=event.at,
        tick=event.tick,
        tier=None,
        source=data["source"],
        rejected=True,
        reason=data["reason"],
        keys=data["keys"],
        ranking=[],
        used=[],
    )


def decided(state: Selection, event: Event) -> None:
    last = state["last"]
    if last is None or last["tick"] != event.tick:
        return  # no fire: nothing was asked
    free = event.data["slots"]["free"]
    wanted = [entry["category"] for entry in last["ranking"][:free]]
    cell = bucket(state["hours"], event.at, _new_hour)
    cell["granted_of"] += free if last["rejected"] else len(wanted)
    if wanted:
        keep_recent(state["pending"], [event.tick, event.at, wanted], PENDING_KEPT)


def requested(state: Selection, event: Event) -> None:
    rule, last = event.data["rule"], state["last"]
    uses = last is not None and rule not in UNJUDGED_RULES and event.category not in last["used"]
    state["open"][event.session or ""] = [rule, event.tick, last["position"] if last is not None and uses else None]
    if last is not None and uses:
        last["used"].append(event.category or "")


def started(state: Selection, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    rule, tick, _ = opened
    for pending_tick, at, wanted in state["pending"]:
        if pending_tick == tick and event.category in wanted:
            wanted.remove(event.category)
            bucket(state["hours"], at, _new_hour)["granted"] += 1
    cell = bucket(state["hours"], event.at, _new_hour)
    cell["rules"][rule] = cell["rules"].get(rule, 0) + 1
    if rule not in UNJUDGED_RULES:
        cell["followed_of"] += 1
        cell["followed"] += rule in RANKED_RULES
        cell["lost"] += rule not in RANKED_RULES


def ended(state: Selection, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    last = state["last"]
    if opened is None or last is None or event.data.get("code") != "voided":
        return
    if opened[2] == last["position"]:
        last["used"].remove(event.category or "")  # it never had its chance on this answer


HANDLERS: Handlers = {
    "selection.made": made,
    "selection.rejected": rejected,
    "fanout.decided": decided,
    "session.requested": requested,
    "session.started": started,
    "session.spawn_failed": ended,
    "session.lost": ended,
    "session.ended": ended,
}
