"""`reconcile`: what the log believes against what the machine shows, for every session that lives in the log.

| the run directory and the machine say                      | then                                             |
|------------------------------------------------------------|--------------------------------------------------|
| ended in order                                             | ingest                                           |
| no claim, the granter is gone                              | claim it, so that no late shim can; void it      |
| no claim, the granter may live                             | leave it                                         |
| claimed, the shim lives, or answers on its control socket  | leave it                                         |
| the shim is gone, processes carry the session's marker     | end them; whoever is left makes it alive         |
| the shim is gone, a kernel lock is held by somebody        | leave it: unknown is alive                       |
| the shim is gone, we hold every key, two sweeps find nobody | its end from the exit record, else `session.lost` |
| its run directory is gone after its start, or is damaged   | as for a shim that is gone, once it is           |

One session that cannot be settled holds up no other: it is told, with what to do, and looked at again the next time.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from events.catalog import Interval, LockReleased, Payload, SessionLost, SessionSpawnFailed, SessionStopping
from events.clock import Clock
from loop.journal import Entry, Journal
from loop.sessions import cgroup, handshake, ingest, locks, proc, rundir
from loop.sessions.faultpoint import faultpoint
from projections.sessions import Live

ACTOR = "reconcile"
GRACE = 20.0  # seconds between TERM and KILL for a session whose own grace went with its run directory
KILL_SECONDS = 5.0  # how long a look waits for what it has killed
SETTLE_SECONDS = 2.0  # how long a shim that ended in order has for its own ingest before others do it

#: What bad files bring about: damaged ones, those that cannot be read now, and well-formed ones that no shim writes.
UNFIT = (rundir.RunDirError, OSError, ValueError, TypeError, LookupError)


@dataclass(slots=True)
class Glance:
    """A session as it was left alone last: the times of its files, and the shim that claimed it."""

    stamp: tuple[int, int]
    shim: tuple[int, int, str]


Glances = dict[str, Glance]


class Look(NamedTuple):
    """The sessions whose end this look appended, and in words those that it could not settle."""

    ended: list[str]
    troubles: list[str]


@dataclass(frozen=True, slots=True)
class Orphan:
    """A session without its shim, of which processes are left. `grace` is seconds between TERM and KILL."""

    run_dir: str
    grace: float


Orphans = dict[str, Orphan]


def reconcile(
    journal: Journal, state_dir: Path, clock: Clock, *, settle: bool = False, glances: Glances | None = None
) -> Look:
    """Bring the log up to what happened. Raises StoreError, StoreBusy.

    Who looks often keeps `glances` between its calls: a session whose files are as they were and whose shim lives costs
    two stats then. `settle` leaves a session that ended within SETTLE_SECONDS to its own shim, which is about to
    ingest it. What dead shims have left is ended together, so that all of it takes no longer than the longest grace.
    """
    look, orphans = Look([], []), Orphans()
    seen = {} if glances is None else glances
    live_ones = journal.refresh().sessions["live"]
    for gone in seen.keys() - live_ones.keys():
        del seen[gone]
    for session, live in list(live_ones.items()):
        run_dir = rundir.path_of(str(state_dir), session)
        before, stamp = seen.pop(session, None), _stamp(run_dir, clock)
        if before is not None and before.stamp == stamp and proc.alive(*before.shim):
            seen[session] = before
            continue
        try:
            if _settle(journal, state_dir, session, live, clock, orphans, wait=settle):
                look.ended.append(session)
            elif stamp is not None and (claim := rundir.read_claim(run_dir)) is not None and claim["by"] == "shim":
                seen[session] = Glance(stamp, (claim["pid"], claim["start"], claim["boot"]))
        except UNFIT as error:
            look.troubles.append(f"session {session} ({live['category']}): {_told(error, run_dir)}")
    if orphans:
        _end_orphans(journal, orphans, clock)
        for session in orphans:
            if (left := journal.refresh().sessions["live"].get(session)) is not None:
                with contextlib.suppress(*UNFIT):  # the next look tells it
                    if _settle(journal, state_dir, session, left, clock, {}, wait=settle):
                        look.ended.append(session)
    return look


def _told(error: Exception, run_dir: str) -> str:
    """What is wrong with a session's files, and the mend."""
    if isinstance(error, rundir.RunDirError):
        return str(error)
    text = " ".join(str(error).split())[:300]
    mend = f"look at {run_dir}: without it, and once nothing of it runs, it counts as lost"
    return f"{type(error).__name__}: {text}; {mend}"


def _stamp(run_dir: str, clock: Clock) -> tuple[int, int] | None:
    """When a name last came into the run directory (ns), and the size of the one file that grows; None for no stamp.

    What happened within SETTLE_SECONDS has none: a name that comes in the same tick of the kernel's clock as a glance
    would leave the time as it was.
    """
    try:
        entered = os.stat(run_dir).st_mtime_ns
    except OSError:
        return None
    notes = 0
    with contextlib.suppress(FileNotFoundError):
        notes = os.stat(os.path.join(run_dir, "notes.jsonl")).st_size
    return (entered, notes) if clock.now() / 1e6 - entered / 1e9 > SETTLE_SECONDS else None


