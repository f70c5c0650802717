"""`building`: a whole new store, of what was written elsewhere, that appears at its place finished or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from events.clock import Clock
from events.envelope import Record
from events.errors import ImportFailed, StoreError
from events.origin import Origin
from events.store import Entropy, EventLog, Head, Transaction

_ORIGIN = f"INSERT INTO origin (one, {', '.join(Origin._fields)}) VALUES (1{', ?' * len(Origin._fields)})"


class Building:
    """A store that nobody sees yet, in one transaction. Made by `building`."""

    def __init__(self, log: EventLog) -> None:
        self.log = log

    def begin(self, origin: Origin) -> None:
        """Say where the store comes from; before the first event, whose position follows from it."""
        self.log._rows(_ORIGIN, origin)
        self.log._origin = origin

    def insert(self, record: Record, digest: bytes | None = None) -> None:
        """Lay the next row as it was stored; `digest` is of its private part, where that was redacted.

        Raises ValueError for a row that the store's checks refuse, StoreError where it cannot be written.
        """
        try:
            self.log.insert(record)
        except StoreError as error:
            if type(error.__cause__).__name__ != "IntegrityError":
                raise
            raise ValueError(f"event {record.position} is none that a store holds: {error.__cause__}") from None
        if digest is not None:
            self.log._rows("INSERT INTO redacted (position, digest) VALUES (?, ?)", (record.position, digest))

    def snapshot(self, version: str, position: int, state: bytes) -> None:
        """Keep a state, so that a reader need not fold all of the log."""
        self.log._rows(
            "INSERT INTO snapshots (version, position, hash, state) SELECT ?, position, hash, ? FROM events"
            " WHERE position = ?",
            (version, state, position),
        )

    def appending(self, store: str, now: int) -> Transaction:
        """For a log that begins here: appends under the name `store`, the first at `now` (microseconds) or later."""
        self.log._store_id = store
        return Transaction(self.log, Head(0, None, self.log.head().hash), now)


@contextmanager
def building(
    directory: Path, name: str, *, clock: Clock | None = None, entropy: Entropy = secrets.token_bytes
) -> Iterator[Building]:
    """Build the store `directory/name`; `name` may have directories in it. `directory` must not exist, or be empty.

    All of it is made in a temporary directory beside it, synced, and moved into place at the end of the block. On any
    exception nothing is left behind. Raises ImportFailed where something is in the way, StoreError where the place
    cannot be written.
    """
    directory = Path(os.path.abspath(directory))
    refuse_taken(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.import-", dir=directory.parent))  # 0700
    except OSError as error:
        raise _unwritable(directory, error) from None
    try:
        log = EventLog.blank(draft / name, clock=clock, entropy=entropy)
        try:
            log._rows("BEGIN")
            yield Building(log)
            log._rows("COMMIT")
        finally:
            log.close()
        _sync(draft / name, draft)
        refuse_taken(directory)
        try:
            os.rename(draft, directory)  # over an empty directory, but over nothing else
            _sync_one(directory.parent)
        except OSError as error:
            raise _unwritable(directory, error) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_taken(directory: Path) -> None:
    """Raises ImportFailed where `directory` is anything but missing or an empty directory."""
    try:
        if not os.path.lexists(directory) or (not directory.is_symlink() and not any(directory.iterdir())):
            return
        what = "is not empty"
    except NotADirectoryError:
        what = "is no directory"
    except OSError as error:
        raise _unwritable(directory, error) from None
    raise ImportFailed(
        f"{directory} {what}: an import makes a store of its own and never touches what is there",
        "name a directory that does not exist yet: --into DIR; or move that one away",
    )


def _sync(file: Path, top: Path) -> None:
    """Make a file durable, and every directory from its own up to `top`."""
    try:
        while True:
            _sync_one(file)
            if file == top:
                return
            file = file.parent
    except OSError as error:
        raise _unwritable(file, error) from None


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path}: {error.strerror or error}", "check the directory, its space and rights")
