"""What sessions left on disk: directories that nobody knows, and more or older ones than is to be kept."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from events.clock import Clock
from events.store import EventLog, Filter
from loop.controller import kernel_lock
from loop.doctor.check import Check, listed
from loop.home import Home
from loop.journal import Journal
from loop.sessions import proc, retention, rundir

if TYPE_CHECKING:
    from loop.config import Config


def run_directories(home: Home, log: EventLog) -> Check:
    """Those of which the log knows no session; `--fix` moves them out of the way of sessions to come."""
    try:
        names = sorted(os.listdir(home.runs_dir))
    except FileNotFoundError:
        names = []
    alien = [name for name in names if not log.select(Filter(session=name), limit=1)]
    if not alien:
        return Check("run_directories", "ok", f"{len(names)}, all of sessions in the log" if names else "none yet")

    def mend() -> str:
        aside, said = home.state / "orphaned", []
        aside.mkdir(mode=0o700, exist_ok=True)
        for name in alien:
            if (pid := _alive(home, name)) is not None:
                said.append(f"{name} is left alone: process {pid} is about it")
            elif (aside / name).exists():
                said.append(f"{name} is left alone: {aside} has one of that name")
            else:
                os.rename(home.runs_dir / name, aside / name)
                said.append(f"moved {name} to {aside}")
        return listed(said, "; ")

    detail = f"{len(alien)} in {home.runs_dir} of which the log knows no session: {listed(alien)}"
    return Check("run_directories", "warn", detail, "was the store replaced? if not: loop doctor --fix", mend)


def _alive(home: Home, name: str) -> int | None:
    """A process that is, or may be, about a run directory."""
    run_dir = rundir.path_of(str(home.state), name)
    if pids := proc.marked(run_dir):
        return pids[0]
    for read in (rundir.read_claim, rundir.read_launched):
        try:
            acting = read(run_dir)
        except (rundir.RunDirError, OSError):
            continue
        if acting is not None and proc.alive(acting["pid"], acting["start"], acting["boot"]):
            return acting["pid"]
    return None


def kept(home: Home, log: EventLog, config: Config, clock: Clock) -> Check:
    """Output against `[retention]`: passes remove it hourly; what they have not come to, `--fix` removes now."""
    limits = config.retention
    seen = retention.survey(log, home.state, age=limits.age, size=limits.size, now=clock.now())
    detail = f"{seen.bytes / 2**20:.1f} MiB of output in {seen.count} run directories"
    if not seen.due and not seen.left:
        return Check("retention", "ok", detail)

    def mend() -> str:
        journal = Journal(EventLog.open(home.db, clock=clock))
        try:
            with kernel_lock(home.retention_lock) as got:
                if not got:
                    return "another process is at it"
                gone = retention.sweep(journal, home.state, clock, age=limits.age, size=limits.size)
        finally:
            journal.close()
        return f"removed the output of {len(gone)} sessions, {sum(each.output.bytes for each in gone) / 2**20:.1f} MiB"

    detail += f"; {len(seen.due)} of them are to be removed by [retention]"
    if seen.left:
        left = listed(str(home.state / "removed" / name) for name in seen.left)
        detail += f", and {len(seen.left)} could not be deleted: {left}"
    return Check("retention", "warn", detail, "a pass does that hourly, or: loop doctor --fix", mend)
