"""The kernel lock of each key, and the witness inside its lock file.

`<lock_dir>/<key>.lock` is made once, never deleted and never renamed (two inodes of one name would be two locks).
`flock` belongs to the open file, so a worker that inherits the descriptor keeps the key locked even when its shim
is killed. The file's content is the witness: append-only lines, written only under the lock, that tell the
physical intervals without any belief of the controller:

    A <token> <session> <boot id> <boottime ns> <pid> <start>    acquired
    R <token> <session> <boot id> <boottime ns>                  released by its holder
    L <token> <session> <boot id> <boottime ns>                  declared lost, by a reconciler that held the lock

Their order needs no clock: A (R or L), A (R or L), … with rising tokens. Standard library only, as the shim has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from loop.sessions import proc, rundir
from loop.sessions.faultpoint import faultpoint

KEY = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}(#[0-9]+)?")
_WITNESS = re.compile(r"([ARL]) ([0-9]+) (\S+) (\S+) ([0-9]+)( [0-9]+ [0-9]+)?")
WITNESS_TAIL = 1 << 16  # bytes; some 500 lines
WITNESS_RECENT = 1 << 12  # bytes; some 30 lines

RefusedCode = Literal["lock_held", "lock_missing", "lock_replaced", "stale_token"]


class LockRefused(Exception):
    """A key could not be had. Nothing is waited for, and every key taken on the way is free again."""

    def __init__(self, code: RefusedCode, key: str, text: str) -> None:
        super().__init__(text)
        self.code: RefusedCode = code
        self.key = key


class HeldInterval(NamedTuple):
    """One physical hold of a key as its witness tells it.

    `to_ns` is None while nothing ended it, and where the end was written in a later boot, whose clock is another.
    """

    token: int
    session: str
    boot: str
    from_ns: int
    to_ns: int | None
    ended: Literal["released", "lost"] | None


class Held:
    """Kernel locks on a set of keys, all of them. Ends with `release`, or when the last inheritor exits.

    The descriptors that carry the locks are read-only, so that no worker writes into a witness by accident.
    """

    def __init__(self, lock_dir: str, fds: dict[str, int], *, inherit: bool) -> None:
        self.lock_dir = lock_dir
        self._fds = fds
        self._inherit = inherit
        self._since: dict[str, tuple[int, str, str, int]] = {}
        self._spans: dict[str, rundir.Interval] = {}

    @property
    def keys(self) -> list[str]:
        """The keys, in the order they were taken."""
        return list(self._fds)

    @property
    def spans(self) -> dict[str, rundir.Interval]:
        """The physical intervals of the keys that were noted as acquired and have been noted as released."""
        return dict(self._spans)

    def note_acquired(self, token: int, session: str) -> None:
        """Append the `A` lines. Raises LockRefused (`stale_token`) before any of them, OSError for a full disk.

        A file that has seen this token or a later one belongs to a later session: ours was overtaken.
        """
        for key in self._fds:
            seen = last_token(path_of(self.lock_dir, key))
            if seen is not None and seen >= token:
                text = f"{key} has already been held under token {seen}, this session's is {token}"
                raise LockRefused("stale_token", key, text)
        pid, boot = os.getpid(), proc.boot_id()
        for key in self._fds:
            since = proc.boottime_ns()
            # Before the write: a line that reached the file although fsync failed must get its end, too.
            self._since[key] = (token, session, boot, since)
            start = proc.start_time(pid)
            faultpoint("witness.locked")
            self._append(key, f"A {token} {session} {boot} {since} {pid} {start}")
            faultpoint("witness.acquired")

    def note_released(self) -> list[OSError]:
        """Append an `R` line for every key noted as acquired. Returns what could not be written; never raises it.

        A disk that is full must not keep a key locked.
        """
        failures: list[OSError] = []
        for key, (token, session, boot, since) in list(self._since.items()):
            until = proc.boottime_ns()
            try:
                faultpoint("witness.ending")
                self._append(key, f"R {token} {session} {boot} {until}")
                faultpoint("witness.released")
            except OSError as error:
                failures.append(error)
            self._spans[key] = {"boot": boot, "from_ns": since, "to_ns": until}
            del self._since[key]
        return failures

    def note_lost(self, key: str, token: int, session: str) -> None:
        """Append an `L` line: the holder of `token` ended without a word. Only under this lock. Raises OSError."""
        self._append(key, f"L {token} {session} {proc.boot_id()} {proc.boottime_ns()}")

    def release(self) -> None:
        """Let go; keys held for inheritance are free once no other process has inherited them. Idempotent."""
        while self._fds:
            fd = self._fds.popitem()[1]
            if not self._inherit:
                # A child that another thread has just forked still has the descriptor, until its exec closes it.
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _append(self, key: str, line: str) -> None:
        assert key in self._fds, f"{key} is not held"
        fd = os.open(path_of(self.lock_dir, key), os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            # A line cut short by a crash must not swallow this one.
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            data = (("\n" if torn else "") + line + "\n").encode()
            if os.write(fd, data) != len(data):
                raise OSError(f"{path_of(self.lock_dir, key)}: short write, the disk is full")
            os.fsync(fd)
        finally:
            os.close(fd)


def path_of(lock_dir: str, key: str) -> str:
    """The lock file of `key`. Raises ValueError for a key that is none."""
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no lock key: it must match {KEY.pattern}")
    return os.path.join(lock_dir, f"{key}.lock")


def create(lock_dir: str, key: str) -> bool:
    """Make the lock file of `key`, durably; False if it exists, which is left alone. Raises OSError.

    Only for a key that has never been used: a file that is missing later is a fault, not a reason to make one.
    """
    path = path_of(lock_dir, key)
    rundir.make_directory(lock_dir)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    rundir.sync_directory(lock_dir)
    return True


def hold(lock_dir: str, keys: Iterable[str], *, inherit: bool) -> Held:
    """Lock every key, in sorted order, without waiting. Raises LockRefused, then holding none, or OSError.

    With `inherit` the programs that this process executes keep the keys locked for as long as they live.
    """
    fds: dict[str, int] = {}
    held = Held(lock_dir, fds, inherit=inherit)
    try:
        for key in sorted(set(keys)):
            fds[key] = _lock(path_of(lock_dir, key), key)
            os.set_inheritable(fds[key], inherit)
    except BaseException:
        held.release()
        raise
    return held


def try_hold(lock_dir: str, keys: Iterable[str]) -> Held | None:
    """For a reconciler: all keys or, if one of them is held by anybody, None. Never waits, is not inherited.

    Raises LockRefused where a lock file is missing or was replaced: then nobody can say who holds the key.
    """
    try:
        return hold(lock_dir, keys, inherit=False)
    except LockRefused as refused:
        if refused.code == "lock_held":
            return None
        raise


def last_token(path: str) -> int | None:
    """The highest token near the end of a witness, where the highest is; None for a file never held. Raises OSError.

    Reads a bounded piece, however old the key is.
    """
    return max((int(match[2]) for match in _witness(path, WITNESS_TAIL)), default=None)


def intervals(path: str, tail: int | None = None) -> list[HeldInterval]:
    """The physical holds of one key, in the order of the witness, or those in its last `tail` bytes. Raises OSError.

    An end belongs to the latest open hold of its token. A line cut short by a crash counts as never written: its
    writer had not returned from it. An `L` whose `A` is not there is a hold of unknown length that ended then.
    """
    found: list[HeldInterval] = []
    for match in _witness(path, tail):
        letter, token, session, boot, at = match[1], int(match[2]), match[3], match[4], int(match[5])
        if letter == "A":
            found.append(HeldInterval(token, session, boot, at, None, None))
            continue
        ended: Literal["released", "lost"] = "released" if letter == "R" else "lost"
        for index in range(len(found) - 1, -1, -1):
            if found[index].token == token and found[index].ended is None:
                until = at if found[index].boot == boot else None
                found[index] = found[index]._replace(to_ns=until, ended=ended)
                break
        else:
            found.append(HeldInterval(token, session, boot, at, at, ended))
    return found


def holder_of_deleted(path: str) -> int | None:
    """A process that has the removed file `path` open, and with it perhaps its lock."""
    wanted = f"{os.path.realpath(path)} (deleted)"
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path) == wanted:
                        return pid
    return None


def _witness(path: str, tail: int | None = None) -> list[re.Match[str]]:
    """The whole lines of a witness, or those in its last `tail` bytes."""
    with open(path, "rb") as file:
        if tail is not None:
            file.seek(max(0, os.fstat(file.fileno()).st_size - tail))
        lines = file.read().decode("utf-8", "replace").split("\n")[:-1]
    return [match for line in lines if (match := _WITNESS.fullmatch(line)) is not None]


def _lock(path: str, key: str) -> int:
    """A descriptor that holds the flock of `path`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise LockRefused("lock_missing", key, f"{path} is missing: `loop doctor` says how to mend it") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockRefused("lock_held", key, f"{path} is locked by another process") from None
        mine, named = os.fstat(fd), _stat(path)
        if named is None or (mine.st_dev, mine.st_ino) != (named.st_dev, named.st_ino):
            raise LockRefused("lock_replaced", key, f"{path} was replaced while it was being locked")
    except BaseException:
        os.close(fd)
        raise
    return fd


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
