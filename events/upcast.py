"""Old shapes of events read as today's: pure functions on decoded dicts, one per (type, version) left behind.

A step turns version n into n+1 and never looks at anything but its argument. A test checks that the steps of each type
lead without a gap to the version in `events.catalog`.
"""

from __future__ import annotations

from collections.abc import Callable

from events.envelope import Json

Upcaster = Callable[[Json], Json]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}


def upcast(type: str, version: int, data: Json) -> Json:
    """`data` of an event of `type` stored at `version`, as today's version has it."""
    while step := UPCASTERS.get((type, version)):
        data = step(data)
        version += 1
    return data
