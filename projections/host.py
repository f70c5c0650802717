"""The machine as it was last measured; what is not measured, or could not be, is None."""

from __future__ import annotations

from typing import TypedDict

from events.envelope import Event
from projections.fold import Handlers


class Measured(TypedDict):
    at: str
    load_per_cpu: float | None
    memory_available: float | None
    disk_free: int | None


class Host(TypedDict):
    last: Measured | None


def initial() -> Host:
    return Host(last=None)


def measured(state: Host, event: Event) -> None:
    data = event.data
    state["last"] = Measured(
        at=event.at,
        load_per_cpu=data["load_per_cpu"],
        memory_available=data["memory_available"],
        disk_free=data["disk_free"],
    )


HANDLERS: Handlers = {"host.measured": measured}
