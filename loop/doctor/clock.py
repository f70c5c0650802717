"""The wall clock against the log: times in it never run backwards, and a clock that does is recorded."""

from __future__ import annotations

from events.clock import Clock
from events.envelope import to_micros, to_text
from events.store import CLOCK_TOLERANCE, EventLog, Filter
from loop import output
from loop.doctor.check import Check

DAY = 86_400_000_000
FIRST = to_micros("2026-01-01T00:00:00.000000Z")  # before the first release: a clock that says so was never set


def examine(log: EventLog, head: str | None, clock: Clock) -> Check:
    """`head` is the time of the newest event."""
    now = clock.now()
    mend = "set it, and keep it set: timedatectl set-ntp true"
    if now < FIRST:
        return Check("clock", "fail", f"the clock says {to_text(now)}, which cannot be", mend)
    if head is not None and (behind := to_micros(head) - now) > CLOCK_TOLERANCE:
        detail = f"the clock is {output.span(behind / 1e6)} behind the newest event: it was set back, or ran ahead then"
        return Check("clock", "fail", f"{detail}; fires and windows are off until it has caught up", mend)
    steps = log.select(Filter(types=("clock.stepped",), since=to_text(now - DAY)))
    if steps:
        detail = f"set back {len(steps)} times in the last day, last at {output.local(steps[-1].at)}"
        return Check("clock", "warn", detail, f"{mend}; see: loop log --type clock.stepped")
    return Check("clock", "ok", f"{to_text(now)[:19]}Z, not behind the log")
