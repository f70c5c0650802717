"""Pools and budgets as data, for `loop backends` and `loop usage`: from State and an instant alone."""

from __future__ import annotations

from typing import Any

from events.envelope import to_text
from projections import pools as access
from projections.budgets import Budget, budgets
from projections.state import State
from projections.view import View, backends, view

MICRO = 1_000_000


def pools(state: State, now: int) -> list[dict[str, Any]]:
    """A line for each pool of the config in force: whether it takes sessions, and how many of its own live."""
    if state.control["config"] is None:
        return []
    seen, found = view(state, now), []
    for name, pool in seen.pools.items():
        open = access.of_pool(state.backends, name, now, state.control["store"] or "")
        found.append(
            {
                "name": name,
                "state": open.state,
                "until": None if open.until is None else to_text(open.until),
                "because": open.because,
                "probe": _probe(state, name),
                "probe_due": bool(open.trial),
                "live": pool.live,
                "concurrency": pool.concurrency,
                "backends": [each.name for each in seen.backends.values() if each.pool == name],
                "budgets": spending(seen, f"pool:{name}"),
            }
        )
    return found


def is_available(state: State, name: str, now: int) -> bool | None:
    """Whether a backend, or any backend of a pool, takes a session now; None where there is none of that name."""
    found, spent = backends(state, now), spent_budgets(state, now)
    named = [found[name]] if name in found else [each for each in found.values() if each.pool == name]
    if not named:
        return None
    free = [each for each in named if not spent.keys() & {f"backend:{each.name}", f"pool:{each.pool}"}]
    return any(each.state == "available" and not each.paused for each in free)


def spent_budgets(state: State, now: int) -> dict[str, str | None]:
    """Scope -> until when its budgets let nothing start, None where that depends on a session; of those that do."""
    found: dict[str, str | None] = {}
    for scope, lines in all_budgets(state, now).items():
        if closed := [line["until"] for line in lines if not line["open"]]:
            found[scope] = None if None in closed else max(closed)
    return found


def all_budgets(state: State, now: int) -> dict[str, list[dict[str, Any]]]:
    """Scope (`category:code`, `backend:opus`, `pool:max`) -> its budgets."""
    config = state.control["config"]
    found = {} if config is None else budgets(state, config, now)
    return {scope: [_budget(each) for each in lines] for scope, lines in found.items()}


def spending(seen: View, scope: str) -> list[dict[str, Any]]:
    """The budgets of one scope."""
    return [_budget(each) for each in seen.budgets.get(scope, ())]


def _budget(budget: Budget) -> dict[str, Any]:
    unit = MICRO if budget.kind == "cost" else 1

    def amount(number: int | None) -> float | int | None:
        return number if number is None or unit == 1 else number / unit

    return {
        "kind": "cost_usd" if budget.kind == "cost" else budget.kind,
        "limit": amount(budget.limit),
        "spent": amount(budget.spent),
        "reserved": amount(budget.reserved),
        "untold": budget.unknown,
        "open": budget.room > 0,
        "until": None if budget.until is None else to_text(budget.until),
    }


def _probe(state: State, pool: str) -> str | None:
    known = state.backends["pools"].get(pool)
    return None if known is None else known["probe"]
