"""Which pools refuse work and until when, and when each backend was last used."""

from __future__ import annotations

from typing import TypedDict

from events.envelope import Event
from events.lifecycle import BACKEND
from projections.fold import Handlers


class Pool(TypedDict):
    state: str  # a state of events.lifecycle.BACKEND
    since: str
    until: str | None
    source: str


class Backends(TypedDict):
    pools: dict[str, Pool]  # those that were ever limited
    last_used: dict[str, int]  # backend -> token of its last session


def initial() -> Backends:
    return Backends(pools={}, last_used={})


def changed(state: Backends, event: Event) -> None:
    pool = event.data["pool"]
    before = state["pools"].get(pool)
    after = BACKEND.get((before["state"] if before else "available", event.type))
    if after is not None:
        until = before["until"] if before and after == "probing" else event.data.get("until")
        state["pools"][pool] = Pool(state=after, since=event.at, until=until, source=event.data["source"])


def requested(state: Backends, event: Event) -> None:
    state["last_used"][event.data["backend"]] = event.position


HANDLERS: Handlers = {
    "backend.limited": changed,
    "backend.probed": changed,
    "backend.restored": changed,
    "session.requested": requested,
}
