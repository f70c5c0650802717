"""Shares of the starts, in integers: targets as weights, the cap, what lanes make feasible, units divided to the last.

The rules and their sources are explained in docs/allocation.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import lcm
from typing import NamedTuple

from projections.view import Category, View

UNIT = 1_000_000  # what one start is worth; shares and ratios are in millionths too
FINE = 10**12  # rates are rounded down to this part of themselves, and only there


class Member(NamedTuple):
    """Who takes part in a division: its weight, its lanes, how long its sessions last (at least 1 second)."""

    weight: int
    lanes: int
    seconds: int


def weights(categories: Iterable[Category]) -> dict[str, int]:
    """Stated targets as weights, to be read as shares of their sum; a category without one weighs nothing beside those
    that have one. Where none has, all weigh the same."""
    stated = {category.name: category.target or 0 for category in categories}
    return stated if any(stated.values()) else dict.fromkeys(stated, 1)


def most_starts(max_ratio: int, target: int, whole: int, total: int) -> int:
    """The most starts of a category that the cap allows among `total`: max(1, ceil(max_ratio * target * total)).

    `max_ratio` is in millionths; `target` is what the category states, `whole` what all state together.
    """
    return max(1, -(-max_ratio * target * total // (UNIT * whole)))


class Starts(NamedTuple):
    """The starts that the cap counts: those of the window, and those granted and not yet started."""

    total: int
    whole: int
    """The sum of the stated targets."""

    @classmethod
    def of(cls, view: View) -> Starts:
        categories = view.categories.values()
        return cls(sum(map(counted, categories)), sum(category.target or 0 for category in categories))

    def most(self, view: View, category: Category, granted: int = 0) -> int | None:
        """The most starts that the category may have after one more, `granted` having gone before to anybody; None
        where nothing caps it: without a cap, without targets, and for a category that has none."""
        if view.max_ratio is None or category.target is None or not self.whole:
            return None
        return most_starts(view.max_ratio, category.target, self.whole, self.total + granted + 1)


def counted(category: Category) -> int:
    return category.started + category.requested


def apportion(units: int, shares: Mapping[str, int]) -> dict[str, int]:
    """`units`, which may be negative, divided in proportion to `shares` by largest remainder: the parts sum to `units`
    exactly. Ties go to the name that sorts first; shares that are all zero count as equal."""
    whole = sum(shares.values())
    if not whole:
        shares, whole = dict.fromkeys(shares, 1), len(shares)
    size, sign = abs(units), -1 if units < 0 else 1
    parts = {name: size * share // whole for name, share in shares.items()}
    rest = size - sum(parts.values())
    if rest:
        for name in sorted(shares, key=lambda name: (-(size * shares[name] % whole), name))[:rest]:
            parts[name] += 1
    return parts if sign > 0 else {name: -part for name, part in parts.items()}


def feasible(members: Mapping[str, Member], slots: int) -> dict[str, int]:
    """The shares of the starts nearest to the weights that can come about while all slots are busy; they sum to UNIT.

    A category occupies no more slots than it has lanes, and occupies them for as long as its sessions last (Little). So
    its share of the *slots*, weight times seconds, is limited to its lanes, and what it cannot use is divided among the
    others in the same proportion (water-filling). Without more lanes than slots each simply runs all the time.
    """
    if not members:
        return {}
    if sum(member.lanes for member in members.values()) <= slots:
        return apportion(UNIT, {name: member.lanes * FINE // member.seconds for name, member in members.items()})
    wanted = {name: member.weight * member.seconds for name, member in members.items()}
    scale = lcm(*{member.lanes for member in members.values()})
    order = sorted(members, key=lambda name: -wanted[name] * (scale // members[name].lanes))
    left, weight, full = slots, sum(wanted.values()), 0
    for name in order:  # the most wanted a lane first: once one fits, all that follow do
        lanes = members[name].lanes
        if wanted[name] * left <= lanes * weight:
            break
        left, weight, full = left - lanes, weight - wanted[name], full + 1
    filled, others = order[:full], order[full:]
    if weight:
        rates = {name: members[name].weight * left * FINE for name in others}
    else:  # nobody left weighs anything: those who weigh nothing share the rest by their lanes
        weight = sum(members[name].lanes for name in others)
        rates = {name: members[name].lanes * left * FINE // members[name].seconds for name in others}
    rates |= {name: members[name].lanes * weight * FINE // members[name].seconds for name in filled}
    return apportion(UNIT, {name: rates[name] for name in members})
