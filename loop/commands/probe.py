"""`loop backends probe`: trying a backend before its time."""

from __future__ import annotations

from collections.abc import Mapping

from events.catalog import OperatorRequested
from events.envelope import to_text
from events.errors import RefusedError, UsageError
from loop.controller import Loop
from loop.home import Home
from loop.output import as_of, clean, console, print_json
from projections.view import backends


def probe(home: Home, environ: Mapping[str, str], name: str, *, reason: str | None, as_json: bool) -> int:
    """Let one session try a backend before its limit or its breaker would. Raises UsageError for an unknown backend,
    RefusedError where there is nothing to try."""
    with Loop(home, environ) as loop:
        with loop.journal.transaction() as entry:
            known = backends(entry.state, entry.now).get(name)
            if known is None:
                raise UsageError(f"no backend is named {clean(name, 64)!r}", "see: loop backends")
            if known.state == "available":
                text = "the next session on it is its probe" if known.trial else "it is available"
                raise RefusedError(f"nothing to try: {text}", f"start one: loop start CATEGORY --backend {name}")
            if known.because == "probing":
                raise RefusedError(f"a session tries {name} already", "see: loop backends")
            asked = OperatorRequested(action="probe", backend=name, reason=reason)
            entry.append(asked, actor="operator")
        state = loop.journal.refresh()
        now = loop.clock.now()
        after = backends(state, now)[name]
    if as_json:
        answer = {"schema": "loop.probe/1", "as_of": as_of(state.position, to_text(now)), "backend": name}
        print_json({**answer, "pool": after.pool, "state": after.state, "probe_due": bool(after.trial)})
    else:
        console().print(f"the next session on {name} tries it; start one now: loop start CATEGORY --backend {name}")
    return 0
