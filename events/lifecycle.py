"""The state machines, one table each: what may follow what.

A table maps (state, event type) to the next state; a pair that is not listed is illegal. Our own append of an illegal
transition is refused; an observation that contradicts the table is recorded as `violation.detected`. The diagrams in
`docs/lifecycle.md` are drawn from these tables.
"""

from __future__ import annotations

from typing import Literal

from events.errors import IllegalTransition

Table = dict[tuple[str, str], str]

SessionStatus = Literal["requested", "started", "ended", "lost", "spawn_failed", "graded"]
BackendStatus = Literal["available", "limited", "probing"]
LoopMode = Literal["running", "paused", "draining", "frozen"]

SESSION: Table = {
    ("", "session.requested"): "requested",
    ("requested", "session.started"): "started",
    ("requested", "session.spawn_failed"): "spawn_failed",
    ("requested", "session.lost"): "lost",
    ("started", "session.adopted"): "started",
    ("started", "session.warned"): "started",
    ("started", "session.stopping"): "started",
    ("started", "session.ended"): "ended",
    ("started", "session.lost"): "lost",
    ("ended", "session.graded"): "ended",
}

LOCK: Table = {
    ("free", "lock.acquired"): "held",
    ("held", "lock.refused"): "held",
    ("held", "lock.released"): "free",
}

BACKEND: Table = {
    ("available", "backend.limited"): "limited",
    ("limited", "backend.limited"): "limited",
    ("limited", "backend.probed"): "probing",
    ("limited", "backend.restored"): "available",
    ("probing", "backend.limited"): "limited",
    ("probing", "backend.restored"): "available",
}

LOOP: Table = {
    (state, event): after
    for state in ("running", "paused", "draining", "frozen")
    for event, after in (
        ("loop.paused", "paused"),
        ("loop.draining", "draining"),
        ("loop.frozen", "frozen"),
        ("loop.resumed", "running"),
    )
}

SESSION_ENDS = frozenset({"session.ended", "session.lost", "session.spawn_failed"})


def advance(table: Table, state: str, event_type: str, subject: str) -> str:
    """The state after `event_type`; raises IllegalTransition, naming `subject`, where the table has no such step."""
    try:
        return table[state, event_type]
    except KeyError:
        raise IllegalTransition(f"{subject}: {event_type} is illegal in state {state or 'none'!r}") from None
