"""Policies: who comes first. Pure functions over the view; the gates of `loop.decider` are the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from projections.view import Category, View


class Asked(Protocol):
    """What a policy sees of a candidate: the rank is the selector's, from 1; `rule` is None where nobody asked; `claim`
    is from the credit ledger under `fair`, and 0 otherwise."""

    @property
    def name(self) -> str: ...
    @property
    def rank(self) -> int | None: ...
    @property
    def rule(self) -> str | None: ...
    @property
    def score(self) -> int | None: ...
    @property
    def claim(self) -> int: ...
    @property
    def last_started(self) -> int | None: ...


AnyAsked = TypeVar("AnyAsked", bound=Asked)


class Policy(Protocol):
    """The candidates of a pass in the order in which they are served: each of `asked` exactly once."""

    def __call__(self, view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]: ...


def intent(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
    """The selector's order: its ranking, then due respawns, then whom nobody asked for."""
    return list(asked)


def fair(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
    """The largest claim first; ties: the older last start, then the name. Whom nobody asked for comes last."""

    def order(each: AnyAsked) -> tuple[bool, int, int, str]:
        return (each.rule is None, -each.claim, -1 if each.last_started is None else each.last_started, each.name)

    return sorted(asked, key=order)


POLICIES: Mapping[str, Policy] = {"intent": intent, "fair": fair}
"""The policies by the names that `loop.policy` and `replay --policy` take; any other name is served like `intent`."""


def targets(categories: list[Category]) -> dict[str, int]:
    """Targets in millionths, normalised over the categories that have one; equal ones where none has."""
    stated = {category.name: category.target or 0 for category in categories if category.target is not None}
    total = sum(stated.values())
    if not total:
        return {category.name: 1_000_000 // len(categories) for category in categories}
    return {
        category.name: stated.get(category.name, 0) * 1_000_000 // total for category in categories
    }


def most_owed(view: View) -> list[str]:
    """The parallel categories, the one furthest behind its target first; ties: the older last start, then the name.

    What a category is owed is its target share of all starts in the window, the next one included, less what it had.
    """
    parallel = [category for category in view.categories.values() if category.parallel is not False]
    if not parallel:
        return []
    shares = targets(parallel)
    following = 1 + sum(category.started for category in parallel)

    def order(category: Category) -> tuple[int, int, str]:
        owed = shares[category.name] * following - category.started * 1_000_000
        return (-owed, -1 if category.last_started is None else category.last_started, category.name)

    return [category.name for category in sorted(parallel, key=order)]
