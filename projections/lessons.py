"""What the built-in selector looks back on: the last starts and grades, tasks found blocked, its own alarms, the tilt.

The tilt is how far outcomes move a category's weight. It is recomputed at most once in EVERY starts, from graded
sessions only, each older one counting for less, and moves only by steps of at least STEP; so it is a fact of the log,
the same at any past position. Whether it is used at all is the config's word.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, keep_recent

GRADES_KEPT = 20  # per category
BLOCKED_KEPT = 500  # tasks
STARTS_KEPT = 4
WINDOWS_KEPT = 30  # answers of the built-in selector
CATEGORIES_KEPT = 500
EVERY = 50  # starts
STEP = 0.1  # that a tilt must move by to move at all
DISCOUNT = 0.9  # of a grade for each later one of its category
PRIOR = 5.0  # grades' worth of belief that a category is like all others
LOWEST, HIGHEST = 0.5, 1.5

WORTH = list(accumulate([0.0] * GRADES_KEPT, lambda weight, _: weight * DISCOUNT + 1, initial=0.0))
"""How many grades so many of a category are worth, the older ones discounted."""


class Lessons(TypedDict):
    starts: list[str]  # categories of the last starts, newest last
    grades: dict[str, list[list[Any]]]  # category -> [session, grade] of its last graded ones, newest last
    means: dict[str, tuple[float, float]]  # category -> `mean` of these, which every view shows
    windows: list[bool]  # of the built-in selector's last answers: whether it saw a plateau
    tilt: dict[str, float]  # category -> 0.5..1.5; one that is missing is 1
    since: int  # starts since the tilt was recomputed
    tasks: dict[str, str]  # live session -> its task, where it has one
    blocked: dict[str, str]  # task -> when a session last found it blocked, until one is productive on it


def initial() -> Lessons:
    return Lessons(starts=[], grades={}, means={}, windows=[], tilt={}, since=0, tasks={}, blocked={})


def started(state: Lessons, event: Event) -> None:
    keep_recent(state["starts"], event.category or "", STARTS_KEPT)
    state["since"] += 1
    if state["since"] >= EVERY:
        state["since"] = 0
        state["tilt"] = tilted(state["means"], state["tilt"])


def requested(state: Lessons, event: Event) -> None:
    if event.data["task"]:
        state["tasks"][event.session or ""] = event.data["task"]


def ended(state: Lessons, event: Event) -> None:
    """What the session says of its task, or of the one that it did instead."""
    task = state["tasks"].pop(event.session or "", "")
    task, outcome = event.data.get("done_task") or task, event.data.get("outcome")
    if task and outcome in ("blocked", "productive"):
        state["blocked"].pop(task, None)
        if outcome == "blocked":
            state["blocked"][task] = event.at
            if len(state["blocked"]) > BLOCKED_KEPT:
                del state["blocked"][next(iter(state["blocked"]))]
    graded(state, event)


def graded(state: Lessons, event: Event) -> None:
    """A grade given at the end, or later in place of it."""
    grade, session = event.data.get("grade"), event.session or ""
    if grade is None:
        return
    category = event.category or ""
    kept = state["grades"].pop(category, [])
    state["grades"][category] = kept  # the last to be graded is the last to go
    known = [item for item in kept if item[0] == session]
    if known:
        known[0][1] = grade
    else:
        keep_recent(kept, [session, grade], GRADES_KEPT)
    state["means"][category] = mean(kept)
    if len(state["grades"]) > CATEGORIES_KEPT:
        oldest = next(iter(state["grades"]))
        del state["grades"][oldest], state["means"][oldest]


def answered(state: Lessons, event: Event) -> None:
    if event.data["source"] == "builtin":
        keep_recent(state["windows"], event.data.get("plateau") is not None, WINDOWS_KEPT)


def mean(grades: list[list[Any]]) -> tuple[float, float]:
    """(discounted mean grade, how many grades it is worth); (0, 0) of none."""
    total, weight = 0.0, WORTH[len(grades)]
    for _, grade in grades:  # oldest first: Horner's rule
        total = total * DISCOUNT + grade
    return (total / weight, weight) if weight else (0.0, 0.0)


def tilted(means: dict[str, tuple[float, float]], before: dict[str, float]) -> dict[str, float]:
    """The new tilt: each category's mean grade over that of all, shrunk by PRIOR; small moves are none."""
    worth = sum(weight for _, weight in means.values())
    overall = sum(value * weight for value, weight in means.values()) / worth if worth else 0.0
    if overall <= 0:
        return dict(before)
    found = {}
    for name, (value, weight) in sorted(means.items()):
        wanted = (value / overall * weight + PRIOR) / (weight + PRIOR)
        wanted = round(min(HIGHEST, max(LOWEST, wanted)), 3)
        old = before.get(name, 1.0)
        found[name] = wanted if abs(wanted - old) >= STEP else old
    return found


HANDLERS: Handlers = {
    "session.requested": requested,
    "session.started": started,
    "session.spawn_failed": ended,
    "session.lost": ended,
    "session.ended": ended,
    "session.graded": graded,
    "selection.made": answered,
}
