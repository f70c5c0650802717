"""The store's place in the file system: its file, which store belongs there, and what a loss leaves behind.

Nothing here opens the database: closing any descriptor of it drops the locks that this process holds on it.
"""

from __future__ import annotations

import os
from pathlib import Path

from events.errors import StoreError

Identity = tuple[int, int]
Stamp = tuple[int, int]


def look(path: str | None) -> tuple[Identity, Stamp] | None:
    """Which file is now at `path` (device, inode), and when it was last written and its size; None: there is none."""
    found = _stat(path)
    return None if found is None else ((found.st_dev, found.st_ino), (found.st_mtime_ns, found.st_size))


def wal_bytes(path: Path) -> int:
    """How large the write-ahead log beside the store is; 0 where there is none."""
    found = _stat(f"{path}-wal")
    return 0 if found is None else found.st_size


def create_file(path: Path) -> None:
    """Make directory (0700) and file (0600) before SQLite would make them with wider permissions."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


# ── which store belongs here ──────────────────────────────────────────────────────────────────────────────────────────


def mark_of(path: Path) -> Path:
    """The file beside a store that says which one it is."""
    return Path(f"{path}.id")


def marked(path: Path) -> str | None:
    """The id of the store that belongs at `path`; None where nothing is noted."""
    try:
        return mark_of(path).read_text("ascii", "replace").strip() or None
    except FileNotFoundError:
        return None


def mark(path: Path, store: str) -> None:
    """Note that the store with the id `store` belongs at `path`."""
    draft = Path(f"{mark_of(path)}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    create_file(draft)
    draft.write_text(f"{store}\n")
    os.replace(draft, mark_of(path))


def check_mark(path: Path, expected: str | None, store: str) -> None:
    """Raise StoreError where `store`, or with "" an empty file, is in the place of the `expected` one."""
    if expected is None or expected == store:
        return
    found = f"now holds the store {store}" if store else "is empty"
    raise StoreError(
        f"{path} {found}, but {expected} belongs there: the log was replaced",
        f"put {expected} back; or, if this one is meant, remove {mark_of(path)} once nothing runs",
    )


# ── losses ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rescue_of(path: Path, position: int, hash: bytes) -> Path:
    """Where a log with this head is copied to when its file went away."""
    return path.with_name(f"rescued-{position}-{hash.hex()[:12]}.db")


def refuse_loss(path: Path) -> None:
    """Raise StoreError where the log went away: a copy of it was rescued, or it is missing beside its traces."""
    if rescued := sorted(path.parent.glob("rescued-*-*.db")):
        raise StoreError(
            f"{path} was removed or replaced while loop had it open; what it held is in {rescued[-1]}",
            f"move {path.name}, {path.name}-wal and {path.name}-shm away where they are, then: mv {rescued[-1]} {path}",
        )
    if path.exists():
        return
    traces = [directory for name in ("locks", "runs") if _any(directory := path.parent / name)]
    traces += [mark for mark in [mark_of(path)] if mark.exists()]
    if traces:
        what = "is there" if traces[0] == mark_of(path) else "is not empty"
        raise StoreError(
            f"{path} is missing, but {traces[0]} {what}: the log was lost or moved",
            f"restore {path.name} from a backup; to begin anew, move {path.parent} away once nothing runs",
        )


def _any(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _stat(path: str | None) -> os.stat_result | None:
    try:
        return None if path is None else os.stat(path)
    except FileNotFoundError:
        return None
