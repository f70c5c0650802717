"""What came of it: the last assessed outcomes, each category's last end, and who has earned a respawn.

Assessed are the outcomes that say something about the work (ASSESSED); the rest is counted beside them.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import RECENT, Handlers, Hours, bucket, keep_recent

ASSESSED = frozenset({"productive", "noop", "blocked", "failed", "timed_out", "stalled"})
DUE_KEPT = 64


class Assessed(TypedDict):
    session: str
    at: str
    outcome: str
    grade: float | None
    unproven_before: int  # unproven ends since the beginning, when this one ended


class LastEnd(TypedDict):
    session: str
    at: str
    outcome: str
    code: str | None
    chain: int


class Due(TypedDict):
    session: str
    category: str
    at: str
    grade: float | None
    chain: int
    to_grade: bool  # a grader is at it: what it earned is known then


class Outcomes(TypedDict):
    assessed: list[Assessed]
    unproven: int
    counts: Hours  # hour -> outcome -> how many
    last: dict[str, LastEnd]  # per category
    due: list[Due]  # productive, proved, not followed by a respawn
    open: dict[str, list[Any]]  # live session -> [chain, rule, what was due and is now served by it]


def initial() -> Outcomes:
    return Outcomes(assessed=[], unproven=0, counts={}, last={}, due=[], open={})


def requested(state: Outcomes, event: Event) -> None:
    data = event.data
    served, parent = None, data["parent"]
    if parent is not None:
        place = next((place for place, due in enumerate(state["due"]) if due["session"] == parent), None)
        served = None if place is None else state["due"].pop(place)
    state["open"][event.session or ""] = [data["chain"], data["rule"], served]


def ended(state: Outcomes, event: Event) -> None:
    data = event.data
    _end(state, event, data["outcome"], data["reason"], data["grade"], data["proved"], data["to_grade"])


def lost(state: Outcomes, event: Event) -> None:
    _end(state, event, "lost", event.data["why"], None, False)


def spawn_failed(state: Outcomes, event: Event) -> None:
    _end(state, event, "refused", event.data["code"], None, False)


def graded(state: Outcomes, event: Event) -> None:
    for item in (*state["assessed"], *state["due"]):
        if item["session"] == event.session:
            item["grade"] = event.data["grade"]
    ungraded(state, event)


def ungraded(state: Outcomes, event: Event) -> None:
    """The grader is done, with a grade or without."""
    for due in state["due"]:
        if due["session"] == event.session:
            due["to_grade"] = False


def _end(
    state: Outcomes,
    event: Event,
    outcome: str,
    code: str | None,
    grade: float | None,
    proved: bool,
    to_grade: bool = False,
) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None:
        return
    chain, rule, served = opened
    session, category = event.session or "", event.category or ""
    counts = bucket(state["counts"], event.at, dict)
    counts[outcome] = counts.get(outcome, 0) + 1
    if outcome in ASSESSED:
        item: Assessed = {
            "session": session,
            "at": event.at,
            "outcome": outcome,
            "grade": grade,
            "unproven_before": state["unproven"],
        }
        keep_recent(state["assessed"], item, RECENT)
    elif outcome == "unproven":
        state["unproven"] += 1
    if code != "voided":
        state["last"][category] = {"session": session, "at": event.at, "outcome": outcome, "code": code, "chain": chain}
    elif served is not None:  # what was voided never was a session: it ends no chain, and what was due still is
        keep_recent(state["due"], served, DUE_KEPT)
    if outcome == "productive" and proved and rule != "allowlist":
        due: Due = {
            "session": session,
            "category": category,
            "at": event.at,
            "grade": grade,
            "chain": chain,
            "to_grade": to_grade,
        }
        keep_recent(state["due"], due, DUE_KEPT)


HANDLERS: Handlers = {
    "session.requested": requested,
    "session.ended": ended,
    "session.lost": lost,
    "session.spawn_failed": spawn_failed,
    "session.graded": graded,
    "session.ungraded": ungraded,
}