def _settle(
    journal: Journal, state_dir: Path, session: str, live: Live, clock: Clock, orphans: Orphans, *, wait: bool
) -> bool:
    """Whether the session's end is now in the log. Raises RunDirError where its files keep that from being known."""
    run_dir = rundir.path_of(str(state_dir), session)
    try:
        files = ingest.read(run_dir)
        claim = rundir.read_claim(run_dir)
        if files is None and claim is not None and claim["by"] == "shim" and live["status"] != "started":
            raise rundir.RunDirError(f"{run_dir}/spec.json is missing beside a claim")
    except rundir.RunDirError as error:
        if _bury_without_files(journal, state_dir, session, live, orphans, "run_directory_damaged"):
            return True
        if session in orphans:
            return False
        known = live["status"] == "started" or _shim_of(run_dir, live) is not None
        mend = "it counts as lost" if known else f"nobody knows its shim: remove {run_dir}"
        raise rundir.RunDirError(f"{error}; {mend} once nothing of it runs") from None
    if live["status"] == "started" and (claim is None or files is None):
        return _bury_without_files(journal, state_dir, session, live, orphans, "run_directory_missing")
    if claim is None or claim["by"] == "reconciler":
        return _void(journal, run_dir, session, live, claimed=claim is not None)
    assert files is not None
    if files.end is not None:
        if wait and _age(run_dir, "end.json", clock) < SETTLE_SECONDS:
            return False
        return ingest.ingest(journal, run_dir)
    ingest.ingest(journal, run_dir)
    if _shim_lives(run_dir, claim["pid"], claim["start"], claim["boot"]):
        return False
    return _bury(journal, state_dir, files, clock, orphans)


def _shim_lives(run_dir: str, pid: int, start: int, boot: str) -> bool:
    """Unless both the kernel and the control socket say that the shim is gone, it lives, and nothing is signalled.

    They can differ: a shim of another pid namespace, or one that a hidden /proc does not show, still listens.
    """
    return proc.alive(pid, start, boot) or handshake.ask(run_dir).listening


def _age(run_dir: str, name: str, clock: Clock) -> float:
    """Seconds since a file was written, by the wall clock; a clock that stepped back makes it negative: waited for."""
    with contextlib.suppress(OSError):
        return clock.now() / 1e6 - os.stat(os.path.join(run_dir, name)).st_mtime
    return 0.0


def _void(journal: Journal, run_dir: str, session: str, live: Live, *, claimed: bool) -> bool:
    """Void a request that nobody acts on, once whoever could still act on it is gone for certain."""
    if not claimed and (_may_start(run_dir, live) or not rundir.claim(run_dir, by="reconciler")):
        return False
    faultpoint("void.claimed")
    with journal.transaction() as entry:
        if session not in entry.state.sessions["live"]:
            return False
        failed = SessionSpawnFailed(code="voided", stage="claim", text="granted, but never started by its controller")
        _append(entry, session, live, failed)
        _release(entry, session, live, "voided")
    return True


def _may_start(run_dir: str, live: Live) -> bool:
    """Whether the shim that was launched, or the granter that may yet launch one, could be alive."""
    launched = rundir.read_launched(run_dir)
    if launched is not None:
        return proc.alive(launched["pid"], launched["start"], launched["boot"])
    pid, start, boot = live["granter"]
    if (pid, start) == (os.getpid(), proc.start_time(os.getpid())):
        return False  # this process makes one pass after another: one that broke off before its starts begins none now
    return proc.alive(pid, start, boot)


def _bury(journal: Journal, state_dir: Path, files: ingest.Files, clock: Clock, orphans: Orphans) -> bool:
    """The shim is gone: holding every key, append the end that can still be known; `orphans` first, if it left some."""
    spec, session = files.spec, files.spec["session"]
    lock_dir = str(state_dir / "locks")
    if proc.marked(files.run_dir):
        orphans[session] = Orphan(files.run_dir, spec["grace"])
        return False
    held = _hold(lock_dir, spec["keys"])
    if held is None:
        return False
    with held:
        if proc.marked(files.run_dir) or proc.marked(files.run_dir):
            return False
        intervals = _intervals(lock_dir, spec["keys"], spec["token"])
        if files.exit is not None:
            ends = ingest.end_events(files, files.exit, intervals)
        else:
            why = "shim_died" if files.claim and files.claim["boot"] == proc.boot_id() else "reboot"
            ends = [SessionLost(why=why, resume_token=ingest.conversation_of(files, clock.now()), held=intervals)]
        faultpoint("bury.held")
        _close_witness(held, lock_dir, spec["keys"], spec["token"], session)
        faultpoint("bury.closed")
        with journal.transaction() as entry:
            live = entry.state.sessions["live"].get(session)
            if live is None:
                return False
            ingest.progress(entry, files, live)
            ingest.append_end(entry, files, ends, how="lost")
        faultpoint("bury.said")
    cgroup.remove(files.run_dir)
    return True


