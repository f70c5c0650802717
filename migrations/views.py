"""The views of step 2: the log as rows, for people with a SQL shell, and a second computation for `loop verify`.

Plain SQL over `events`, for SQLite 3.37 and later. Like every step the texts are never edited after a release; a step
that changes a view brings a text of its own. `verify` puts them in front of its queries, so that it needs no migrated
store and trusts no stored view. A view may name those before it. A plus before a column keeps SQLite from looking up
every event of a type where the few of one session or pass are meant.
"""

from __future__ import annotations

_ENDS = "('session.ended', 'session.lost', 'session.spawn_failed')"

SESSIONS = f"""
SELECT
  r.session                                                AS id,
  r.category                                               AS category,
  json_extract(r.data, '$.task')                           AS task,
  json_extract(r.data, '$.backend')                        AS backend,
  json_extract(r.data, '$.pool')                           AS pool,
  json_extract(r.data, '$.rule')                           AS rule,
  json_extract(r.data, '$.trigger')                        AS "trigger",
  json_extract(r.data, '$.chain')                          AS chain,
  json_extract(r.data, '$.parent')                         AS parent,
  r.position                                               AS token,
  r.at                                                     AS requested_at,
  s.at                                                     AS started_at,
  e.at                                                     AS ended_at,
  e.type                                                   AS end_type,
  CASE e.type WHEN 'session.ended' THEN json_extract(e.data, '$.outcome')
              WHEN 'session.lost' THEN 'lost'
              WHEN 'session.spawn_failed' THEN 'refused' END AS outcome,
  CASE e.type WHEN 'session.ended' THEN json_extract(e.data, '$.reason')
              WHEN 'session.lost' THEN json_extract(e.data, '$.why')
              WHEN 'session.spawn_failed' THEN json_extract(e.data, '$.code') END AS reason,
  coalesce(
    (SELECT json_extract(g.data, '$.grade') FROM events g
     WHERE g.session = r.session AND +g.type = 'session.graded' ORDER BY g.position DESC LIMIT 1),
    json_extract(e.data, '$.grade'))                       AS grade,
  json_extract(e.data, '$.seconds')                        AS seconds,
  json_extract(e.data, '$.exit_code')                      AS exit_code,
  json_extract(e.data, '$.signal')                         AS signal,
  e.position                                               AS end_position
FROM events r
LEFT JOIN events s ON s.session = r.session AND +s.type = 'session.started'
LEFT JOIN events e ON e.session = r.session AND e.type IN {_ENDS}
WHERE r.type = 'session.requested'
"""
"""One row per session. `started_at` and all about the end are null while there is none; `seconds` is awake time."""

LOCK_INTERVALS = f"""
SELECT
  h.key                            AS "key",
  e.session                        AS session,
  r.position                       AS token,
  json_extract(h.value, '$.boot')    AS boot,
  json_extract(h.value, '$.from_ns') AS from_ns,
  json_extract(h.value, '$.to_ns')   AS to_ns,
  e.position                       AS position
FROM events e
JOIN events r ON r.session = e.session AND r.type = 'session.requested'
JOIN json_each(e.data, '$.held') h
WHERE e.type IN {_ENDS}
"""
"""One row per key that a session physically held: nanoseconds on the boot clock of `boot`, told at `position`."""

DECISIONS = """
SELECT
  d.position                                      AS position,
  d.at                                            AS at,
  d.tick                                          AS tick,
  json_extract(t.data, '$.trigger')               AS "trigger",
  json_extract(d.data, '$.policy')                AS policy,
  json_extract(d.data, '$.decider')               AS decider,
  json_extract(d.data, '$.slots.free')            AS free,
  json_array_length(d.data, '$.chosen')           AS chosen,
  json_array_length(d.data, '$.candidates')       AS candidates
FROM events d
LEFT JOIN events t ON t.tick = d.tick AND +t.type = 'tick.started'
WHERE d.type = 'fanout.decided'
"""
"""One row per decision: the slots that were free, how many were given, how many candidates were considered."""

SPAWNS_BY_CATEGORY = """
SELECT
  substr(started_at, 1, 13)                                          AS hour,
  category                                                           AS category,
  sum(coalesce(outcome, '') NOT IN ('limited', 'refused'))           AS started,
  sum(coalesce(seconds, 0.0))                                        AS seconds
FROM sessions
WHERE started_at IS NOT NULL
GROUP BY 1, 2
"""
"""Per UTC hour of the start: sessions that really started and were not turned away, and the seconds that all ran."""

VIEWS: dict[str, str] = {
    "sessions": SESSIONS,
    "lock_intervals": LOCK_INTERVALS,
    "decisions": DECISIONS,
    "spawns_by_category": SPAWNS_BY_CATEGORY,
}
