"""From a view and the lanes of the task files to an answer: who is offered, scored how, and by which tier first.

Pure. Tier 1 is an active task, tier 2 ready backlog, tier 3 a category by its score alone. A tier only decides who
comes first; behind it the order is by score, ties: the older last start, then the name.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from loop.cascade.tasks import Lane
from loop.cascade.terms import CROWDED, STARVED, Standing, Term, score, terms
from projections.view import PPM, Category, View

SAMPLE = 10  # starts in the window under which no share is a plateau
WINDOWS = 6  # answers under which no detector is saturated
SATURATED = 3  # … which is one that was active in more than one in so many


class Scored(NamedTuple):
    """A category on offer with its score, term by term, and its next task."""

    category: str
    score: float
    terms: tuple[Term, ...]
    task: str | None
    active: bool


class Answer(NamedTuple):
    """Best first, the tier's choice in front; `empty` are the categories that need supply, and why."""

    tier: int
    ranked: tuple[Scored, ...]
    empty: Mapping[str, str]
    plateau: str | None
    saturated: bool


def answer(view: View, lanes: Mapping[str, Lane], weights: Mapping[str, float], *, learn: bool) -> Answer:
    """The built-in selector's answer to what is known; the same for the same arguments."""
    mine = {name: each for name, each in view.categories.items() if each.parallel is not False}
    empty = {name: why for name, each in mine.items() if (why := _empty(each, lanes.get(name)))}
    shares = _shares(mine)
    wanted = _targets(mine)
    crowding = _crowding(mine, shares, wanted, empty)
    saturated = is_saturated(view.past.windows)
    found = []
    for name, each in mine.items():
        if name in empty:
            continue
        standing = _standing(
            view, each, lanes.get(name, Lane()), shares, wanted, crowding, saturated=saturated, learn=learn
        )
        lines = terms(standing, weights)
        lane = lanes.get(name, Lane())
        found.append(Scored(name, score(lines, weights), lines, lane.active or lane.backlog, lane.active is not None))
    found.sort(key=lambda each: (-each.score, _last(mine[each.category]), each.category))
    tier, first = _first(found, crowding)
    if first is not None:
        found.remove(first)
        found.insert(0, first)
    plateau = next((name for name, sign in crowding.items() if sign < 0), None)
    return Answer(tier, tuple(found), empty, plateau, saturated)


def is_saturated(windows: Sequence[bool]) -> bool:
    """Whether a plateau was seen in more than a third of the last answers: then it says little."""
    return len(windows) >= WINDOWS and sum(windows) * SATURATED > len(windows)


def withheld(view: View) -> set[str]:
    """The tasks that nobody is to be given: a live session has them, or found them blocked lately."""
    held = {session["task"] for session in view.live.values()}
    waits = {each.wait.task for each in view.categories.values() if each.wait is not None}
    return (held | waits | view.past.blocked) - {""}


def _first(found: Sequence[Scored], crowding: Mapping[str, int]) -> tuple[int, Scored | None]:
    """(tier, who comes first). Whoever has the best score and is wholly neglected goes before any task at hand."""
    if not found:
        return 3, None
    neglected = next(term.value for term in found[0].terms if term.name == "neglect") >= 1
    if neglected and found[0].task is None:
        return 3, found[0]
    if neglected:
        return (1 if found[0].active else 2), found[0]
    for each in found:
        if each.active and crowding.get(each.category, 0) >= 0:
            return 1, each
    for each in found:
        if each.task is not None and crowding.get(each.category, 0) >= 0:
            return 2, each
    return 3, found[0]


def _empty(category: Category, lane: Lane | None) -> str | None:
    """Why a category has nothing to work on; None: it has, or nobody knows.

    Where there is a gate, files do not say that it has none: the gate is asked in the same pass.
    """
    if category.gate is not None and category.gate.answer == "no_work":
        return "its gate has no work"
    if lane is not None and lane.ready + lane.aliased > 0:
        return None
    if category.wait is not None:
        return "its last session found it blocked, and no other task is ready"
    if lane is None or category.gate is not None:
        return None
    if lane.held:
        return f"none of its open tasks is ready (of {lane.held})"
    return f"all of its tasks are over (of {lane.over})" if lane.over else None


def _shares(categories: Mapping[str, Category]) -> dict[str, float]:
    total = sum(each.started for each in categories.values())
    return {name: each.started / total if total else 0.0 for name, each in categories.items()}


def _targets(categories: Mapping[str, Category]) -> dict[str, float | None]:
    """Targets as shares of 1; equal ones where there are none, as the allowlist has it."""
    stated = {name: each.target for name, each in categories.items() if each.target is not None}
    total = sum(stated.values())
    if not total:
        return {name: 1 / len(categories) for name in categories}
    return {name: stated.get(name, 0) / total for name in categories}


def _crowding(
    categories: Mapping[str, Category],
    shares: Mapping[str, float],
    wanted: Mapping[str, float | None],
    empty: Collection[str],
) -> dict[str, int]:
    """Category -> -1 or 1 where one is above 40 % of the window while another with supply is under 5 %; else empty.

    A target above 40 %, or under 5 %, moves the bound to itself: who does as configured is no alarm.
    """
    if sum(each.started for each in categories.values()) < SAMPLE:
        return {}
    over = [name for name, share in shares.items() if share > max(CROWDED, wanted[name] or 0)]
    under = [name for name, share in shares.items() if share < min(STARVED, wanted[name] or 0) and name not in empty]
    return {**dict.fromkeys(over, -1), **dict.fromkeys(under, 1)} if over and under else {}


def _standing(
    view: View,
    category: Category,
    lane: Lane,
    shares: Mapping[str, float],
    wanted: Mapping[str, float | None],
    crowding: Mapping[str, int],
    *,
    saturated: bool,
    learn: bool,
) -> Standing:
    name, target = category.name, wanted[category.name]
    grade, graded = view.past.grades.get(name, (0.0, 0.0))
    vouched = category.gate is not None and category.gate.answer == "work"
    return Standing(
        category=name,
        target=target,
        share=shares[name],
        recent=tuple(each == name for each in view.past.starts),
        gap=view.past.gaps.get(name, 0),
        grade=grade,
        graded=graded,
        ready=max(lane.ready, 1) if vouched else lane.ready,
        aliased=lane.aliased,
        plateau=crowding.get(name, 0),
        saturated=saturated,
        tilt=view.past.tilt.get(name, 1.0) if learn else 1.0,
        room=_room(view, category, target),
    )


def _room(view: View, category: Category, target: float | None) -> bool:
    if view.max_ratio is None or target is None:
        return True
    total = 1 + sum(each.started for each in view.categories.values())
    return category.started + 1 <= max(1, math.ceil(view.max_ratio / PPM * target * total))


def _last(category: Category) -> int:
    return -1 if category.last_started is None else category.last_started
