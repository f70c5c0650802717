"""The run directory of a session, `<state>/runs/<session>/`: its files, their types, and who may write them when.

Every JSON file appears whole or not at all (temporary file, fsync, rename, fsync of the directory) and says its
schema. Wall times are ISO-8601 UTC with microseconds and a `Z`; `boottime_ns`, `from_ns` and `to_ns` are on
CLOCK_BOOTTIME, durations are seconds. Standard library only: the shim carries this module in memory.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from typing import Literal, Required, TypedDict, cast

from loop.sessions import proc
from loop.sessions.faultpoint import faultpoint

CONTEXT = "context.json"  # what the session may read of itself
MAX_JSON = 8 << 20  # bytes; an argv of 2 MiB, escaped, is the longest thing in any of these files

KillReason = Literal["timeout", "silence", "cancelled"]
Evidence = Literal["outcome", "git", "exit"]


class RunDirError(Exception):
    """A file of a run directory is not what it must be. It is never guessed at; look at the file."""


class _Resumed(TypedDict, total=False):
    resumed: str | None


class Reader(_Resumed):
    """How a backend's result is read: by which preset's parser, and by which patterns where that says nothing.

    `resumed` is the conversation that the session was to go on with, if any.
    """

    parser: str | None
    limit_patterns: list[str]


class _SinceReaders(TypedDict, total=False):
    """What the spec of a session that an older loop started does not have. `grader` is asked for its grade."""

    reader: Reader
    grader: list[str] | None
    grader_timeout: float


class Spec(_SinceReaders):
    """`spec.json`: everything the shim needs but the configured environment, whose values are never on disk."""

    schema: Literal["loop.spec/1"]
    session: str
    token: int
    category: str
    task: str
    backend: str
    pool: str
    keys: list[str]
    chain: int
    rule: str
    trigger: str
    tick: str
    argv: list[str]
    cwd: str
    hook_cwd: str
    before: list[str] | None
    after: list[str] | None
    loop_env: dict[str, str]
    timeout: float
    silence: float | None
    grace: float
    kill_on_silence: bool
    lock_dir: str
    state_dir: str
    config: str | None
    evidence: Evidence
    exit_codes: dict[str, str]
    end_argv: list[str]


class Claim(TypedDict):
    """`claim`: who acts on this session, the shim or a reconciler that voided the request."""

    schema: Literal["loop.claim/1"]
    by: Literal["shim", "reconciler"]
    pid: int
    start: int
    boot: str
    boottime_ns: int
    at: str


class Launched(TypedDict):
    """`launched.json`: the shim that was spawned. Without a claim, its death voids the request."""

    schema: Literal["loop.launched/1"]
    pid: int
    start: int
    boot: str


class Started(TypedDict):
    """`started.json`: the worker runs."""

    schema: Literal["loop.started/1"]
    pid: int
    start: int
    shim_pid: int
    shim_start: int
    boot: str
    boottime_ns: int
    at: str


class Stop(TypedDict):
    """`stop.json`: somebody wants this session stopped; `kill` skips the grace."""

    schema: Literal["loop.stop/1"]
    kill: bool
    by: str


class ExitError(TypedDict):
    """Why there was no worker, or (code `os_error`) why nobody knows how it ended."""

    code: str
    text: str


class ExitFile(TypedDict):
    """`exit.json`: how it ended, durable before the worker is reaped."""

    schema: Literal["loop.exit/1"]
    stage: Literal["worker", "before", "spawn"]
    code: int | None
    signal: int | None
    reason: KillReason | None
    seconds: float
    error: ExitError | None
    cpu_seconds: float | None
    max_rss_kb: int | None
    out_bytes: int
    err_bytes: int
    truncated: bool
    boottime_ns: int
    at: str


class Interval(TypedDict):
    """One key, physically held."""

    boot: str
    from_ns: int
    to_ns: int


class EndFile(TypedDict):
    """`end.json`: every key is physically free, and no process of the session is left."""

    schema: Literal["loop.end/1"]
    held: dict[str, Interval]
    stragglers: int
    at: str


class Details(TypedDict, total=False):
    """What a note may add: who asked, which stream, free text, how long it was silent, whether without grace."""

    by: str
    stream: Literal["out", "err"]
    text: str
    seconds: float
    kill: bool


class Note(Details):
    """One line of `notes.jsonl`. `why` of a warning: `silence`, `after_failed`, `output_truncated`;
    of a stop: a KillReason, on disk before the first signal."""

    type: Required[Literal["warned", "stopping"]]
    why: Required[str]
    at: Required[str]


# ----------------------------------------------------------------------------------------------------- paths


def path_of(state_dir: str, session: str) -> str:
    """The run directory of `session`. Raises ValueError for an id that is no plain file name."""
    if not session or session.startswith(".") or "/" in session or "\0" in session:
        raise ValueError(f"session id {session!r} cannot name a directory")
    return os.path.join(state_dir, "runs", session)


# ------------------------------------------------------------------------------------------------- JSON files


def write_json(run_dir: str, name: str, value: Mapping[str, object]) -> None:
    """Make `name` hold `value`, durably and at once. Raises OSError; the file is then as it was."""
    final, draft = os.path.join(run_dir, name), os.path.join(run_dir, f"{name}.{os.getpid()}.tmp")
    try:
        _write_durably(draft, value)
        faultpoint("record.drafted")
        os.rename(draft, final)
        faultpoint("record.renamed")
    except OSError:
        remove(draft)
        raise
    sync_directory(run_dir)


def read_spec(run_dir: str) -> Spec | None:
    """`spec.json`, or None. This and the other readers raise RunDirError for a file that is not what it says."""
    return cast("Spec | None", _read(run_dir, "spec.json", "loop.spec/1", Spec.__required_keys__))


def read_claim(run_dir: str) -> Claim | None:
    """`claim`, or None: nobody acts on this session yet."""
    return cast("Claim | None", _read(run_dir, "claim", "loop.claim/1", Claim.__required_keys__))


def read_started(run_dir: str) -> Started | None:
    """`started.json`, or None."""
    return cast("Started | None", _read(run_dir, "started.json", "loop.started/1", Started.__required_keys__))


def read_launched(run_dir: str) -> Launched | None:
    """`launched.json`, or None."""
    return cast("Launched | None", _read(run_dir, "launched.json", "loop.launched/1", Launched.__required_keys__))


def note_launched(run_dir: str, pid: int) -> None:
    """Say which process the shim is, as soon as it is spawned. Raises OSError."""
    start = proc.start_time(pid)
    if start is not None:  # it may be gone already: then its files say why
        launched: Launched = {"schema": "loop.launched/1", "pid": pid, "start": start, "boot": proc.boot_id()}
        write_json(run_dir, "launched.json", launched)


def read_stop(run_dir: str) -> Stop | None:
    """`stop.json`, or None."""
    return cast("Stop | None", _read(run_dir, "stop.json", "loop.stop/1", Stop.__required_keys__))


def read_exit(run_dir: str) -> ExitFile | None:
    """`exit.json`, or None."""
    return cast("ExitFile | None", _read(run_dir, "exit.json", "loop.exit/1", ExitFile.__required_keys__))


def read_end(run_dir: str) -> EndFile | None:
    """`end.json`, or None."""
    return cast("EndFile | None", _read(run_dir, "end.json", "loop.end/1", EndFile.__required_keys__))


def request_stop(run_dir: str, *, kill: bool, by: str) -> None:
    """Ask the shim to stop the session: TERM, grace, KILL; with `kill`, KILL at once. Raises OSError.

    May be asked again, with `kill`, while the grace runs.
    """
    stop: Stop = {"schema": "loop.stop/1", "kill": kill, "by": by}
    write_json(run_dir, "stop.json", stop)


def claim(run_dir: str, *, by: Literal["shim", "reconciler"]) -> bool:
    """Become the only one who acts on this session; False if somebody else is, for ever.

    `link(2)` decides: it fails where the name exists, and the name appears with its whole content. Makes a missing
    directory, so that a request can be voided whose starter died before it made one. Raises OSError.
    """
    pid = os.getpid()
    start = proc.start_time(pid)
    assert start is not None, "a running process has a start time"
    content: Claim = {
        "schema": "loop.claim/1", "by": by, "pid": pid, "start": start, "boot": proc.boot_id(),
        "boottime_ns": proc.boottime_ns(), "at": proc.wall_now(),
    }  # fmt: skip
    make_directory(run_dir)
    draft = os.path.join(run_dir, f"claim.{pid}")
    # An old draft of the same pid may be linked already: writing through it would rewrite the claim.
    remove(draft)
    try:
        _write_durably(draft, content)
        faultpoint("claim.drafted")
        os.link(draft, os.path.join(run_dir, "claim"))
        faultpoint("claim.linked")
    except FileExistsError:
        return False
    finally:
        remove(draft)
        sync_directory(run_dir)
    return True


# ----------------------------------------------------------------------------------------------------- notes


def append_note(run_dir: str, note: Note) -> None:
    """Append one line to `notes.jsonl`, durably. Raises OSError."""
    line = json.dumps(note, sort_keys=True) + "\n"
    fd = os.open(os.path.join(run_dir, "notes.jsonl"), APPEND, 0o600)
    try:
        _write_all(fd, line.encode())
        os.fsync(fd)
    finally:
        os.close(fd)


def read_notes(run_dir: str) -> list[Note]:
    """All notes, oldest first; a line cut short by a crash is left out. Raises RunDirError for what is no file."""
    data = _bytes(os.path.join(run_dir, "notes.jsonl"))
    lines = [] if data is None else data.split(b"\n")[:-1]
    notes: list[Note] = []
    for line in lines:
        try:
            note = json.loads(line)
        except ValueError:
            continue
        if isinstance(note, dict) and {"type", "why", "at"} <= note.keys():
            notes.append(cast("Note", note))
    return notes


# -------------------------------------------------------------------------------------------------- plumbing

APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a FIFO, perhaps


def make_directory(path: str) -> None:
    """Make `path` and what is missing above it, 0700; the directory above a new one is synced. Raises OSError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    sync_directory(parent)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_durably(path: str, value: Mapping[str, object]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags, 0o600)
    try:
        _write_all(fd, json.dumps(value, indent=1).encode() + b"\n")
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def remove(path: str) -> None:
    """Unlink `path`, if it is there. Raises OSError."""
    try:
        os.unlink(path)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def _bytes(path: str) -> bytes | None:
    """What a plain file begins with, MAX_JSON bytes and one; None if there is none. Waits for no FIFO's writer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link, a socket
            raise
        raise RunDirError(f"{path} is no file") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise RunDirError(f"{path} is no file")
        data = b""
        while len(data) <= MAX_JSON and (more := os.read(fd, MAX_JSON + 1 - len(data))):
            data += more
        return data
    finally:
        os.close(fd)


def _read(run_dir: str, name: str, schema: str, keys: frozenset[str]) -> dict[str, object] | None:
    path = os.path.join(run_dir, name)
    data = _bytes(path)
    if data is None:
        return None
    if len(data) > MAX_JSON:
        raise RunDirError(f"{path} has more than {MAX_JSON} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RunDirError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("schema") != schema:
        raise RunDirError(f"{path} is not a {schema} object")
    missing = keys - value.keys()
    if missing:
        raise RunDirError(f"{path} lacks {', '.join(sorted(missing))}")
    return value
