"""`loop backup FILE`: a copy of the store that is whole, taken while everybody goes on writing.

1. One read transaction fixes the head; SQLite copies the pages into a draft beside FILE.
2. The draft is synced and opened as any store is: SQLite's check of the file, every row's place and link, its head.
3. Only then it gets the name FILE, by one rename. A crash before leaves at most a draft, and FILE as it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from events import audit
from events.errors import LoopError, StoreError, UsageError
from events.store import EventLog, Head
from loop.audit.verify import PROGRESS, Rows
from loop.output import as_of, clean, print_json
from loop.progress import progress


def run(db: Path, file: Path, *, force: bool, as_json: bool) -> int:
    """Back the store at `db` up into `file` and say what it holds. Returns 0.

    Raises UsageError (no store, `file` is there and not `force`, or no place for one), StoreError where the copy cannot
    be made or is not sound; then `file` is as it was.
    """
    target = Path(os.path.abspath(file))
    _refuse(db, target, force)
    log = EventLog.read(db)
    try:
        with _draft_of(target) as draft:
            with progress("copying") as hear, audit.still(log):
                head = log.head()
                log.copy_to(draft, hear)
            _sync(draft)
            _check(draft, head)
            _refuse(db, target, force)  # somebody may have been quicker
            os.replace(draft, target)
            _sync(target.parent)
        store = log.store_id
    finally:
        log.close()
    size, anchor = target.stat().st_size, f"{head.position}:{head.hash.hex()}"
    if as_json:
        print_json(
            {
                "schema": "loop.backup/1",
                "as_of": as_of(head.position, head.at),
                "file": str(target),
                "store": store,
                "bytes": size,
                "anchor": anchor,
            }
        )
    else:
        print(f"{clean(target)}  {head.position} events, {size / 2**20:.1f} MiB, read again and sound")
        print(f"anchor {anchor}")
    return 0


def _refuse(db: Path, target: Path, force: bool) -> None:
    if not db.exists():
        raise UsageError(f"there is no store at {db}: nothing to back up", "the first pass makes it: loop tick")
    if not target.parent.is_dir():
        raise UsageError(f"no directory {target.parent}", "make it first")
    if not os.path.lexists(target):
        return
    if target.is_dir():
        raise UsageError(f"{target} is a directory", f"name a file: {target / 'loop.db'}")
    if target.samefile(db) or any(os.path.exists(f"{target}-{end}") for end in ("wal", "shm", "journal")):
        raise UsageError(f"{target} is a store in use", "name another file")
    if not force:
        raise UsageError(f"{target} is there already", "name another file, or replace it: --force")


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """A name beside `target` for a file that is gone after the block, unless it was renamed; I/O errors as ours."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.unlink(missing_ok=True)
        yield draft
    except OSError as error:
        hint = "check the directory, its space and rights; nothing was replaced"
        raise StoreError(f"cannot write {target}: {error.strerror or error}", hint) from None
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            Path(f"{draft}{end}").unlink(missing_ok=True)


def _check(draft: Path, head: Head) -> None:
    """That the copy can be read from its first row to `head`, and that every link holds. Raises StoreError."""
    copy = EventLog.read(draft)
    try:
        faults = audit.damage(copy)
        rows = Rows(copy)
        with progress("reading it again") as hear:
            for page in audit.pages(copy, rows.position, head.position):
                digests = audit.digests(copy, page)
                for record in page:
                    rows.see(record, digests.get(record.position))
                    if hear is not None and rows.count % PROGRESS == 0:
                        hear(rows.count, head.position)
        rows.finish()
        faults += [each.text for each in (rows.positions, rows.chain, rows.time) if each.faults]
        if (rows.position, rows.hash) != (head.position, head.hash) or copy.head() != head:
            faults.append(f"it ends at {copy.head().position}, not at {head.position}")
    except LoopError as error:
        faults = [error.message]
    finally:
        copy.close()
    if faults:
        raise StoreError(
            f"the copy is not sound, and no backup: {'; '.join(faults[:3])}",
            "see whether the store itself is damaged: loop verify; an earlier backup is left as it is",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
