"""Who takes part in tests/bench/routing.py: the product's policies, and three that are there to be compared with.

These three are of the bench alone: `loop.policy` does not take them. They are policies as `loop.policies` has them:
they order the candidates, and the gates are the same for all. The lottery's luck is seeded in the view, so that it
decides a view the same each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from loop.policies import POLICIES, AnyAsked, Policy
from loop.shares import counted, weights
from projections.view import View


def first_n(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
    """The order of the allowlist, whatever the selector says: the fault this project began with."""
    place = {name: number for number, name in enumerate(view.categories)}
    return sorted(asked, key=lambda each: (each.rule is None, place.get(each.name, len(place))))


def lottery(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
    """Drawn one after the other with the targets as tickets (Waldspurger and Weihl 1994).

    Every name has its own number u, and the largest u ** (1 / weight) comes first, which is the same as such draws
    (Efraimidis and Spirakis 2006). Who weighs nothing comes last.
    """
    weight = weights(view.categories.values())

    def order(each: AnyAsked) -> tuple[bool, float, str]:
        drawn = Random(f"{view.now}/{view.position}/{each.name}").random()
        tickets = weight.get(each.name, 0)
        return (each.rule is None, -(drawn ** (1e6 / tickets)) if tickets else 1.0, each.name)

    return sorted(asked, key=order)


def stride(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
    """The least pass first, a start moving it by 1 / weight (Waldspurger and Weihl 1995).

    The pass before the first start is one stride. It is what the starts of the window make of it, and stays where it
    is while a category has no work or is locked. Who weighs nothing comes last.
    """
    weight = weights(view.categories.values())
    whole = sum(weight.values())

    def order(each: AnyAsked) -> tuple[bool, int, str]:
        category = view.categories.get(each.name)
        if category is None or not weight[each.name]:
            return (each.rule is None, 2**62, each.name)
        return (each.rule is None, (counted(category) + 1) * whole * 10**6 // weight[each.name], each.name)

    return sorted(asked, key=order)


OWN: Mapping[str, Policy] = {"first n": first_n, "lottery": lottery, "stride": stride}


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy with the cap it runs under; None: without one."""

    policy: str
    max_ratio: float | None = None

    @property
    def name(self) -> str:
        return self.policy if self.max_ratio is None else f"{self.policy}, cap {self.max_ratio:g}"

    @property
    def serve(self) -> Policy:
        return {**POLICIES, **OWN}[self.policy]


CONTENDERS = (
    Contender("first n"),
    Contender("lottery"),
    Contender("stride"),
    Contender("intent"),
    Contender("intent", 1.75),
    Contender("fair"),
    Contender("fair", 1.75),
)
