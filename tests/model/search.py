"""Breadth-first search of every state that a small model can reach; the first violation has the shortest trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True)
class Found(Generic[S]):
    """`trace` leads to the first violation, by the names of its steps; from `stuck` no way leads to rest."""

    states: int
    violation: str | None
    trace: tuple[str, ...]
    stuck: S | None


def search(
    start: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    violation: Callable[[S], str | None],
    at_rest: Callable[[S], bool],
) -> Found[S]:
    """Visit everything reachable from `start`. Safety first; then whether rest can be reached from everywhere."""
    number = {start: 0}
    order = [start]
    came: list[tuple[int, str]] = [(0, "")]
    into: list[list[int]] = [[]]
    for index, state in enumerate(order):  # grows while it is walked
        if (what := violation(state)) is not None:
            return Found(len(order), what, _trace(came, index), None)
        for name, after in steps(state):
            at = number.get(after)
            if at is None:
                at = number[after] = len(order)
                order.append(after)
                came.append((index, name))
                into.append([])
            into[at].append(index)
    rests = {index for index, state in enumerate(order) if at_rest(state)}
    todo = list(rests)
    while todo:
        new = [index for index in into[todo.pop()] if index not in rests]
        rests.update(new)
        todo += new
    stuck = next((state for index, state in enumerate(order) if index not in rests), None)
    return Found(len(order), None, (), stuck)


def _trace(came: list[tuple[int, str]], index: int) -> tuple[str, ...]:
    steps: list[str] = []
    while index:
        index, name = came[index]
        steps.append(name)
    return tuple(reversed(steps))
