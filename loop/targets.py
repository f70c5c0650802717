"""Targets as the config states them: normalised, and whether these slots, lanes and locks can meet them.

Before anything has run nobody knows how long sessions last, so all is said for sessions that last equally long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from loop.config import Config
from loop.shares import UNIT, Member, feasible

NEAR = Fraction(1, 200)  # half a percent of all starts: no difference worth a word
STRICT = 1.5  # below this ratio a cap leaves slots idle that nobody else could use, and from LOOSE on it allows
LOOSE = 2.0  # what `status` calls a problem


@dataclass(frozen=True, slots=True)
class Target:
    """A category's share of the starts, 0..1: as stated and normalised (None: it has none), and the nearest to it that
    can come about with all slots busy (None where only starts by hand are)."""

    name: str
    target: float | None
    feasible: float | None


def targets(config: Config) -> list[Target]:
    """Every category's target; empty where none has one."""
    wanted = _normalised(config)
    if not wanted:
        return []
    possible = _feasible(config, wanted)
    return [
        Target(
            name,
            float(wanted[name]) if name in wanted else None,
            float(possible[name]) if name in possible else None,
        )
        for name in config.categories
    ]


def about_targets(config: Config) -> Iterator[str]:
    """Warnings: targets read otherwise than written, those that cannot be met and why, caps that do not cap."""
    wanted = _normalised(config)
    yield from _about_reading(config, wanted)
    yield from _about_cap(config, wanted)
    possible = _feasible(config, wanted) if wanted else {}
    for name, share in wanted.items():
        if not config.categories[name].parallel:
            if share:
                yield f"categories.{name}.target: parallel = false, so it gets starts only by hand: loop start {name}"
        elif share - possible[name] > NEAR:
            yield _unmet(config, name, share, possible)
    yield from _about_locks(config, wanted)


def _normalised(config: Config) -> dict[str, Fraction]:
    stated = {name: Fraction(each.target) for name, each in config.categories.items() if each.target is not None}
    whole = sum(stated.values())
    return {name: share / whole for name, share in stated.items()} if whole else {}


def _feasible(config: Config, wanted: Mapping[str, Fraction]) -> dict[str, Fraction]:
    members = {
        name: Member(round(wanted.get(name, Fraction()) * UNIT), category.lanes, 1)
        for name, category in config.categories.items()
        if category.parallel
    }
    return {name: Fraction(share, UNIT) for name, share in feasible(members, config.loop.slots).items()}


def _unmet(config: Config, name: str, share: Fraction, possible: Mapping[str, Fraction]) -> str:
    slots, lanes = config.loop.slots, config.categories[name].lanes
    count = "1 lane" if lanes == 1 else f"{lanes} lanes"
    all_lanes = sum(config.categories[each].lanes for each in possible)
    if all_lanes <= slots:
        why = f"{slots} slots are enough for all {all_lanes} lanes to run all the time"
    else:
        why = f"it needs {float(share * slots):.1f} of {slots} slots all the time, and has {count}"
    mend = f"lanes = {ceil(share * slots)} would do, where its sessions can run side by side"
    return (
        f"categories.{name}.target: {_percent(share)} cannot be met while all slots are busy: {why}; feasible is "
        f"{_percent(possible[name])}, if sessions last equally long; {mend}"
    )


def _about_reading(config: Config, wanted: Mapping[str, Fraction]) -> Iterator[str]:
    stated = [category.target for category in config.categories.values() if category.target is not None]
    total = sum(stated)
    if stated and abs(total - 1) > 0.005:
        yield f"categories.*.target: the targets sum to {total:.2f}; they are read as shares of that sum"
    without = [name for name, each in config.categories.items() if each.target is None and each.parallel]
    if wanted and without:
        names = ", ".join(without[:4]) + (f" and {len(without) - 4} more" if len(without) > 4 else "")
        fair = "; under policy fair they come last" if config.loop.policy == "fair" else ""
        yield f"categories.*.target: {names}: without a target beside others that have one, so nothing is owed{fair}"


def _about_cap(config: Config, wanted: Mapping[str, Fraction]) -> Iterator[str]:
    ratio = config.allocation.max_ratio
    if ratio is None:
        return
    if not wanted:
        yield "allocation.max_ratio: no category has a target, so it caps nothing"
    elif ratio < STRICT:
        yield f"allocation.max_ratio: {ratio:g} is strict: slots stay idle while others run; {STRICT} to 1.75 is usual"
    elif ratio >= LOOSE:
        yield f"allocation.max_ratio: {ratio:g} allows what status calls over-allocated, more than {LOOSE:g} times"


def _about_locks(config: Config, wanted: Mapping[str, Fraction]) -> Iterator[str]:
    """Categories that share a key run one at a time, however many lanes they have."""
    holders: dict[str, list[str]] = {}
    for name, category in config.categories.items():
        for key in category.locks if category.parallel else ():
            holders.setdefault(key, []).append(name)
    slots = config.loop.slots
    for key, names in holders.items():
        share = sum((wanted.get(name, Fraction()) for name in names), Fraction())
        if len(names) > 1 and share - Fraction(1, slots) > NEAR:
            yield (
                f"categories.*.locks: {', '.join(names)} share {key} and run one at a time: of {slots} busy slots "
                f"that is {_percent(Fraction(1, slots))}, and their targets come to {_percent(share)}"
            )


def _percent(share: Fraction) -> str:
    return f"{float(share):.0%}".replace("%", " %")