def _bury_without_files(
    journal: Journal, state_dir: Path, session: str, live: Live, orphans: Orphans, why: str
) -> bool:
    """Nothing that can be read is left to tell its end: lost, once it certainly is over."""
    run_dir = rundir.path_of(str(state_dir), session)
    shim = _shim_of(run_dir, live)
    if shim is None and live["status"] != "started":
        return False
    if shim is not None and _shim_lives(run_dir, *shim):
        return False
    if proc.marked(run_dir):
        orphans[session] = Orphan(run_dir, GRACE)
        return False
    lock_dir = str(state_dir / "locks")
    held = _hold(lock_dir, live["keys"])
    if held is None:
        return False
    with held:
        if proc.marked(run_dir) or proc.marked(run_dir):
            return False
        intervals = _intervals(lock_dir, live["keys"], live["token"])
        _close_witness(held, lock_dir, live["keys"], live["token"], session)
        with journal.transaction() as entry:
            if session not in entry.state.sessions["live"]:
                return False
            _append(entry, session, live, SessionLost(why=why, held=intervals))
            _release(entry, session, live, "lost")
    cgroup.remove(run_dir)
    return True


def _shim_of(run_dir: str, live: Live) -> tuple[int, int, str] | None:
    """Which process the shim is, claim or no claim: by the log, or as it was launched; None where nobody says."""
    pid, start, boot = live["shim_pid"], live["shim_start"], live["boot"]
    if pid is not None and start is not None and boot is not None:
        return pid, start, boot
    with contextlib.suppress(rundir.RunDirError):
        if (launched := rundir.read_launched(run_dir)) is not None:
            return launched["pid"], launched["start"], launched["boot"]
    return None


def _hold(lock_dir: str, keys: Iterable[str]) -> locks.Held | None:
    """All keys of a session whose processes are gone, or None. Missing lock files are made anew, if nobody has the old
    ones open."""
    with contextlib.suppress(locks.LockRefused):
        return locks.try_hold(lock_dir, keys)
    paths = [locks.path_of(lock_dir, key) for key in keys]
    if any(not os.path.exists(path) and locks.holder_of_deleted(path) is not None for path in paths):
        return None
    for key in keys:
        locks.create(lock_dir, key)
    with contextlib.suppress(locks.LockRefused):
        return locks.try_hold(lock_dir, keys)
    return None


def _end_orphans(journal: Journal, orphans: Orphans, clock: Clock) -> None:
    """One TERM to every process of these sessions, KILL after their grace, until none is left or the time is up."""
    with journal.transaction() as entry:
        for session in orphans:
            live = entry.state.sessions["live"].get(session)
            if live is not None and live["status"] == "started" and live["stopping"] is None:
                _append(entry, session, live, SessionStopping(by=ACTOR, why="orphaned"))
    begun, told = clock.monotonic(), set[tuple[int, int]]()
    patience = max(orphan.grace for orphan in orphans.values()) + KILL_SECONDS
    left = True
    while left and (waited := clock.monotonic() - begun) <= patience:
        left = False
        for orphan in orphans.values():
            number = signal.SIGKILL if waited > orphan.grace else signal.SIGTERM
            for pid in proc.marked(orphan.run_dir):
                left, start = True, proc.start_time(pid)
                # A second TERM in a row makes some programs give up their clean-up.
                if start is not None and (number == signal.SIGKILL or (pid, start) not in told):
                    proc.send(pid, start, number)
                    told.add((pid, start))
        if left:
            clock.sleep(0.05)


def _intervals(lock_dir: str, keys: Iterable[str], token: int) -> dict[str, Interval]:
    """What the witness tells of this token; a hold without an end lasted until now, when the key is ours."""
    found: dict[str, Interval] = {}
    for key in keys:
        for interval in locks.intervals(locks.path_of(lock_dir, key)):
            if interval.token == token:
                now = proc.boottime_ns() if interval.boot == proc.boot_id() else interval.from_ns
                until = now if interval.to_ns is None else interval.to_ns
                found[key] = Interval(boot=interval.boot, from_ns=interval.from_ns, to_ns=until)
    return found


def _close_witness(held: locks.Held, lock_dir: str, keys: Iterable[str], token: int, session: str) -> None:
    """Declare the open holds of a token lost, while their locks are ours and before the log lets anyone else have them:

    the other way round, a crash between would leave two holds in a row and no end of the first.
    """
    for key in keys:
        if any(one.token == token and one.ended is None for one in locks.intervals(locks.path_of(lock_dir, key))):
            held.note_lost(key, token, session)


def _release(entry: Entry, session: str, live: Live, how: str) -> None:
    for key in live["keys"]:
        released = LockReleased.model_validate({"key": key, "token": live["token"], "how": how})
        _append(entry, session, live, released)


def _append(entry: Entry, session: str, live: Live, payload: Payload) -> None:
    entry.append(
        payload,
        actor=ACTOR,
        tick=live["tick"],
        cause=live["token"],
        session=session,
        category=live["category"],
    )
