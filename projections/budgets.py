"""Budgets over a rolling day: what is spent and what live sessions have reserved, settled at an instant.

A start reserves what a session of the same scope takes on average, as far as those of the day told; so does one that
ended without telling. Where none has told anything yet, one session at a time goes first, and a budget that it still
cannot be held against stays shut: unknown is never zero. The day is the whole hours that 24 hours before now touch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from events.envelope import to_micros
from projections.derived import of_config
from projections.fold import HOUR, hours_touched
from projections.spending import COST_KNOWN, MICRO, RUNS, TOKENS_KNOWN
from projections.state import State

DAY = 24 * HOUR
UNBOUNDED = 1 << 31  # further sessions, where the known ones cost nothing

LIMITS = {"runs": "max_runs_per_day", "tokens": "max_tokens_per_day", "cost": "max_cost_per_day"}
"""Kinds of budget, and the key of the config that sets each."""
_FIRST = {"tokens": TOKENS_KNOWN, "cost": COST_KNOWN}


class Budget(NamedTuple):
    """One limit of one scope; runs, tokens, or millionths of a dollar."""

    kind: str
    limit: int
    spent: int
    """Told by sessions that are over; of runs every grant."""
    open: int = 0
    """Live sessions, which reserve `each`."""
    unknown: int = 0
    """Sessions that ended without telling, which count as `each`."""
    each: int | None = 1
    """What one session takes; None: nobody has told yet."""
    until: int | None = None
    """When something of it leaves the day."""

    @property
    def reserved(self) -> int | None:
        """What live sessions and those that did not tell count for; None: nobody knows."""
        sessions = self.open + self.unknown
        return 0 if not sessions else None if self.each is None else sessions * self.each

    @property
    def room(self) -> int:
        """How many sessions more it has room for."""
        reserved = self.reserved
        if self.each is None:
            return 1 if reserved == 0 and self.spent < self.limit else 0
        left = self.limit - self.spent - (reserved or 0)
        return (UNBOUNDED if left > 0 else 0) if self.each == 0 else max(0, left // self.each)

    def needed(self, sessions: int) -> int | None:
        """The limit with room for so many sessions more; None: no limit would do, as nobody knows what they take."""
        return None if self.each is None else self.spent + (self.reserved or 0) + max(1, sessions * self.each)


def budgets(state: State, config: Mapping[str, Any], now: int) -> dict[str, tuple[Budget, ...]]:
    """Scope (`category:code`, `backend:opus`, `pool:max`) -> its budgets; only those that have any."""
    limited = _limited(config)
    if not limited:
        return {}
    hours = state.spending["hours"]
    touched = [hour for hour in hours_touched(now, DAY) if hour in hours]
    live = [scope for _, scopes in state.spending["live"].values() for scope in scopes]
    found = {}
    for scope, settings in limited.items():
        cells = [(hour, hours[hour][scope]) for hour in touched if scope in hours[hour]]
        total = [sum(values) for values in zip(*(cell for _, cell in cells), strict=True)] or [0] * 7
        oldest = next((hour for hour, cell in cells if any(cell)), None)
        until = None if oldest is None else to_micros(f"{oldest}:00:00.000000Z") + HOUR + DAY
        found[scope] = tuple(_budgets(settings, total, live.count(scope), until))
    return found


def reached(state: State, now: int) -> dict[str, Budget]:
    """Scope -> the first of its budgets without room, not counting what live sessions reserve: they may take less."""
    config = state.control["config"]
    found = {}
    for scope, of_scope in ({} if config is None else budgets(state, config, now)).items():
        if (shut := next((each for each in of_scope if each._replace(open=0).room <= 0), None)) is not None:
            found[scope] = shut
    return found


def instants(state: State, now: int, upto: int) -> Iterator[int]:
    """When hours leave the day, in a span of time."""
    for hour in state.spending["hours"]:
        leaves = to_micros(f"{hour}:00:00.000000Z") + HOUR + DAY
        if now < leaves <= upto:
            yield leaves


@of_config
def _limited(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The settings of every scope that has a budget."""
    return {
        f"{kind}:{name}": settings
        for kind, table in (("category", "categories"), ("backend", "backends"), ("pool", "pools"))
        for name, settings in config[table].items()
        if any(map(settings.get, LIMITS.values()))
    }


def _budgets(settings: Mapping[str, Any], total: list[int], live: int, until: int | None) -> Iterator[Budget]:
    for kind, key in LIMITS.items():
        limit = settings.get(key)
        if limit is None:
            continue
        if kind == "runs":
            yield Budget(kind, limit, total[RUNS], until=until)
            continue
        known, amount, unknown = total[_FIRST[kind] : _FIRST[kind] + 3]
        whole = round(limit * MICRO) if kind == "cost" else limit
        yield Budget(kind, whole, amount, live, unknown, -(-amount // known) if known else None, until)
