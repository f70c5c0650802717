"""The credit ledger of policy `fair`: what each category was issued of the slots given, less what it was charged.

In millionths of a slot, as `fanout.decided` recorded it. A start that came to nothing is taken back, with all that was
issued for it: where none came about, and where the session ended `limited` or `refused`, as in the allocation window.
Only what is not zero is kept. Another policy than `fair` ends the ledger; it begins anew.
"""

from __future__ import annotations

from typing import TypedDict

from events.envelope import Event
from projections.allocation import UNUSED
from projections.fold import Handlers

UNIT = 1_000_000
PASSES_KEPT = 256  # passes with live sessions; far more than one has slots


class Open(TypedDict):
    issued: dict[str, int]  # to each category, of each of its slots
    charged: list[str]  # categories whose session of this pass has not ended


class Ledger(TypedDict):
    kept: bool  # whether the policy in force keeps one
    credits: dict[str, int]
    open: dict[str, Open]  # by pass


def initial(kept: bool = False) -> Ledger:
    return Ledger(kept=kept, credits={}, open={})


def decided(state: Ledger, event: Event) -> None:
    """A decision older than the ledger has none."""
    if not state["kept"]:
        return  # what a decision holds is long
    ledger = event.data.get("ledger")
    if ledger is None or not ledger["slots"]:
        return
    for name, account in ledger["accounts"].items():
        _set(state, name, account["after"])
    for name, forfeited in ledger["forfeited"].items():
        _set(state, name, state["credits"].get(name, 0) - forfeited)
    issued = {name: account["share"] for name, account in ledger["accounts"].items() if account["share"]}
    charged = [name for name, account in ledger["accounts"].items() if account["charged"]]
    state["open"][event.tick or ""] = Open(issued=issued, charged=charged)
    if len(state["open"]) > PASSES_KEPT:
        del state["open"][next(iter(state["open"]))]


def ended(state: Ledger, event: Event) -> None:
    found = state["open"].get(event.tick or "")
    if found is None or event.category not in found["charged"]:
        return
    found["charged"].remove(event.category)
    if event.type == "session.spawn_failed" or event.data.get("outcome") in UNUSED:
        _set(state, event.category, state["credits"].get(event.category, 0) + UNIT)
        for name, units in found["issued"].items():
            _set(state, name, state["credits"].get(name, 0) - units)
    if not found["charged"]:
        del state["open"][event.tick or ""]


def configured(state: Ledger, event: Event) -> None:
    state["kept"] = event.data["policy"] == "fair"
    if not state["kept"]:
        state["credits"], state["open"] = {}, {}


def _set(state: Ledger, name: str, credit: int) -> None:
    if credit:
        state["credits"][name] = credit
    else:
        state["credits"].pop(name, None)


HANDLERS: Handlers = {
    "loop.configured": configured,
    "fanout.decided": decided,
    "session.ended": ended,
    "session.lost": ended,
    "session.spawn_failed": ended,
}
