"""The storm guard: what freezes the loop until somebody says `loop resume --reason`.

| rule         | freezes                                                     |
|--------------|-------------------------------------------------------------|
| `failures`   | the loop, when 8 of the last 10 sessions failed             |
| `lost`       | the loop, when the shims of 3 of the last 10 sessions died  |
| `violation`  | the loop and the category, when one lock was held by two    |

It is asked inside the transaction of every pass, before the decision, so nothing starts on the facts that freeze; of
every fire that a restraint skips; and of `loop resume`, which lifts nothing that nobody was shown.
Sessions that were cancelled, refused or limited, or went down with the machine, count as neither good nor bad.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from projections.guard import End
from projections.locks import Violation
from projections.state import State

if TYPE_CHECKING:
    from loop.journal import Writing

ACTOR = "guard"
FAILURES = 8
OF = 10
LOST = 3
RULES = {
    "failures": f"{FAILURES} of the last {OF} sessions failed",
    "lost": f"the shims of {LOST} of the last {OF} sessions died",
    "violation": "one lock was held by two",
}
"""Rule -> what it found, in the words of `status`, `resume` and the notices."""

Because = Literal["failures", "lost", "violation"]


class Freeze(NamedTuple):
    """A freeze that is due: of a category, or of the whole loop where that is None."""

    category: str | None
    because: Because
    text: str
    cause: int
    """The position of the event that brought it."""


def due(state: State) -> list[Freeze]:
    """The freezes that the facts ask for and that are not in force; those of categories first."""
    if fresh := _fresh(state):
        return _violated(state, fresh)
    if _is_frozen(state, "all"):
        return []
    ends = state.guard["ends"]
    lost, failed = [end for end in ends if end["lost"]], [end for end in ends if end["failed"]]
    if len(lost) >= LOST:
        return [Freeze(None, "lost", f"{RULES['lost']}: {_listed(lost)}", lost[-1]["position"])]
    if len(failed) >= FAILURES:
        return [Freeze(None, "failures", f"{RULES['failures']}: {_listed(failed)}", failed[-1]["position"])]
    return []


def watch(entry: Writing) -> None:
    """Append what is due, and before it each violation that so far only the fold knew of."""
    freezes = due(entry.state)
    if not freezes:
        return
    from events.catalog import LoopFrozen, ViolationDetected  # `status` has the words from here, and no models

    for item in _fresh(entry.state):
        if not item["recorded"]:
            detected = ViolationDetected(kind=item["kind"], key=item["key"], token=item["token"], text=None)
            entry.append(detected, actor=ACTOR, cause=item["position"], session=item["session"])
    for freeze in freezes:
        frozen = LoopFrozen(
            scope="all" if freeze.category is None else "category",
            name=freeze.category,
            because=freeze.because,
            reason=freeze.text,
        )
        entry.append(frozen, actor=ACTOR, cause=freeze.cause)


def why_frozen(state: State, scope: str) -> str:
    """What froze `scope` (`all`, `category:NAME`), in words."""
    return RULES.get(state.guard["causes"].get(scope, ""), "no reason is recorded")


def _fresh(state: State) -> list[Violation]:
    """Violations that have not frozen anything yet."""
    return [item for item in state.locks["items"] if item["position"] > state.guard["handled"]]


def _violated(state: State, fresh: list[Violation]) -> list[Freeze]:
    found: dict[str | None, Freeze] = {}
    for item in fresh:
        category = _category_of(state, item)
        text = f"{RULES['violation']}: {item['key']} ({item['kind'].replace('_', ' ')})"
        if category is not None and not _is_frozen(state, f"category:{category}"):
            found.setdefault(category, Freeze(category, "violation", text, item["position"]))
    return [*found.values(), Freeze(None, "violation", text, fresh[-1]["position"])]


def _category_of(state: State, item: Violation) -> str | None:
    """The category whose lane the key is; for a key that categories share, that of the session seen with it."""
    config, name = state.control["config"], item["key"].partition("#")[0]
    if config is not None and name in config["categories"]:
        return name
    if (live := state.sessions["live"].get(item["session"] or "")) is not None:
        return live["category"]
    return next((ended["category"] for ended in state.sessions["recent"] if ended["id"] == item["session"]), None)


def _is_frozen(state: State, scope: str) -> bool:
    mode = state.control["modes"].get(scope)
    return mode is not None and mode["mode"] == "frozen"


def _listed(ends: list[End]) -> str:
    return ", ".join(f"{end['session']} ({end['category']} {end['how']})" for end in ends)
