"""What every fold shares: the shape of a handler, and windows made of whole UTC hours.

A projection is a dict that `initial()` makes and handlers change in place, one per event type. It holds facts only,
never anything that time alone would change, and stays bounded however long the log is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from events.envelope import Event, to_micros, to_text

Handler = Callable[[Any, Event], None]
Handlers = Mapping[str, Handler]

HOUR = 3_600_000_000  # microseconds
EXACT = 2 * HOUR  # windows up to this long are counted from exact starts, longer ones from whole hours
HOURS_KEPT = 192  # hours with an event in them that a fold keeps: a window of a week, and a day, of unbroken work
EXACT_KEPT = 2_048  # exact starts that a fold keeps
EXACT_HELD = 3 * EXACT  # and for how long: a clock that was set back by hours still finds what it asks for
RECENT = 20  # ends and assessments that a fold keeps

Hours = dict[str, Any]
T = TypeVar("T")


def hour(at: str) -> str:
    """The UTC hour of a stored time, as text that sorts: `2026-11-23T14`."""
    return at[:13]


def bucket(hours: Hours, at: str, new: Callable[[], Any], kept: int | None = None) -> Any:
    """The bucket of the hour of `at`, made by `new` where it is the hour's first; of more than `kept` (HOURS_KEPT) the
    first made goes.

    Not the earliest: where the clock was set back that would be the very bucket just made.
    """
    key = at[:13]
    found = hours.get(key)
    if found is None:
        found = hours[key] = new()
        if len(hours) > (HOURS_KEPT if kept is None else kept):
            del hours[next(iter(hours))]
    return found


def first_hour(now: int, window: int) -> str:
    """The oldest hour that a window of `window` microseconds before `now` touches."""
    return _hour_text(max(0, now - window) // HOUR)


def hours_between(hours: Hours, first: str, before: str) -> list[str]:
    """The hours with a bucket from `first` on that are before `before`: looked up where those are few, as they are but
    where the clock was set."""
    if before <= first:
        return []
    begin, end = (to_micros(f"{each}:00:00.000000Z") // HOUR for each in (first, before))
    if end - begin > len(hours):
        return [each for each in hours if first <= each < before]
    return [each for each in map(_hour_text, range(begin, end)) if each in hours]


def hours_touched(now: int, window: int) -> Iterator[str]:
    """Every hour that such a window touches; fewer than the hours kept, for windows of some days."""
    return map(_hour_text, range(max(0, now - window) // HOUR, now // HOUR + 1))


@lru_cache(1_024)  # a pass asks for those of a day, and the next pass for the same
def _hour_text(index: int) -> str:
    return to_text(index * HOUR)[:13]


def truncated(hours: Hours, now: int, window: int) -> bool:
    """Whether the window begins before the first hour that the fold still has."""
    return len(hours) >= HOURS_KEPT and next(iter(hours)) > first_hour(now, window)


def keep_exact(items: list[list[Any]], item: list[Any]) -> None:
    """Append `[time, …]` to a list of exact starts that keeps those of EXACT_HELD, and EXACT_KEPT at most.

    What is older goes when an hour begins, so that a quiet loop's state does not carry what no window will ask for.
    """
    at = item[0]
    if items and items[-1][0][:13] != at[:13]:
        oldest = to_text(max(0, to_micros(at) - EXACT_HELD))
        items[:] = [kept for kept in items if kept[0] > oldest]
    items.append(item)
    if len(items) > EXACT_KEPT:
        del items[0]


def keep_recent(items: list[T], item: T, limit: int) -> None:
    """Append to a list that holds the last `limit` items."""
    items.append(item)
    if len(items) > limit:
        del items[0]
