"""What sessions used in a window, by category, backend or pool: one query over the log, no code shared with folds.

Windows over two hours begin with a whole UTC hour, as budgets count them. What a session did not tell is counted as
untold and is in no sum; where nobody told anything the sum is null, and not zero.
"""

from __future__ import annotations

from typing import Any, Literal

from events import audit
from events.envelope import to_text
from events.store import EventLog
from projections.fold import EXACT, HOUR

By = Literal["category", "backend", "pool"]

KEYS = {
    "category": "r.category",
    "backend": "json_extract(r.data, '$.backend')",
    "pool": "json_extract(r.data, '$.pool')",
}
"""What sessions are grouped by, as SQL over the request `r`."""
_USED = """
SELECT {key} AS name, e.type AS end, json_extract(e.data, '$.seconds') AS seconds,
  coalesce(json_extract(e.data, '$.outcome') IN ('limited', 'refused'), 0) AS turned,
  coalesce(e.type IN ('session.ended', 'session.lost'), 0) AS over,
  coalesce(json_extract(e.data, '$.usage.tokens'),
    json_extract(e.data, '$.usage.input_tokens') + json_extract(e.data, '$.usage.output_tokens')
    + coalesce(json_extract(e.data, '$.usage.cache_write_tokens'), 0)) AS tokens,
  coalesce(json_extract(e.data, '$.usage.cost_micros') / 1e6, json_extract(e.data, '$.usage.cost_usd')) AS cost
FROM events r LEFT JOIN events e ON e.session = r.session AND e.position <= ?2
  AND e.type IN ('session.ended', 'session.lost', 'session.spawn_failed')
WHERE r.type = 'session.requested' AND r.position > ?1 AND r.position <= ?2
"""
_SUMS = """
SELECT name, count(*), sum(end IS NULL), sum(end IS 'session.spawn_failed' OR turned), coalesce(sum(seconds), 0),
  sum(tokens), count(tokens), sum(over AND tokens IS NULL),
  sum(cost), count(cost), sum(over AND cost IS NULL)
FROM used GROUP BY name ORDER BY 9 DESC NULLS LAST, 6 DESC NULLS LAST, 2 DESC, 1
"""


def begins(now: int, since: int) -> int:
    """When the window from `since` to `now` really begins (microseconds)."""
    return since - since % HOUR if now - since > EXACT else since


def usage(log: EventLog, by: By, since: int, upto: int) -> list[dict[str, Any]]:
    """A line for each category, backend or pool that was granted a session from a time (microseconds) to a position,
    the most expensive first. Raises StoreError."""
    after = log.position_at(to_text(since - 1))
    query = f"SELECT * FROM (WITH used AS ({_USED.format(key=KEYS[by])}) {_SUMS})"
    return [_line(*row) for row in audit.query(log, query, (after, upto))]


def total(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """All lines together."""
    counts = {name: sum(line[name] for line in lines) for name in ("sessions", "live", "turned_away", "seconds")}
    return {**counts, **{kind: _told(kind, lines) for kind in ("tokens", "cost_usd")}}


def _told(kind: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    known = [line[kind]["sum"] for line in lines if line[kind]["sum"] is not None]
    counts = {name: sum(line[kind][name] for line in lines) for name in ("told", "untold")}
    return {"sum": sum(known) if known else None, **counts}


def _line(
    name: str,
    sessions: int,
    live: int,
    turned: int,
    seconds: float,
    tokens: int | None,
    told: int,
    untold: int,
    cost: float | None,
    costs: int,
    uncosted: int,
) -> dict[str, Any]:
    return {
        "name": name,
        "sessions": sessions,
        "live": live,
        "turned_away": turned,
        "seconds": round(seconds, 3),
        "tokens": {"sum": tokens, "told": told, "untold": untold},
        "cost_usd": {"sum": None if cost is None else round(cost, 6), "told": costs, "untold": uncosted},
    }
