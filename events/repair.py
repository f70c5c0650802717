"""Guards of the store made anew: triggers and unique indexes that somebody dropped or changed.

Only what a fresh store of the same schema has is put back. No event is touched.
"""

from __future__ import annotations

from events.audit import expected_objects, objects
from events.store import EventLog

GUARDS = ("trigger", "index")


def lost_guards(log: EventLog) -> dict[tuple[str, str], str]:
    """(kind, name) -> the SQL of every trigger and index that a fresh store has and this one has not, or otherwise."""
    found = objects(log)
    return {
        key: sql for key, sql in expected_objects(log).items() if key[0] in GUARDS and found.get(key) != sql
    }


def restore_guards(log: EventLog) -> list[str]:
    """Put back what `lost_guards` names, all or nothing; returns the names. Raises StoreError, as for two ends of one
    session that came in meanwhile, which a unique index would refuse."""
    found = objects(log)
    with log.transaction():
        lost = lost_guards(log)
        for (kind, name), sql in lost.items():
            if (kind, name) in found:
                log._rows(f'DROP {kind} "{name}"')
            log._rows(sql)
    return [name for _, name in lost]
