"""The witnesses against the log: whether two sessions ever held one key at once, whatever the loop believed.

A witness is written by the shims under the kernel lock (`loop.sessions.locks`), the log by everybody else. Both tell
the same story, or something is wrong:

- tokens rise, and a hold ends before the next begins, in the order of the file, which needs no clock;
- within one boot the physical intervals are disjoint;
- a hold that nothing ended belongs to a session that lives, or the log has its measured end (a disk too full for a
  line must not keep a key locked).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from events.catalog import ViolationDetected
from loop.journal import Journal
from loop.sessions import locks
from projections.locks import INTERVALS_KEPT
from projections.state import State

ACTOR = "witness"


class Fault(NamedTuple):
    """Where a witness and the log cannot both be right; `token` and `session` are of the later hold."""

    kind: str
    key: str
    token: int
    session: str
    expected: str
    observed: str


class Known(NamedTuple):
    """What the log has of one key: tokens of sessions that live, and where each measured hold ended (boot, ns)."""

    live: frozenset[int]
    measured: Mapping[int, tuple[str, int]]


def faults(key: str, holds: Iterable[locks.HeldInterval], known: Known) -> list[Fault]:
    """Everything wrong with the holds of one key, in their order; pure."""
    found: list[Fault] = []
    before: locks.HeldInterval | None = None
    for hold in holds:

        def fault(kind: str, expected: str, observed: str, at: locks.HeldInterval = hold) -> None:
            found.append(Fault(kind, key, at.token, at.session, expected, observed))

        if before is not None:
            end = before.to_ns if before.to_ns is not None else _measured_end(before, known)
            if hold.token <= before.token:
                fault("token_not_rising", f"a token above {before.token}", f"{hold.token}")
            elif before.ended is None and before.token not in known.measured:
                fault("acquired_while_held", f"an end of token {before.token}", f"token {hold.token} acquired")
            elif end is not None and before.boot == hold.boot and hold.from_ns < end:
                fault("witness_overlap", f"from {end} ns on", f"from {hold.from_ns} ns on, while {before.token} held")
        before = hold
    if before is not None and before.ended is None and not {before.token} & (known.live | known.measured.keys()):
        expected = "an end in the witness, or a session that lives"
        found.append(Fault("held_after_end", key, before.token, before.session, expected, "a hold that nothing ended"))
    return found


def _measured_end(hold: locks.HeldInterval, known: Known) -> int | None:
    boot, end = known.measured.get(hold.token, ("", 0))
    return end if boot == hold.boot else None


def twice(once: Callable[[], list[Fault]]) -> list[Fault]:
    """The faults that two looks in a row find: between reading a witness and reading the log a session may end."""
    first = once()
    return [fault for fault in once() if fault in first] if first else []


def record_violations(journal: Journal, lock_dir: str) -> list[Fault]:
    """Append `violation.detected` for every fault that the log does not count yet; returns those.

    Looks at the last INTERVALS_KEPT holds of every key, so it must be called more often than a key is held that many
    times: at every fire and every session's end. Raises StoreError and StoreBusy; a witness that cannot be read now is
    read the next time.
    """

    def look() -> list[Fault]:
        recent = {key: _recent(lock_dir, key) for key in keys_of(lock_dir)}
        state = journal.refresh()
        return [fault for key, holds in recent.items() for fault in faults(key, holds, known_of(state, key))]

    suspects = [fault for fault in twice(look) if not _is_counted(journal.state, fault)]
    recorded: list[Fault] = []
    if not suspects:
        return recorded
    with journal.transaction() as entry:
        for fault in suspects:
            if _is_counted(entry.state, fault):  # by another process, or as the first fault of this hold
                continue
            violation = ViolationDetected(
                kind=fault.kind, key=fault.key, token=fault.token, expected=fault.expected, observed=fault.observed,
                text=f"{locks.path_of(lock_dir, fault.key)} tells it",
            )  # fmt: skip
            category = _category(entry.state, fault)
            entry.append(violation, actor=ACTOR, session=fault.session, category=category)
            recorded.append(fault)
    return recorded


def keys_of(lock_dir: str) -> list[str]:
    """The keys that have a lock file; other names in the directory are none of ours."""
    with contextlib.suppress(FileNotFoundError):
        names = (name.removesuffix(".lock") for name in os.listdir(lock_dir) if name.endswith(".lock"))
        return sorted(name for name in names if locks.KEY.fullmatch(name))
    return []


def known_of(state: State, key: str) -> Known:
    """What the folded log has of a key: all that live, and the last INTERVALS_KEPT ends."""
    claims = state.locks["claims"].get(key, {})
    measured = {token: (boot, end) for boot, _, end, token in state.locks["intervals"].get(key, [])}
    return Known(frozenset(claims.values()), measured)


def _recent(lock_dir: str, key: str) -> list[locks.HeldInterval]:
    with contextlib.suppress(OSError):
        # One more than the log keeps might have an end that the log has forgotten.
        return locks.intervals(locks.path_of(lock_dir, key), tail=locks.WITNESS_RECENT)[-INTERVALS_KEPT:]
    return []


def _is_counted(state: State, fault: Fault) -> bool:
    return [fault.key, fault.token] in state.locks["found"]


def _category(state: State, fault: Fault) -> str | None:
    """The category of the later session, or that whose permit the key is; a further key alone is nobody's own."""
    live = state.sessions["live"].get(fault.session)
    if live is not None:
        return live["category"]
    name, config = fault.key.partition("#")[0], state.control["config"]
    return name if config is not None and name in config["categories"] else None
