"""What differs between two status objects: a change per path, lists compared by what their items are about.

A path is written as in an expression where that has the name: `locks["code"].session`, `category["code"].ratio`,
`backend["opus"].state`. An item or key that only one side has is one change, `added` or `removed`, with all of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from events.envelope import to_micros
from events.store import EventLog
from loop.status import status
from projections.state import State

Json = Any
Status = dict[str, Any]

BY_TIME = frozenset({"as_of", "next_fire"})  # what differs between any two instants, or follows the clock alone
SLIDING = frozenset({"sessions.recent", "violations.items"})  # the last few: who leaves them has only been overtaken
UNSAID = frozenset({"schema"})

_KEYS: Mapping[str, Callable[[Mapping[str, Json]], Json]] = {
    "locks": lambda item: item["key"],
    "category": lambda item: item["name"],
    "backend": lambda item: item["name"],
    "sessions.live": lambda item: item["id"],
    "sessions.recent": lambda item: item["id"],
    "violations.items": lambda item: item["position"],
}
_NAMES = {"categories": "category", "backends.items": "backend"}  # as expressions call them
_PLAIN = re.compile(r"[A-Za-z_]\w*")


class Change(NamedTuple):
    """One difference; `kind` is changed, added or removed."""

    path: str
    before: Json
    after: Json
    kind: str

    def as_dict(self) -> dict[str, Json]:
        """CONTRACT's change."""
        return {"path": self.path, "from": self.before, "to": self.after, "kind": self.kind}


def changes(before: Status, after: Status, *, everything: bool = False) -> list[Change]:
    """What differs from `before` to `after`; with `everything` also what time alone moves and what slid out of view."""
    found = _compare("", before, after)
    return [change for change in found if everything or not _expected(change)]


def made_by(log: EventLog, position: int, before: State) -> list[Change]:
    """What the event at `position` changed by itself: both sides at its own instant. `before` is folded on to it."""
    (event,) = log.events(position - 1, position)
    now = to_micros(event.at)
    earlier = detached(before, now)
    return changes(earlier, detached(before.fold([event]), now))


def detached(state: State, now: int) -> Status:
    """The status object, sharing nothing with `state`, which may be folded on."""
    report: Status = json.loads(json.dumps(status(state, now)))
    return report


def _expected(change: Change) -> bool:
    if change.path.partition(".")[0] in BY_TIME:
        return True
    return change.kind == "removed" and change.path.partition("[")[0] in SLIDING


def _compare(path: str, before: Json, after: Json) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _compare_keyed(path, before, after, index=False)
    elif isinstance(before, list) and isinstance(after, list) and (path in _KEYS or path == "problems"):
        key = _about(before, after) if path == "problems" else _KEYS[path]
        yield from _compare_keyed(path, {key(i): i for i in before}, {key(i): i for i in after}, index=True)
    elif before != after:
        yield Change(path, before, after, "changed")


def _compare_keyed(
    path: str, before: Mapping[Any, Json], after: Mapping[Any, Json], *, index: bool
) -> Iterator[Change]:
    for key in {**before, **after}:
        name = _join(path, key, index)
        if not path and key in UNSAID:
            continue
        if key not in before:
            yield Change(name, None, after[key], "added")
        elif key not in after:
            yield Change(name, before[key], None, "removed")
        else:
            yield from _compare(name, before[key], after[key])


def _join(path: str, key: Any, index: bool) -> str:
    if index or not (isinstance(key, str) and _PLAIN.fullmatch(key)):
        return f"{path}[{json.dumps(key, ensure_ascii=False)}]"
    name = f"{path}.{key}" if path else key
    return _NAMES.get(name, name)


def _about(before: list[Json], after: list[Json]) -> Callable[[Mapping[str, Json]], Json]:
    """A problem's key: its code; where there are several of that code also whom it is about, its text's first word."""
    several = {item["code"] for side in (before, after) for item in side if _count(side, item["code"]) > 1}
    return lambda item: f"{item['code']}: {item['text'].split()[0]}" if item["code"] in several else item["code"]


def _count(side: list[Json], code: str) -> int:
    return sum(item["code"] == code for item in side)
