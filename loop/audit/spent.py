"""The spending that budgets rest on against a second computation: SQL over the log, no code shared with the fold."""

from __future__ import annotations

from collections.abc import Iterator

from events import audit
from events.store import EventLog
from loop.audit.checks import Tally
from loop.audit.usage import KEYS
from projections.spending import KEPT
from projections.state import State

_TURNED = "(outcome IN ('limited', 'refused') OR reason IN ('unauthorised', {missing}))".format(
    missing="'command_not_found', 'not_executable', 'argv_too_long'"
)
_TOKENS = (
    "coalesce(json_extract(usage, '$.tokens'), json_extract(usage, '$.input_tokens')"
    " + json_extract(usage, '$.output_tokens') + coalesce(json_extract(usage, '$.cache_write_tokens'), 0))"
)
_COST = "coalesce(json_extract(usage, '$.cost_micros'), round(json_extract(usage, '$.cost_usd') * 1e6))"
_CELLS = """
SELECT hour, name, sum(end IS NOT 'session.spawn_failed' AND NOT pardoned),
  count(tokens), sum(tokens), sum(over AND tokens IS NULL AND NOT pardoned),
  count(cost), sum(cost), sum(over AND cost IS NULL AND NOT pardoned)
FROM (
  SELECT *,
    min(CAST({tokens} AS INTEGER), 10000000000000) AS tokens, min(CAST({cost} AS INTEGER), 10000000000000) AS cost,
    {category} AND coalesce({turned}, 0) AS pardoned, coalesce(end IN ('session.ended', 'session.lost'), 0) AS over
  FROM (
    SELECT substr(r.at, 1, 13) AS hour, {key} AS name, e.type AS end, json_extract(e.data, '$.outcome') AS outcome,
      json_extract(e.data, '$.reason') AS reason, json_extract(e.data, '$.usage') AS usage
    FROM events r LEFT JOIN events e ON e.session = r.session
      AND e.type IN ('session.ended', 'session.lost', 'session.spawn_failed')
    WHERE r.type = 'session.requested' AND r.at >= ?
  )
) GROUP BY 1, 2
"""

Cells = dict[tuple[str, str], tuple[int, ...]]


def compare(log: EventLog, state: State, stepped_back: bool, tally: Tally) -> None:
    """Compare every cell that the fold keeps with SQL; none where a clock set back may have split the oldest."""
    hours = state.spending["hours"]
    if stepped_back and len(hours) >= KEPT:
        return
    folded = {
        (hour, scope): tuple(cell) for hour, cells in hours.items() for scope, cell in cells.items() if any(cell)
    }
    found: Cells = {}
    for kind in KEYS:
        found.update(_found(log, kind, min(hours, default="")))
    found = {key: cell for key, cell in found.items() if any(cell) and (key[0] in hours or len(hours) < KEPT)}
    tally.checked += len(found)
    for key in sorted(folded.keys() | found.keys()):
        if folded.get(key) != found.get(key):
            text = f"the fold has {folded.get(key)}, the log says {found.get(key)}"
            tally.fail(None, f"runs, tokens and cost in hour {key[0]} of {key[1]}: {text}")


def _found(log: EventLog, kind: str, first: str) -> Iterator[tuple[tuple[str, str], tuple[int, ...]]]:
    query = _CELLS.format(
        key=KEYS[kind], category=int(kind == "category"), turned=_TURNED, tokens=_TOKENS, cost=_COST
    )
    for hour, name, *cell in audit.query(log, query, (first,)):
        yield (hour, f"{kind}:{name}"), tuple(int(number or 0) for number in cell)
