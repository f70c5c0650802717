"""The selector's last answer, and how much of what it asked for really started.

`granted` counts confirmed starts among the first k of the unfiltered ranking, of k, at each fire (k: the free slots or
the ranking's length, whichever is less; at a rejected fire the free slots, with none granted). Each of the k that is
not granted is in `losses` under its reason, so that the sum is always k. `followed` counts the starts that the answer
in force named, of all but respawns and starts by hand; the rule that a session carries is not believed. `lost` counts
the others, and `ignored` those of them that stood beside a readable answer.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, Hours, bucket, hour

RANKED_RULES = frozenset({"selected", "diversity_alternatives", "alternatives", "all_scores"})
UNJUDGED_RULES = frozenset({"respawn", "manual"})
FIRES_KEPT = 64
TAKEN_KEPT = 256  # tasks given out on one answer; only where none comes any more are there so many

GRANTED = "granted"
NOT_STARTED = "not_started"  # chosen, and not even requested
STARTING = "starting"  # requested, and neither started nor over
NOT_CONSIDERED = "not_considered"  # named by the ranking, and no candidate of the decision
REJECTED = "rejected"


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
    taken: dict[str, str]  # task -> the session that had it when the answer came, or was given it since


class Fire(TypedDict):
    """What became of a fire: category -> GRANTED, or why it is not: a verdict, NOT_STARTED, STARTING, how it failed."""

    tick: str | None
    at: str
    wanted: dict[str, str]  # the first k of the ranking
    others: dict[str, str]  # chosen beyond them


class Open(TypedDict):
    rule: str
    tick: str | None
    uses: int | None  # the answer that it used up for its category
    follows: bool
    ignores: bool


class Selection(TypedDict):
    last: Answer | None
    hours: Hours  # hour -> granted, granted_of, losses by reason, followed, followed_of, lost, ignored, rules
    fires: dict[str, Fire]  # by pass, the last fires that wanted or chose anything
    open: dict[str, Open]  # sessions requested and not yet started
    tasks: dict[str, str]  # live session -> its task, where it has one


def initial() -> Selection:
    return Selection(last=None, hours={}, fires={}, open={}, tasks={})


def _new_hour() -> dict[str, Any]:
    counts = dict.fromkeys(("granted", "granted_of", "followed", "followed_of", "lost", "ignored"), 0)
    return {**counts, "losses": {}, "rules": {}}


def made(state: Selection, event: Event) -> None:
    _answer(state, event, rejected=False)


def rejected(state: Selection, event: Event) -> None:
    _answer(state, event, rejected=True)


def _answer(state: Selection, event: Event, *, rejected: bool) -> None:
    data = event.data
    state["last"] = {
        "position": event.position,
        "at": event.at,
        "tick": event.tick,
        "tier": None if rejected else data["tier"],
        "source": data["source"],
        "rejected": rejected,
        "reason": data["reason"] if rejected else None,
        "keys": data["keys"] if rejected else [],
        "ranking": [] if rejected else data["ranking"],
        "used": [],
        "taken": {task: session for session, task in state["tasks"].items()},
    }


def decided(state: Selection, event: Event) -> None:
    last = state["last"]
    if last is None or last["tick"] != event.tick:
        return  # no fire: nothing was asked
    data = event.data
    free = data["slots"]["free"]
    verdicts = {candidate["category"]: candidate["verdict"] for candidate in data["candidates"]}
    cell = bucket(state["hours"], event.at, _new_hour)
    wanted: dict[str, str] = {}
    for entry in last["ranking"][:free]:
        verdict = verdicts.get(entry["category"], NOT_CONSIDERED)
        wanted[entry["category"]] = NOT_STARTED if verdict == "chosen" else verdict
    if last["rejected"]:
        cell["granted_of"] += free
        _count(cell["losses"], REJECTED, free)
    cell["granted_of"] += len(wanted)
    for reason in wanted.values():
        _count(cell["losses"], reason, 1)
    chosen = [choice["category"] for choice in data["chosen"]]
    others = {category: NOT_STARTED for category in chosen if category not in wanted}
    if wanted or others:
        state["fires"][event.tick or ""] = {"tick": event.tick, "at": event.at, "wanted": wanted, "others": others}
        if len(state["fires"]) > FIRES_KEPT:
            del state["fires"][next(iter(state["fires"]))]


def requested(state: Selection, event: Event) -> None:
    rule, last = event.data["rule"], state["last"]
    session, category, task = event.session or "", event.category or "", event.data["task"]
    readable = last is not None and not last["rejected"]
    named = rule in RANKED_RULES  # believed only where no answer was ever recorded that could be compared
    if last is not None:
        named = category in [entry["category"] for entry in last["ranking"]]
    uses = last is not None and rule not in UNJUDGED_RULES and category not in last["used"]
    state["open"][session] = {
        "rule": rule,
        "tick": event.tick,
        "uses": last["position"] if last is not None and uses else None,
        "follows": named,
        "ignores": not named and (readable or rule != "allowlist"),
    }
    if last is not None and uses:
        last["used"].append(category)
    if task:
        state["tasks"][session] = task
        if last is not None:
            last["taken"].pop(task, None)
            last["taken"][task] = session
            if len(last["taken"]) > TAKEN_KEPT:
                del last["taken"][next(iter(last["taken"]))]
    _becomes(state, event.tick, category, STARTING)


def started(state: Selection, event: Event) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    _becomes(state, opened["tick"], event.category or "", GRANTED)
    cell = bucket(state["hours"], event.at, _new_hour)
    _count(cell["rules"], opened["rule"], 1)
    if opened["rule"] not in UNJUDGED_RULES:
        cell["followed_of"] += 1
        cell["followed"] += opened["follows"]
        cell["lost"] += not opened["follows"]
        cell["ignored"] += opened["ignores"]


def ended(state: Selection, event: Event) -> None:
    task = state["tasks"].pop(event.session or "", None)
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    code, last = event.data.get("code"), state["last"]
    _becomes(state, opened["tick"], event.category or "", code or "lost")
    if last is None or code != "voided":
        return
    if opened["uses"] == last["position"]:
        last["used"].remove(event.category or "")  # it never had its chance on this answer
    if task is not None and last["taken"].get(task) == event.session:
        del last["taken"][task]


def _becomes(state: Selection, tick: str | None, category: str, what: str) -> None:
    """Enter what became of a category of a fire; of other passes nothing is kept."""
    fire = state["fires"].get(tick or "")
    if fire is None:
        return
    if category in fire["others"]:
        fire["others"][category] = what
    before = fire["wanted"].get(category, GRANTED)
    if before == GRANTED:
        return
    fire["wanted"][category] = what
    cell = state["hours"].get(hour(fire["at"]))
    if cell is None:
        return  # as old as that is nothing shown any more
    _count(cell["losses"], before, -1)
    if what == GRANTED:
        cell["granted"] += 1
    else:
        _count(cell["losses"], what, 1)


def _count(counts: dict[str, int], name: str, more: int) -> None:
    """Add to a count; one that comes to nothing goes."""
    counts[name] = counts.get(name, 0) + more
    if not counts[name]:
        del counts[name]


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
