"""The sum over a window of whole hours, kept up while the window moves, so that no pass adds it all up again.

A `Sum` is a fact of the log like the hours themselves: what they come to from `first` on, as of the last event. A view
takes it on to its own instant. All figures are integers, so that taking away gives what the plain sum gives, to the
last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

from events.envelope import to_micros
from projections.fold import HOURS_KEPT, Hours, first_hour, hours_between

Cells = dict[str, list[int]]  # category -> [started, microseconds]


class Sum(TypedDict):
    length: int  # of the window, microseconds
    first: str  # the oldest hour in it
    last: str  # the newest hour that anything was put into
    cells: Cells


def begin(hours: Hours, at: str, length: int) -> Sum:
    """The sum over a window of `length` microseconds before `at`, and over whatever lies behind `at`."""
    first = first_hour(to_micros(at), length)
    return Sum(length=length, first=first, last=max(hours, default=""), cells=plain(_within(hours, first)))


def move(sum: Sum, hours: Hours, at: str) -> None:
    """The hour of `at` is about to be put into `hours`: take away those that leave the window then, or `hours`."""
    first = max(sum["first"], first_hour(to_micros(at), sum["length"]))
    leaving = [hours[hour] for hour in hours_between(hours, sum["first"], first)]
    if len(hours) == HOURS_KEPT and (evicted := next(iter(hours))) >= first:
        leaving.append(hours[evicted])
    _subtract(sum["cells"], leaving)
    sum["first"], sum["last"] = first, max(sum["last"], at[:13])


def add(sum: Sum, hour: str, category: str, started: int, micros: int) -> None:
    """What is added to a category's cell of an hour."""
    if hour >= sum["first"]:
        cell = sum["cells"].setdefault(category, [0, 0])
        cell[0] += started
        cell[1] += micros


def over(hours: Hours, sum: Sum | None, now: int, length: int) -> Cells:
    """The sum over every hour that a window of `length` microseconds before `now` touches, without empty cells."""
    first, last = first_hour(now, length), first_hour(now, 0)
    if sum is None or first < sum["first"] or last < sum["last"]:  # the past, or a longer window
        return plain(_within(hours, first, last))
    cells = {category: cell.copy() for category, cell in sum["cells"].items()}
    if first > sum["first"]:
        _subtract(cells, (hours[hour] for hour in hours_between(hours, sum["first"], first)))
    return _filled(cells)


def plain(parts: Iterable[Cells]) -> Cells:
    """The sum, added up from the beginning, without empty cells."""
    cells: Cells = {}
    for part in parts:
        for category, (started, micros) in part.items():
            cell = cells.setdefault(category, [0, 0])
            cell[0] += started
            cell[1] += micros
    return _filled(cells)


def _within(hours: Hours, first: str, last: str = "~") -> Iterator[Cells]:
    """The cells of the hours from `first` to `last`."""
    return (cells for hour, cells in hours.items() if first <= hour <= last)


def _subtract(cells: Cells, parts: Iterable[Cells]) -> None:
    for part in parts:
        for category, (started, micros) in part.items():
            cell = cells.setdefault(category, [0, 0])
            cell[0] -= started
            cell[1] -= micros
            if not any(cell):
                del cells[category]


def _filled(cells: Cells) -> Cells:
    return {category: cell for category, cell in cells.items() if any(cell)}
