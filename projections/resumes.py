"""Sessions that were cut off and can be gone on with: refused by their backend, or lost, with the agent's own name of
the conversation.

One is kept until the next session of its category and task is requested, which either goes on with it or begins anew.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, keep_recent

KEPT = 64


class CutOff(TypedDict):
    session: str
    category: str
    task: str
    backend: str
    token: str
    at: str
    tries: int  # how many sessions in a row went on with this conversation


class Resumes(TypedDict):
    open: dict[str, list[Any]]  # live session -> [category, task, backend, tries, what its request took the place of]
    cut_off: list[CutOff]


def initial() -> Resumes:
    return Resumes(open={}, cut_off=[])


def requested(state: Resumes, event: Event) -> None:
    category, task, resumes = event.category or "", event.data["task"], event.data["resumes"]
    tries, taken = 0, None
    for item in list(state["cut_off"]):
        if item["session"] == resumes:
            tries = item["tries"] + 1
        if item["session"] == resumes or (item["category"], item["task"]) == (category, task):
            state["cut_off"].remove(item)
            taken = item
    state["open"][event.session or ""] = [category, task, event.data["backend"], tries, taken]


def ended(state: Resumes, event: Event) -> None:
    _end(state, event, event.data["resume_token"] if event.data["outcome"] == "limited" else None)


def lost(state: Resumes, event: Event) -> None:
    _end(state, event, event.data["resume_token"])


def spawn_failed(state: Resumes, event: Event) -> None:
    """No agent ever ran: what it took the place of is as it was."""
    *_, taken = state["open"].pop(event.session or "", [None])
    if taken is not None:
        keep_recent(state["cut_off"], taken, KEPT)


def _end(state: Resumes, event: Event, token: str | None) -> None:
    opened = state["open"].pop(event.session or "", None)
    if opened is None or token is None:
        return
    category, task, backend, tries, _ = opened
    item = CutOff(
        session=event.session or "", category=category, task=task, backend=backend, token=token, at=event.at,
        tries=tries,
    )  # fmt: skip
    keep_recent(state["cut_off"], item, KEPT)


HANDLERS: Handlers = {
    "session.requested": requested,
    "session.ended": ended,
    "session.lost": lost,
    "session.spawn_failed": spawn_failed,
}
