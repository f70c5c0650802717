"""The credit ledger of policy `fair`: what each category was issued of the slots given so far, less what it was given.

Pure: the view has the credits, a pass opens them, a decision closes them, and `projections.ledger` folds what was
recorded. Every start issues UNIT among those in the running, by their feasible shares, and charges UNIT to whom it
went, so that the credits always sum to zero. Nothing moves in a decision that gives no slot.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from loop.shares import UNIT, Member, apportion, feasible, weights
from projections.view import Category, View

CLAMP = 2 * UNIT  # credit that a category may keep while it could not be given a slot anyway

SHORT = frozenset({"no_slot", "no_backend", "host_busy", "rate_limited"})
"""Verdicts of who went without for want of what all share; any other says that it had no use for a slot just now."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """The credits as a pass finds them, in millionths of a slot."""

    members: Mapping[str, Member]
    shares: Mapping[str, int]
    """What each in the running is issued of every slot given; in sum UNIT, or nothing where nobody is."""
    credits: Mapping[str, int]
    moved: Mapping[str, int]
    """Forfeited by those who left the running (negative), and what the others got of it."""
    free: int

    def claim(self, name: str) -> int:
        """What decides who comes first: the credit it would have if every free slot were given."""
        return self.credits.get(name, 0) + self.moved.get(name, 0) + self.shares.get(name, 0) * self.free


def opened(view: View) -> Ledger:
    """The ledger before the decision on `view`, with its shares.

    Who is out of the running forfeits its credit and keeps its debt; who is no longer configured keeps neither. It goes
    to those in the running, by their shares.
    """
    members = in_the_running(view)
    shares = feasible(members, view.slots)
    moved: dict[str, int] = {}
    if members:
        for name, credit in view.ledger.items():
            if name not in view.categories or (name not in members and credit > 0):
                moved[name] = -credit
        if moved:
            moved |= {name: part for name, part in apportion(-sum(moved.values()), shares).items() if part}
    return Ledger(members, shares, view.ledger, moved, max(0, view.slots - len(view.live)))


def in_the_running(view: View) -> dict[str, Member]:
    """Those that a slot could be meant for, whether or not they are locked or cooling down: in the parallel allowlist,
    asked for, not known to be without work, not paused, with a backend that takes sessions."""
    asked = _asked(view)
    known = [category.mean_seconds for category in view.categories.values() if category.mean_seconds is not None]
    usual = max(1, sum(known) // len(known)) if known else 1
    weight = weights(view.categories.values())
    able = (each for each in view.backends.values() if each.state == "available" and not each.paused)
    taking = {backend.name: backend.command for backend in able}
    commanded = any(taking.values())
    paused = view.restraints
    found = {}
    for name, category in view.categories.items():
        if (
            category.parallel is not False
            and (category.supply != "none" or _freed(view, category))
            and (asked is None or name in asked)
            and not (paused and f"category:{name}" in paused)
            and _takes(category, taking, commanded)
        ):
            seconds = usual if category.mean_seconds is None else max(1, category.mean_seconds)
            found[name] = Member(weight[name], category.lanes, seconds)
    return found


def _asked(view: View) -> frozenset[str] | None:
    """Whom the last answer names, used or not, and due respawns; None where no answer says: then it may be anyone."""
    if view.answer is None or view.answer.rejected:
        return None
    due = (due.category for due in view.due if due.chain < view.respawn_limit)
    return frozenset([*(entry.category for entry in view.answer.ranking), *due])


def _freed(view: View, category: Category) -> bool:
    """Whether a category that waits after `blocked` is asked for with another task, which ends the wait."""
    wait, gate = category.wait, category.gate
    if wait is None or view.answer is None or (gate is not None and gate.answer == "no_work"):
        return False
    tasks = (entry.task for entry in view.answer.ranking if entry.category == category.name)
    return any(task and task != wait.task for task in tasks)


def _takes(category: Category, taking: Mapping[str, bool], commanded: bool) -> bool:
    """Whether a backend takes its sessions; one that is busy does, as a lane that is locked does."""
    if category.backends is None:
        return bool(taking) if category.own_command else commanded
    return any(name in taking and (category.own_command or taking[name]) for name in category.backends)


def closed(ledger: Ledger, chosen: Collection[str], verdicts: Mapping[str, str]) -> dict[str, Any]:
    """What the decision records: how many of its slots the ledger issued, and an account for each category with every
    term. `after` = `credit` + `moved` + `share` * `slots` - `charged`.

    A start by hand of a category that is not in the running is outside the ledger.
    """
    charged = {name for name in chosen if name in ledger.members}
    slots = len(charged)
    moved = dict(ledger.moved) if slots else {}
    after = {
        name: ledger.credits.get(name, 0) + moved.get(name, 0) + ledger.shares[name] * slots - UNIT * (name in charged)
        for name in ledger.members
    }
    if slots:
        idle = {name for name in after if name not in charged and verdicts.get(name) not in SHORT}
        if over := {name: after[name] - CLAMP for name in idle if after[name] > CLAMP}:
            others = {name: share for name, share in ledger.shares.items() if name not in idle}
            parts = apportion(sum(over.values()), others) | {name: -credit for name, credit in over.items()}
            for name, part in parts.items():
                moved[name] = moved.get(name, 0) + part
                after[name] += part
    accounts = {
        name: {
            "weight": member.weight,
            "lanes": member.lanes,
            "seconds": member.seconds,
            "share": ledger.shares[name],
            "claim": ledger.claim(name),
            "credit": ledger.credits.get(name, 0),
            "moved": moved.get(name, 0),
            "charged": UNIT * (name in charged),
            "after": after[name],
        }
        for name, member in ledger.members.items()
    }
    gone = {name: part for name, part in moved.items() if name not in ledger.members}
    return {"slots": slots, "accounts": accounts, "forfeited": {name: -part for name, part in gone.items()}}
