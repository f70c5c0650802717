"""What a person should know that no single event says: silence of the schedule, spent budgets, open breakers.

Each is evaluated at an instant from what is folded, and is told once for each time that it comes about.
"""

from __future__ import annotations

from collections.abc import Iterator

from events.envelope import to_micros, to_text
from loop.status import mode
from projections import pools
from projections.backends import backend_scope, pool_scope
from projections.budgets import reached
from projections.figures import silent_since
from projections.notices import Raised, key_of
from projections.state import State


def standing(state: State, now: int) -> Iterator[Raised]:
    """The conditions at `now` (microseconds) of which a notice is to be sent, were it not told."""
    yield from _silence(state, now)
    yield from _budgets(state, now)
    yield from _breakers(state, now)


def is_over(state: State, raised: Raised, now: int) -> bool:
    """Whether what an event raised is no longer so: the limit of a pool, whose reset has come."""
    return raised["kind"] == "pool_limited" and not pools.is_limited(state, raised["subject"], now)


def _silence(state: State, now: int) -> Iterator[Raised]:
    excused = state.notices["excused"] or mode(state, now) != "running"
    if not excused and (since := silent_since(state, now)) is not None:
        yield _raised("fire_missed", "silence", state.position, state.at or since, since=since)


def _budgets(state: State, now: int) -> Iterator[Raised]:
    for scope, budget in reached(state, now).items():
        granted = state.notices["granted"].get(scope, 0)  # a budget that is told is news again with its next session
        until = None if budget.until is None else to_text(budget.until)
        about = {"budget": budget.kind, "spent": budget.spent, "limit": budget.limit, "until": until}
        yield _raised("budget_reached", scope.replace(":", " "), granted, to_text(now), **about)


def _breakers(state: State, now: int) -> Iterator[Raised]:
    """Open breakers of the config in force."""
    names = {backend_scope(name): f"backend {name}" for name in state.backends["pool_of"]}
    names |= {pool_scope(pool): pool for pool in state.backends["pool_of"].values()}
    for scope, breaker in state.backends["breakers"].items():
        opened, subject = breaker["opened"], names.get(scope)
        if opened is None or subject is None:
            continue
        told = state.notices["told"].get(key_of("pool_limited", subject))
        if told is None or told["failed"] or to_micros(told["at"]) < to_micros(opened):
            yield _raised("pool_limited", subject, state.position, opened, until=None, broken=breaker["why"])


def _raised(kind: str, subject: str, position: int, at: str, **detail: object) -> Raised:
    return Raised(kind=kind, subject=subject, position=position, at=at, times=1, detail=detail)
