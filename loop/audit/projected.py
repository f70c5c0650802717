"""The State at head against a second computation: plain SQL over `events`, which shares no code with the folds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from events import audit
from events.store import EventLog
from loop.audit import spent
from loop.audit.checks import Tally
from projections.fold import HOURS_KEPT, RECENT
from projections.locks import FINDINGS_KEPT
from projections.outcomes import ASSESSED
from projections.state import State

OVERLAPS_KEPT = 1_000  # pairs of overlapping intervals that are looked at one by one

# An interval overlaps one that began before it exactly if it begins before the latest end of those. Only the few that
# do are joined with the others of their key and boot, so that this takes n log n and not n squared.
_OVERLAPS = """
SELECT DISTINCT a.key, max(a.token, b.token), max(a.position, b.position)
FROM (SELECT *, max(to_ns) OVER (PARTITION BY key, boot ORDER BY from_ns, to_ns
                                 ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest FROM lock_intervals) a
CROSS JOIN lock_intervals b
  ON b.key = a.key AND b.boot = a.boot AND b.token <> a.token AND a.from_ns < b.to_ns AND b.from_ns < a.to_ns
WHERE a.from_ns < a.latest ORDER BY 3 LIMIT ?
"""
_HELD = """
SELECT a.key, a.token FROM (
  SELECT json_extract(data, '$.key') AS key, json_extract(data, '$.token') AS token, max(position) AS position
  FROM events WHERE type = 'lock.acquired' AND NOT coalesce(json_extract(data, '$.imported'), 0) GROUP BY 1) a
WHERE NOT EXISTS (
  SELECT 1 FROM events r WHERE r.type = 'lock.released' AND r.position > a.position
  AND json_extract(r.data, '$.key') = a.key AND json_extract(r.data, '$.token') = a.token
  AND NOT coalesce(json_extract(r.data, '$.imported'), 0))
"""

Overlaps = list[tuple[str, int, int]]


def intervals(log: EventLog, tally: Tally) -> Overlaps:
    """Check that the physical intervals of a key are disjoint within a boot; returns (key, later token, position) of
    each pair that is not."""
    tally.checked = int(audit.query(log, "SELECT count(*) FROM lock_intervals")[0][0])
    for key, position in audit.query(
        log, "SELECT key, position FROM lock_intervals WHERE to_ns < from_ns ORDER BY 2 LIMIT ?", (OVERLAPS_KEPT,)
    ):
        tally.fail(position, f"the hold of {key} told at {position} ends before it begins")
    rows = audit.query(log, _OVERLAPS, (OVERLAPS_KEPT,))
    found: Overlaps = [(str(key), int(token), int(position)) for key, token, position in rows]
    for key, token, position in found:
        tally.fail(position, f"two sessions physically held {key} at once; the later has token {token}")
    return found


def compare(log: EventLog, state: State, overlaps: Overlaps | None, stepped_back: bool, tally: Tally) -> None:
    """Compare `state`, folded to head, with what SQL finds; `log` must stand still.

    `overlaps` is what `intervals` found, None where it could not look. Where the clock was ever set back
    (`stepped_back`) the oldest hours may be kept in part only; they are not compared then.
    """
    _sessions(log, state, tally)
    _locks(log, state, overlaps, tally)
    _fires(log, state, tally)
    spent.compare(log, state, stepped_back, tally)
    kept = max(len(state.allocation["hours"]), len(state.outcomes["counts"]))
    if stepped_back and kept >= HOURS_KEPT:
        tally.note = "hours not compared: the clock was set back, and not all hours are kept"
    else:
        _started_by_hour(log, state, tally)
        _outcomes_by_hour(log, state, tally)


def _sessions(log: EventLog, state: State, tally: Tally) -> None:
    live = [row[0] for row in audit.query(log, "SELECT id FROM sessions WHERE end_type IS NULL ORDER BY token")]
    _same(tally, "live sessions", list(state.sessions["live"]), live)
    ends = dict(audit.query(log, "SELECT outcome, count(*) FROM sessions WHERE end_type IS NOT NULL GROUP BY 1"))
    _same(tally, "ended sessions", state.sessions["ended"], sum(ends.values()))
    _same(tally, "unproven sessions", state.outcomes["unproven"], ends.get("unproven", 0))
    words = ", ".join(f"'{outcome}'" for outcome in sorted(ASSESSED))
    last = audit.query(
        log, f"SELECT id, outcome FROM sessions WHERE outcome IN ({words}) ORDER BY end_position DESC LIMIT {RECENT}"
    )
    assessed = [(item["session"], item["outcome"]) for item in state.outcomes["assessed"]]
    _same(tally, "the last assessed sessions", assessed, last[::-1])
    noops = sum(outcome == "noop" for _, outcome in assessed)
    _same(tally, "noops of the last assessed", noops, sum(row[1] == "noop" for row in last))
    total = audit.query(log, "SELECT coalesce(sum(started), 0) FROM spawns_by_category")[0][0]
    _same(tally, "sessions spawned", state.allocation["total"], total)


def _locks(log: EventLog, state: State, overlaps: Overlaps | None, tally: Tally) -> None:
    held = {key: lock["token"] for key, lock in state.locks["held"].items()}
    _same(tally, "held locks", held, dict(audit.query(log, _HELD)))
    if overlaps is None or len(overlaps) >= OVERLAPS_KEPT or state.locks["violations"] > FINDINGS_KEPT:
        return
    pairs = {(key, token) for key, token, _ in overlaps}
    counted = {(key, token) for key, token in state.locks["found"]}
    _same(tally, "same-lock violations that SQL finds and the fold missed", [], sorted(pairs - counted))
    by_interval = {(item["key"], item["token"]) for item in state.locks["items"] if item["kind"] == "intervals_overlap"}
    _same(tally, "same-lock violations of the fold that SQL does not find", sorted(by_interval - pairs), [])


def _fires(log: EventLog, state: State, tally: Tally) -> None:
    """The decisions that the fold judges obedience by are decisions of the log."""
    fires = [(fire["tick"], fire["at"]) for fire in state.selection["fires"].values()]
    sql = f"SELECT tick, at FROM decisions WHERE tick IN ({', '.join('?' * len(fires))}) ORDER BY position"
    _same(tally, "decisions of the last fires", fires, audit.query(log, sql, [tick for tick, _ in fires]))


def _started_by_hour(log: EventLog, state: State, tally: Tally) -> None:
    hours = state.allocation["hours"]
    sql = "SELECT hour, category, started, seconds FROM spawns_by_category WHERE hour >= ?"
    found = {(hour, name): (count, secs) for hour, name, count, secs in _kept(log, sql, hours)}
    folded = {
        (hour, name): (count, micros / 1e6) for hour, cells in hours.items() for name, (count, micros) in cells.items()
    }
    tally.checked += len(found)
    for key in sorted(found.keys() | folded.keys()):
        ours, theirs = folded.get(key, (0, 0.0)), found.get(key, (0, 0.0))
        if ours[0] != theirs[0] or not math.isclose(ours[1], theirs[1], rel_tol=1e-9, abs_tol=1e-3):
            _differ(tally, f"started (count, seconds) in hour {key[0]} of {key[1]}", ours, theirs)


def _outcomes_by_hour(log: EventLog, state: State, tally: Tally) -> None:
    hours = state.outcomes["counts"]
    sql = (
        "SELECT substr(ended_at, 1, 13) AS hour, outcome, count(*) FROM sessions"
        " WHERE ended_at IS NOT NULL AND substr(ended_at, 1, 13) >= ? GROUP BY 1, 2"
    )
    found = {(hour, outcome): count for hour, outcome, count in _kept(log, sql, hours)}
    folded = {(hour, outcome): count for hour, cells in hours.items() for outcome, count in cells.items()}
    tally.checked += len(found)
    for key in sorted(found.keys() | folded.keys()):
        if found.get(key, 0) != folded.get(key, 0):
            _differ(tally, f"ends {key[1]} in hour {key[0]}", folded.get(key, 0), found.get(key, 0))


def _kept(log: EventLog, sql: str, hours: Iterable[str]) -> list[tuple[Any, ...]]:
    """Rows of the hours that the fold keeps; the hour comes first."""
    kept = set(hours)
    return [row for row in audit.query(log, sql, (min(kept, default=""),)) if row[0] in kept or len(kept) < HOURS_KEPT]


def _same(tally: Tally, what: str, folded: object, found: object) -> None:
    tally.checked += 1
    if folded != found:
        _differ(tally, what, folded, found)


def _differ(tally: Tally, what: str, folded: object, found: object) -> None:
    tally.fail(None, f"{what}: the fold has {_short(folded)}, the log says {_short(found)}")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 120 else text[:119] + "…"
