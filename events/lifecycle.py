"""The state machines, one table each: what may follow what.

A table maps (state, event type) to the next state; a pair that is not listed is illegal. Our own append of an illegal
transition is refused; an observation that contradicts the table is recorded as `violation.detected`. The diagrams in
`docs/lifecycle.md` are drawn from these tables.
"""

from __future__ import annotations

from typing import Literal

from events.errors import IllegalTransition

Table = dict[tuple[str, str], str]

SessionStatus = Literal["requested", "started", "ended", "lost", "spawn_failed"]
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
    ("ended", "session.ungraded"): "ended",
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
    ("probing", "backend.probed"): "probing",  # the session that tried it before said nothing either way
    ("probing", "backend.restored"): "available",
}

LOOP: Table = {
    (state, event): "frozen" if state == "frozen" and after != "running" else after  # only a resume thaws
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


def diagram(table: Table, begin: str) -> str:
    """A table as a mermaid state diagram; `begin` is the state in which its subject comes to be."""
    lines = ["stateDiagram-v2", f"    [*] --> {begin}"]
    for (state, event_type), after in table.items():
        lines.append(f"    {state or '[*]'} --> {after}: {event_type}")
    return "\n".join(lines if begin else [lines[0], *lines[2:]])


def document() -> str:
    """Every diagram, as `docs/lifecycle.md` has them."""
    tables = (("Session", SESSION, ""), ("Lock", LOCK, "free"), ("Backend", BACKEND, "available"))
    parts = [f"## {name}\n\n```mermaid\n{diagram(table, begin)}\n```\n" for name, table, begin in tables]
    return "\n".join([*parts, f"## Loop\n\n```mermaid\n{diagram(LOOP, 'running')}\n```\n"])


if __name__ == "__main__":
    print(document(), end="")
