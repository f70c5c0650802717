"""SQLite: which library, how a file is opened for reading, its schema, its errors as ours. No other module has it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from events import place
from events.errors import DAMAGED, StoreBusy, StoreError, StoreTooNew
from migrations import APPLICATION_ID, SCHEMA

if TYPE_CHECKING:
    import sqlite3 as sqlite3
else:
    try:
        import pysqlite3.dbapi2 as sqlite3
    except ImportError:  # not on Linux: the interpreter's own, perhaps with the WAL-reset bug, hence `wal_is_safe`
        import sqlite3

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def sqlite_version() -> str:
    """The version of the SQLite library in use."""
    return str(sqlite3.sqlite_version)


def wal_is_safe(version: str | None = None) -> bool:
    """Whether this SQLite has the fix for the WAL-reset corruption bug (3.51.3, or its backports)."""
    major, minor, patch = (int(part) for part in (version or sqlite_version()).split(".")[:3])
    if (major, minor) in {(3, 50), (3, 44)}:
        return patch >= {50: 7, 44: 6}[minor]
    return (major, minor, patch) >= (3, 51, 3)


def connect_read_only(path: Path) -> sqlite3.Connection:
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """A whole copy of a database at `target`, unless somebody has put it there: it appears at once or not at all."""
    draft = target.with_suffix(f".{os.getpid()}")
    place.create_file(draft)
    copy = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    os.replace(draft, target)


def schema_of(connection: sqlite3.Connection, path: Path | None) -> int:
    """The store's schema number, 0 for a new file; raises for another program's database or a newer schema."""
    # In this order: whoever creates the store between two of these makes tables and numbers in one transaction, so that
    # tables seen first have their numbers; asked for last, a store born meanwhile would look like a stranger's.
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    if version == 0 and application == 0:
        if tables:
            raise StoreError(f"{path} is a database of another program", "name another place in loop.state")
        return 0
    if application != APPLICATION_ID:
        raise StoreError(f"{path} is a database of another program", "name another place in loop.state")
    if version > SCHEMA:
        raise StoreTooNew(
            f"{path} has schema {version}; this loop knows schemas up to {SCHEMA}",
            "upgrade loop: pip install --upgrade loop-control",
        )
    return version


def migrate(connection: sqlite3.Connection, schema: int = SCHEMA) -> None:
    """Bring the schema to `schema`; inside the caller's write transaction, so that one process alone does it."""
    from sqlite_utils.db import Database

    from migrations.migrations import migrations

    db = Database(connection, execute_plugins=False)
    pending = [step.name for step in migrations.pending(db)]
    migrations.apply(db, stop_before=pending[len(pending) - (SCHEMA - schema) :])
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {schema}")


class translated:
    """SQLite's and the file system's errors as ours: the file named, the mend said."""

    __slots__ = ("path",)

    def __init__(self, path: Path | None) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise as_ours(self.path, error) from error
        if isinstance(error, UnicodeDecodeError):  # even SQLite's own message may quote what is no text any more
            raise StoreError(f"{self.path}: a text in it is no UTF-8", DAMAGED) from error
        if isinstance(error, OSError):
            hint = "check the directory, its space and rights"
            raise StoreError(f"{self.path}: {error.strerror or error}", hint) from error


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error that has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def as_ours(path: Path | None, error: sqlite3.Error) -> StoreError | StoreBusy:
    code = code_of(error)
    if code in BUSY:
        return StoreBusy(f"{path}: {error}", "nothing was written; run the command again")
    hint = {
        sqlite3.SQLITE_NOTADB: "the file is no loop store; restore it from a backup or name another loop.state",
        sqlite3.SQLITE_CORRUPT: f"the file is damaged: {DAMAGED}",
        sqlite3.SQLITE_FULL: "free some space; nothing of this step was written",
        sqlite3.SQLITE_READONLY: "make the directory and the file writable, or name another loop.state",
        sqlite3.SQLITE_CANTOPEN: "check that the directory exists and can be written",
        sqlite3.SQLITE_IOERR: "look at the disk and its free space; nothing of this step was written",
        sqlite3.SQLITE_PERM: "check the permissions of the file and its directory",
    }.get(code, DAMAGED if "UTF-8" in str(error) else "run `loop doctor`")
    return StoreError(f"{path}: {error}", hint)
