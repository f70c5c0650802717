"""The terms of a category's score: each a pure function of its standing, in a fixed range, with a weight of its own.

A score is the sum of weight x value over TERMS, lifted by `base` so that whoever has work is always above zero: a
selector that leaves a lane out idles a slot, and only an empty lane deserves that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

NEGLECT = 3.0  # starts owed from which neglect is full; `status` calls a category neglected from there on
CROWDED, STARVED = 0.4, 0.05  # shares of the window above and under which there is a plateau
NUDGE = 0.25  # what a saturated plateau detector still says
RECENT = (0.5, 1.0, 1.5, 2.0)  # what the last starts count for, newest last
BELIEF = 5.0  # grades' worth of belief that a category is of middling grade
FEW = 2.0  # tasks at which supply is half full


class Standing(NamedTuple):
    """What a category's score rests on. Shares are 0..1, all over the allocation window."""

    category: str
    target: float | None = None
    """Its share of the starts, normalised over the categories that may start; None: no target anywhere."""
    share: float = 0.0
    recent: tuple[bool, ...] = ()
    """Of the last starts, newest last: whether they were its own."""
    gap: int = 0
    """Starts of all since its own last one."""
    grade: float = 0.0
    graded: float = 0.0
    """Its discounted mean grade, and how many grades that is worth; (0, 0): no data."""
    ready: int = 0
    """Tasks on offer under its own name, or what its gate vouches for."""
    aliased: int = 0
    """Tasks on offer that came by an alias."""
    plateau: int = 0
    """-1: it crowds out others; 1: it is crowded out; 0: neither."""
    saturated: bool = False
    tilt: float = 1.0
    """What outcomes make of its weight, 0.5..1.5; 1 where learning is off."""
    room: bool = True
    """Whether one more start stays within `allocation.max_ratio`."""

    @property
    def over(self) -> bool:
        """Whether it had more than its target's share: then nothing boosts it."""
        return self.target is not None and self.share > self.target


def recency(standing: Standing) -> float:
    """-1 (the last starts were all its own) to 0 (none was); what its target lets one expect is no fault."""
    full = sum(RECENT)
    own = sum(weight for weight, mine in zip(reversed(RECENT), reversed(standing.recent), strict=False) if mine) / full
    return -max(0.0, own - (standing.target or 0.0))


def gap(standing: Standing) -> float:
    """1 (had nothing) over 0 (had its target's share) to -2 (had three times it and more)."""
    if not standing.target:
        return 0.0 if standing.target is None else -2.0
    return max(-2.0, (standing.target - standing.share) / standing.target)


def neglect(standing: Standing) -> float:
    """0 to 1: starts owed since its last one, of NEGLECT; 0 for one that is over its target."""
    return 0.0 if standing.over else min(1.0, standing.gap * (standing.target or 0.0) / NEGLECT)


def grades(standing: Standing) -> float:
    """-1 to 1: its mean grade about 0.5, drawn towards 0 while there are few; 0 without data."""
    return (2 * standing.grade - 1) * standing.graded / (standing.graded + BELIEF)


def supply(standing: Standing) -> float:
    """0 (nothing known) towards 1 (many tasks). What comes by an alias is no boost to one that is over its target."""
    tasks = standing.ready + (0 if standing.over else standing.aliased)
    return tasks / (tasks + FEW)


def plateau(standing: Standing) -> float:
    """-1 for what crowds out others, 1 for what is crowded out; a quarter of it from a saturated detector."""
    value = 0 if standing.plateau > 0 and standing.over else standing.plateau
    return value * (NUDGE if standing.saturated else 1.0)


def learned(standing: Standing) -> float:
    """-0.5 to 0.5: the tilt less 1. Beside `gap`, under the same weight, it is a target multiplied by the tilt.

    It lifts nobody past the cap, nor an over-represented one.
    """
    value = standing.tilt - 1
    return value if standing.room and not standing.over else min(0.0, value)


TERMS: Mapping[str, Callable[[Standing], float]] = {
    "recency": recency,
    "gap": gap,
    "neglect": neglect,
    "grades": grades,
    "supply": supply,
    "plateau": plateau,
    "learned": learned,
}
WEIGHTS: Mapping[str, float] = {
    "recency": 1.0, "gap": 3.0, "neglect": 2.0, "grades": 1.0, "supply": 1.0, "plateau": 2.0, "learned": 3.0,
}  # fmt: skip
LOWEST: Mapping[str, float] = {
    "recency": -1.0, "gap": -2.0, "neglect": 0.0, "grades": -1.0, "supply": 0.0, "plateau": -1.0, "learned": -0.5,
}  # fmt: skip


class Term(NamedTuple):
    """One line of a score: what the function said, what that is worth, and the points that come of it."""

    name: str
    value: float
    weight: float

    @property
    def points(self) -> float:
        return self.value * self.weight


def effective(weights: Mapping[str, float]) -> dict[str, float]:
    """The weight of every term: what the config says, else the default."""
    return {name: weights.get(name, default) for name, default in WEIGHTS.items()}


def base(weights: Mapping[str, float]) -> float:
    """What lifts the lowest possible score to 1."""
    return 1 - sum(weight * LOWEST[name] for name, weight in effective(weights).items())


def terms(standing: Standing, weights: Mapping[str, float]) -> tuple[Term, ...]:
    """Every term of a category's score, in the order of TERMS; `weights` are those that differ from WEIGHTS."""
    full = effective(weights)
    # + 0.0 because a term that says nothing is no negative zero
    return tuple(Term(name, round(function(standing), 6) + 0.0, full[name]) for name, function in TERMS.items())


def score(lines: tuple[Term, ...], weights: Mapping[str, float]) -> float:
    """The score that its terms come to, to four places: at least 1."""
    return round(base(weights) + sum(term.points for term in lines), 4)
