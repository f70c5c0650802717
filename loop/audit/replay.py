"""`loop replay`: every recorded decision made again on the state it was made on, by today's rules or by others.

One fold over the log: at each decision the state is exactly the recorded one, so every figure here is `exact`, one step
from what was recorded. Nothing that a session which never ran would have changed is in it; sums over the decisions say
how often the others would have chosen otherwise where the log stood, not how the log would have gone on.

One thing may be carried on: decisions by another policy have no credit ledger, so for `fair` to decide them it is
folded from the decisions made again, every start taken to come about. What rests on it is labelled `modelled`.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from events.envelope import Event, to_micros
from events.errors import UsageError
from events.store import EventLog
from loop.audit.why import DECIDED, differing
from loop.decider import DECIDER, Decision, decide
from loop.policies import POLICIES
from projections import ledger, snapshots
from projections.state import State
from projections.view import View, view

ITEMS = 100  # divergences kept
EXACT = "exact"
MODELLED = "modelled"

Decide = Callable[[View], Decision]
Seen = Callable[[State, int], View]
"""What a decision at an instant (microseconds) would see of a state."""


@dataclass(frozen=True, slots=True)
class Other:
    """Other rules than the recorded: a view of the state as they would have it; `targets` are those of their config."""

    name: str
    seen: Seen
    config: Mapping[str, Any] | None = None


def other_policy(name: str) -> Other:
    """The recorded config with another policy. Raises UsageError for one that does not exist."""
    check_policy(name)
    return Other(f"policy {name}", lambda state, now: view(state, now)._replace(policy=name))


def other_config(name: str, data: Mapping[str, Any]) -> Other:
    """Another config (the data of a `loop.configured`) in force at every decision; the facts stay as recorded."""
    check_policy(str(data["policy"]))

    def seen(state: State, now: int) -> View:
        changed = copy.copy(state)  # shares every projection but this one; a view only reads
        changed.control = {**state.control, "config": dict(data)}
        return view(changed, now)

    return Other(f"config {name}", seen, data)


def check_policy(name: str) -> None:
    """Raises UsageError for the name of no policy."""
    if name not in POLICIES:
        raise UsageError(f"no policy is named {name!r}", f"there are: {', '.join(POLICIES)}")


@dataclass(slots=True)
class Tally:
    """What a replay came to. `then` and `now` count the chosen categories, recorded and decided again."""

    decisions: int = 0
    same: int = 0
    other_version: int = 0
    first: int | None = None
    diverged: int = 0
    items: list[dict[str, Any]] = field(default_factory=list)
    then: Counter[str] = field(default_factory=Counter)
    now: Counter[str] = field(default_factory=Counter)
    targets: dict[str, float] = field(default_factory=dict)
    label: str = EXACT
    """Of the figures of the decisions made again."""

    def diverges(self, event: Event, again: Decision) -> None:
        self.diverged += 1
        if self.first is None:
            self.first = event.position
        if len(self.items) < ITEMS:
            self.items.append(_item(event, again))


def replay(
    log: EventLog,
    after: int,
    upto: int,
    *,
    other: Other | None = None,
    decide: Decide = decide,
    progress: Callable[[int], None] | None = None,
) -> Tally:
    """Decide again at every decision behind `after` up to `upto`; `progress` hears positions.

    Without `other` a decision is the same if all of it is, and those that another version of the rules made are counted
    and not compared. With `other` it is the same if it starts the same categories, with their tasks, on the same
    backends, whoever decided then.
    """
    tally = Tally()
    carried = ledger.initial(kept=True)
    state = snapshots.load(log, after, progress)
    for event in log.events(after, upto):
        if event.type == DECIDED:
            _again(tally, state, event, other, decide, carried)
        state.apply(event)
        if progress is not None and event.position % 1_000 == 0:
            progress(event.position)
    config = state.control["config"] if other is None or other.config is None else other.config
    tally.targets = stated_targets(config)
    return tally


def _again(
    tally: Tally, state: State, event: Event, other: Other | None, decide: Decide, carried: ledger.Ledger
) -> None:
    recorded = event.data
    tally.decisions += 1
    old = recorded["decider"] != DECIDER
    tally.other_version += old
    if other is None and old:
        return
    seen = (view if other is None else other.seen)(state, to_micros(recorded["now"]))
    carry = seen.policy == "fair" and recorded["policy"] != "fair"
    if carry:
        seen = seen._replace(ledger=dict(carried["credits"]))
    again = decide(seen)
    if carry and again.ledger is not None:
        ledger.decided(carried, event.holding(again.as_dict()))
        tally.label = MODELLED
    if other is None:
        same = again.as_dict() == recorded
    else:
        tally.then.update(choice["category"] for choice in recorded["chosen"])
        tally.now.update(choice.category for choice in again.chosen)
        same = _starts(recorded["chosen"]) == _starts(again.as_dict()["chosen"])
    tally.same += same
    if not same:
        tally.diverges(event, again)


def _starts(chosen: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((choice["category"], choice["task"], choice["backend"]) for choice in chosen)


def _item(event: Event, again: Decision) -> dict[str, Any]:
    return {
        "position": event.position,
        "at": event.at,
        "recorded": _choices(event.data["chosen"]),
        "now": _choices(again.as_dict()["chosen"]),
        "verdicts": differing(event.data, again),
        "command": f"loop why {event.position}",
    }


def _choices(chosen: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: choice[name] for name in ("category", "task", "rule", "backend")} for choice in chosen]


# ── figures ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def stated_targets(config: Mapping[str, Any] | None) -> dict[str, float]:
    """The targets of a config as written; empty where no category has one."""
    categories = {} if config is None else config["categories"]
    return {name: each["target"] for name, each in categories.items() if each["target"] is not None}


def allocation_error(counts: Mapping[str, int], targets: Mapping[str, float]) -> float | None:
    """Half the sum of |share - target|: the share of the choices (0..1) that would have to go elsewhere to meet the
    targets, which are normalised; a category without one has 0. None without choices or without targets."""
    total, whole = sum(counts.values()), sum(map(Fraction, targets.values()))
    if not total or not whole:
        return None
    names = {*counts, *targets}
    off = sum(abs(Fraction(counts.get(name, 0), total) - Fraction(targets.get(name, 0)) / whole) for name in names)
    return round(float(off / 2), 6)


def compared(tally: Tally) -> dict[str, Any]:
    """Recorded choices against the other's, per category and in all; every figure with its label."""
    whole = sum(tally.targets.values())
    names = dict.fromkeys([*tally.targets, *sorted({*tally.then, *tally.now})])
    return {
        "categories": [
            {
                "name": name,
                "target": tally.targets[name] / whole if whole and name in tally.targets else None,
                "then": tally.then[name],
                "now": tally.now[name],
                "difference": tally.now[name] - tally.then[name],
                "label": tally.label,
            }
            for name in names
        ],
        "starts": {"then": tally.then.total(), "now": tally.now.total(), "label": tally.label},
        "allocation_error": {
            "then": allocation_error(tally.then, tally.targets),
            "now": allocation_error(tally.now, tally.targets),
            "label": tally.label,
        },
    }
