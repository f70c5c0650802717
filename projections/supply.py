"""Whether a category has work: what its gate said last, how its last assessed sessions ended, and who found it blocked.

Facts only. `projections.feedback` settles them at an instant: how old an answer is and whether it still counts, how
long a back-off or a wait goes on.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from events.envelope import Event
from projections.fold import RECENT, Handlers, keep_recent
from projections.outcomes import ASSESSED

Said = Literal["work", "no_work", "error"]


class Answered(TypedDict):
    at: str
    answer: Said
    exit_code: int | None


class End(TypedDict):
    at: str
    noop: bool


class Block(TypedDict):
    at: str
    session: str
    task: str
    denied: bool  # since then the gate has said that there is no work


class Lacking(TypedDict):
    """What the last answer of the built-in selector found without work."""

    at: str
    categories: list[str]


class Supply(TypedDict):
    gates: dict[str, Answered]  # category -> its gate's last answer
    ends: dict[str, list[End]]  # category -> its last assessed ends
    noops: dict[str, int]  # category -> how many of these are NOOPs
    blocks: dict[str, Block]  # category -> its last session that found it blocked, until something says otherwise
    tasks: dict[str, str]  # live session -> its task
    lacking: Lacking | None  # None where the last answer was another selector's, which is no evidence of that


def initial() -> Supply:
    return Supply(gates={}, ends={}, noops={}, blocks={}, tasks={}, lacking=None)


def answered(state: Supply, event: Event) -> None:
    """The gate's answer. `work` lifts a block only where the gate has said `no_work` in between: it said `work` before
    the session that found the category blocked, or that session would not have run, so saying it again is no news."""
    category, answer = event.category or "", event.data["answer"]
    state["gates"][category] = Answered(at=event.at, answer=answer, exit_code=event.data["exit_code"])
    block = state["blocks"].get(category)
    if block is not None and answer == "no_work":
        block["denied"] = True
    elif block is not None and answer == "work" and block["denied"]:
        del state["blocks"][category]


def requested(state: Supply, event: Event) -> None:
    state["tasks"][event.session or ""] = event.data["task"]


def ended(state: Supply, event: Event) -> None:
    """What a session made of its category. Of all ends only a productive one says that a block is over."""
    task = state["tasks"].pop(event.session or "", None)
    outcome = event.data.get("outcome")
    if task is None or outcome not in ASSESSED:
        return
    category, session = event.category or "", event.session or ""
    end: End = {"at": event.at, "noop": outcome == "noop"}
    ends, noops = state["ends"].setdefault(category, []), state["noops"]
    forgotten = len(ends) == RECENT and ends[0]["noop"]
    keep_recent(ends, end, RECENT)
    noops[category] = noops.get(category, 0) + end["noop"] - forgotten
    if outcome == "blocked":
        found = event.data.get("done_task") or task
        state["blocks"][category] = Block(at=event.at, session=session, task=found, denied=False)
    elif outcome == "productive":
        state["blocks"].pop(category, None)


def selected(state: Supply, event: Event) -> None:
    builtin = event.data["source"] == "builtin"
    state["lacking"] = {"at": event.at, "categories": event.data["empty"]} if builtin else None


HANDLERS: Handlers = {
    "selection.made": selected,
    "gate.answered": answered,
    "session.requested": requested,
    "session.ended": ended,
    "session.lost": ended,
    "session.spawn_failed": ended,
}
