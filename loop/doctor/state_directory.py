"""The state directory: rights, file system, space, and whether git ignores it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from events.place import wal_bytes
from events.store import WAL_LIMIT, EventLog
from loop.doctor.check import Check, Level, listed
from loop.filesystem import NETWORK_MEND, existing, kind_of, mount_of
from loop.home import Home
from loop.sessions import stopfile

DISK_LOW, DISK_OUT = 1 << 30, 64 << 20  # bytes free


def examine(home: Home, environ: Mapping[str, str]) -> list[Check]:
    return [_permissions(home), _writable(home), _filesystem(home), _disk(home), _gitignore(home, environ)]


def _permissions(home: Home) -> Check:
    """Directories 0700, files 0600. What sessions write into their run directories is theirs, behind a closed door."""
    if not home.state.is_dir():
        return Check("permissions", "ok", f"{home.state} is not there yet")
    owner = home.state.stat().st_uid
    if owner != os.geteuid():
        detail = f"{home.state} belongs to user {owner}, this is user {os.geteuid()}"
        return Check("permissions", "warn", detail, "run loop as one user")
    wide = {path: mode for path in _ours(home) if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077}
    if not wide:
        return Check("permissions", "ok", f"{home.state} is closed to others")

    def mend() -> str:
        for path, mode in wide.items():
            path.chmod(mode & ~0o077)
        return f"closed {listed(map(str, wide))} to others"

    detail = listed(f"{path} is {mode:04o}" for path, mode in wide.items())
    return Check("permissions", "fail", f"open to others: {detail}", "loop doctor --fix", mend)


def _ours(home: Home) -> Iterator[Path]:
    yield home.state
    for directory in (home.state, home.lock_dir, home.runs_dir):
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            # The STOP file is made by hand, in a hurry and with any rights; there is nothing in it to hide.
            yield from (Path(each.path) for each in entries if not each.is_symlink() and each.name != stopfile.NAME)


def _writable(home: Home) -> Check:
    """Without a word in the log nothing is started, and no end is recorded; found out without writing."""
    places = [path for path in (home.state, home.db, home.runs_dir, home.lock_dir) if path.exists()]
    closed = [str(path) for path in places or [existing(home.state)] if not os.access(path, os.W_OK)]
    if closed:
        detail = f"cannot write {listed(closed)}: nothing is started, and ends wait in their run directories"
        return Check("writable", "fail", detail, "mend its rights, or mount it for writing; the next pass goes on")
    return Check("writable", "ok", "the store and its directories can be written")


def _filesystem(home: Home) -> Check:
    """SQLite's write-ahead log and flock need a file system of this machine."""
    place = existing(home.state).resolve()
    name, point = mount_of(place)
    match kind_of(name):
        case "network":
            detail = f"{place} is on {name} ({point}): locks and the log do not hold there; no store is made there"
            return Check("filesystem", "fail", detail, f"end what runs, move {home.state} away, and {NETWORK_MEND}")
        case "unsure":
            detail = f"{place} is on {name} ({point}): if that is another machine's, locks and the log do not hold"
            return Check("filesystem", "warn", detail, NETWORK_MEND)
        case "forgetful":
            detail = f"{place} is on {name} ({point}): a reboot loses the log"
            return Check("filesystem", "warn", detail, "name a directory on a disk in loop.state")
        case "unknown":
            return Check("filesystem", "ok", "unknown")
    return Check("filesystem", "ok", f"{name} ({point})")


def _disk(home: Home) -> Check:
    from loop.duration import format_bytes

    usage = shutil.disk_usage(existing(home.state))
    detail = f"{usage.free / 2**30:.1f} GiB free"
    if usage.free >= DISK_LOW:
        return Check("disk", "ok", detail)
    level: Level = "fail" if usage.free < DISK_OUT else "warn"
    return Check("disk", level, f"{detail}, less than {format_bytes(DISK_LOW)}", "free some space")


def wal(home: Home) -> Check:
    size = wal_bytes(home.db)
    if size <= WAL_LIMIT:
        return Check("wal", "ok", f"{size / 2**20:.1f} MiB to be written back")
    detail = f"{home.db}-wal has {size >> 20} MiB: a reader has kept it from being written back"
    return Check("wal", "warn", detail, f"end it: fuser {home.db}; then: loop doctor --fix", written_back(home))


def written_back(home: Home) -> Callable[[], str]:
    """A mend: the write-ahead log into the store, as far as readers let it, and its file cut to nothing."""

    def mend() -> str:
        log = EventLog.open(home.db)
        try:
            whole = log.write_back()
        finally:
            log.close()
        return "written back" if whole else f"in part: a reader still keeps it; see who: fuser {home.db}"

    return mend


def _gitignore(home: Home, environ: Mapping[str, str]) -> Check:
    from loop.commands.init import ignore, is_ignored, work_tree

    tree = work_tree(existing(home.state.parent))
    if tree is None:
        return Check("gitignore", "ok", "the state directory is in no git work tree")
    if not home.state.parent.is_dir() or is_ignored(home.state, environ):
        return Check("gitignore", "ok", f"the state directory is ignored in {tree}")
    detail = f"{home.state} is in the work tree {tree} and not ignored: it could be committed"
    if home.root.is_relative_to(home.state):
        return Check("gitignore", "warn", detail, "name a directory of its own in loop.state")

    def mend() -> str:
        path = ignore(home.state, home.root, environ)
        return f"added {home.state.name}/ to {path}"

    return Check("gitignore", "warn", detail, "loop doctor --fix", mend)
