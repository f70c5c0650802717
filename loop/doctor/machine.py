"""Is this machine fit for it: Python, our packages, SQLite, and not a session of ours."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from events.errors import StoreError
from events.sqlite import sqlite_version, wal_is_safe
from events.store import EventLog
from loop.doctor.check import Check, listed
from loop.doctor.log import opened
from loop.home import Home

if TYPE_CHECKING:
    pass

PACKAGES = ("events", "projections", "migrations", "cli")


def python() -> Check:
    detail = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux" or not os.path.exists("/proc/self/environ"):
        mend = "sessions need Linux with /proc; reading works here"
        return Check("platform", "fail", f"{detail}, no /proc", mend)
    return Check("platform", "ok", detail)


def packages() -> Check:
    """The package names are generic: another distribution's, first on the path, would be imported in their place."""
    import loop

    ours = Path(loop.__file__).resolve().parent.parent
    wrong: list[str] = []
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            wrong.append(f"{name} is not found")
        elif not Path(spec.origin).resolve().is_relative_to(ours):
            wrong.append(f"{name} is {spec.origin}")
    if wrong:
        mend = "install loop into an environment of its own (pipx install, uv tool install)"
        return Check("packages", "fail", f"not ours: {listed(wrong)}", mend)
    return Check("packages", "ok", f"{', '.join(PACKAGES)} are ours")


def inside_session(environ: Mapping[str, str]) -> Check:
    if session := environ.get("LOOP_SESSION"):
        detail = f"this is inside session {session}: tick, run and stop refuse"
        return Check("session", "warn", detail, "use a shell that loop did not start")
    return Check("session", "ok", "not inside a session")


def sqlite(store: tuple[Home, EventLog] | None) -> Check:
    safe = wal_is_safe()
    detail = f"SQLite {sqlite_version()} {'with' if safe else 'without'} the fix for the WAL-reset bug"
    mode = None
    if store is not None and store[0].db.exists():
        log = store[1]
        with contextlib.suppress(StoreError):  # the check of the store says so
            mode = log.journal_mode()
            detail += f", journal mode {mode}"
    mend = "install the pysqlite3 wheel, or a Python with SQLite 3.51.3 or later"
    if not safe and mode == "wal":
        assert store is not None
        return Check("sqlite", "fail", detail, f"loop doctor --fix; and {mend}", opened(store[0]))
    if safe and mode not in (None, "wal") and store is not None and store[1].origin is None:
        detail += ", where readers and writers wait for each other"
        return Check("sqlite", "warn", detail, "the next pass sets it to wal, or: loop doctor --fix", opened(store[0]))
    return Check("sqlite", "ok", detail) if safe else Check("sqlite", "warn", f"{detail}: slower, and safe", mend)
