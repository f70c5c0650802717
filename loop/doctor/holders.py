"""Who holds a key: the log's belief, the kernel's, and the witness in the lock file, held against each other.

Nothing here takes a lock, not even for an instant: a shim that found it taken would give its session up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from events.store import EventLog
from loop.doctor.check import Check, listed
from loop.home import Home
from loop.sessions import ingest, locks, proc, rundir

if TYPE_CHECKING:
    from projections.sessions import Live
    from projections.state import State


def held_locks(home: Home, log: EventLog, state: State) -> Check:
    """Kernel locks that somebody holds while no session of the log lives under the key: those to come are refused."""
    held = {path: pids for path, pids in kernel_holders(home.lock_dir).items() if pids}
    if held:  # a session granted since `state` was folded is no stranger
        state = state.copy().fold(log.events(state.position))
    live = {key for session in state.sessions["live"].values() for key in session["keys"]}
    strangers = {_key(path): pids[0] for path, pids in held.items() if _key(path) not in live}
    if not strangers:
        return Check("held_locks", "ok", f"{len(held)} held, each by a session that lives" if held else "none is held")
    detail = listed(f"{key} by process {pid} ({_command(pid)})" for key, pid in strangers.items())
    mend = f"see what it is, then end it: kill {' '.join(map(str, sorted(set(strangers.values()))))}"
    return Check("held_locks", "fail", f"held though no session lives under it: {detail}", mend)


def live_sessions(home: Home, state: State) -> Check:
    """Sessions that live in the log and nowhere else: their keys and slots are taken until somebody looks."""
    live = state.sessions["live"]
    gone = [session for session, each in live.items() if not _acts(home, session, each)]
    damaged = [text for session in live if (text := _damage(home, session)) is not None]
    if damaged and not gone:
        detail = f"their processes run, and their files are damaged: {listed(damaged)}"
        return Check("live_sessions", "warn", detail, "they count as lost once nothing of them runs: loop stop SESSION")
    if not gone:
        return Check("live_sessions", "ok", f"{len(live)}, each with its process" if live else "none lives")

    def mend() -> str:
        from loop.controller import Loop

        with Loop(home, os.environ) as loop:
            ended = loop.reconcile()
        left = [] if ended else ["none, their processes or locks are still there"]
        return f"ended in the log: {listed([*ended, *left, *loop.troubles], '; ')}"

    detail = f"over, or never begun, and still live in the log: {listed([*gone, *damaged])}"
    return Check("live_sessions", "warn", detail, "the next pass sees to it, or: loop doctor --fix", mend)


def _damage(home: Home, session: str) -> str | None:
    """What of a live session's files cannot be read."""
    run_dir = rundir.path_of(str(home.state), session)
    try:
        rundir.read_claim(run_dir)
        ingest.read(run_dir)
    except rundir.RunDirError as error:
        return str(error)
    return None


def witnesses(home: Home, log: EventLog) -> Check:
    """A lock file that has seen a later token than the log has positions: the log is an older one than the locks."""
    head = log.head().position
    ahead = {path: token for path in _lock_files(home.lock_dir) if (token := locks.last_token(path) or 0) > head}
    if not ahead:
        return Check("witnesses", "ok", "no lock file knows of more than the log")

    def mend() -> str:
        if pids := proc.of_runs(str(home.runs_dir)):
            return f"left alone: process {pids[0]} is of a session that still runs"
        aside = home.state / "orphaned"
        aside.mkdir(mode=0o700, exist_ok=True)
        said = []
        for path in ahead:
            with locks.hold(str(home.lock_dir), [_key(path)], inherit=False):
                os.rename(path, _free_name(aside, os.path.basename(path)))
            locks.create(str(home.lock_dir), _key(path))
            said.append(_key(path))
        return f"{listed(said)}: a new lock file, the old one is in {aside}"

    detail = listed(f"{_key(path)} has seen token {token}" for path, token in ahead.items())
    detail = f"the log ends at {head}, but {detail}: it was restored from an older copy, and nothing starts there"
    return Check("witnesses", "fail", detail, "once nothing of it runs: loop doctor --fix", mend)


def kernel_holders(lock_dir: Path) -> Mapping[str, list[int]]:
    """Lock file -> the processes with a descriptor that carries its flock; those of other users cannot be seen."""
    paths = {os.path.realpath(path): path for path in _lock_files(lock_dir)}
    found: dict[str, list[int]] = {path: [] for path in paths.values()}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        for fd, target in _descriptors(pid):
            if target in paths and _carries_flock(pid, fd) and pid not in found[paths[target]]:
                found[paths[target]].append(pid)
    return found


def _descriptors(pid: int) -> Iterator[tuple[str, str]]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            yield name, os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue


def _carries_flock(pid: int, fd: str) -> bool:
    try:
        return "FLOCK" in Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
    except OSError:
        return False


def _acts(home: Home, session: str, live: Live) -> bool:
    """Whether anybody is there who could still bring the session to its end: unknown counts as yes."""
    run_dir = rundir.path_of(str(home.state), session)
    if live["status"] == "started":
        pid, start, boot = live["shim_pid"], live["shim_start"], live["boot"]
        if pid is None or start is None or boot is None or proc.alive(pid, start, boot):
            return True
        return bool(proc.marked(run_dir))
    try:
        acting = rundir.read_claim(run_dir) or rundir.read_launched(run_dir)
    except rundir.RunDirError:
        return True
    if acting is not None:
        return proc.alive(acting["pid"], acting["start"], acting["boot"]) or bool(proc.marked(run_dir))
    pid, start, boot = live["granter"]
    return bool(proc.alive(pid, start, boot))


def _lock_files(lock_dir: Path) -> list[str]:
    try:
        names = sorted(name for name in os.listdir(lock_dir) if name.endswith(".lock"))
    except FileNotFoundError:
        return []
    return [path for name in names if locks.KEY.fullmatch(_key(path := os.path.join(lock_dir, name)))]


def _key(path: str) -> str:
    return os.path.basename(path).removesuffix(".lock")


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "gone meanwhile"


def _free_name(directory: Path, name: str) -> Path:
    number = 1
    while (found := directory / f"{name}.{number}").exists():
        number += 1
    return found
