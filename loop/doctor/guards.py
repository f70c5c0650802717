"""The triggers and indexes that make the log append-only: all there, as they were made."""

from __future__ import annotations

from events import repair
from events.store import EventLog
from loop.doctor.check import Check, listed
from loop.home import Home


def triggers(home: Home, log: EventLog) -> Check:
    """Without them a stray UPDATE rewrites history in silence. Restored by `--fix`; what happened, `verify` finds."""
    lost = repair.lost_guards(log)
    if not lost:
        return Check("triggers", "ok", "all there: no event can be changed, removed, replaced or skipped")

    def mend() -> str:
        writer = EventLog.open(home.db)
        try:
            restored = repair.restore_guards(writer)
        finally:
            writer.close()
        return f"made {listed(restored)} anew; see what happened meanwhile: loop verify"

    detail = f"missing or changed: {listed(name for _, name in lost)}; until then anybody can rewrite events"
    return Check("triggers", "fail", detail, "loop doctor --fix, then: loop verify", mend)
