"""`loop export`: the log as JSON Lines, to stdout or a file of one's own."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from events.errors import StoreError, UsageError
from events.store import EventLog
from loop.output import message
from loop.progress import progress
from loop.transfer.exporting import lines, positions


def run(db: Path, *, at: str | None, redact: bool, output: Path | None) -> int:
    """Write the export of the store at `db`. Raises UsageError for a bad range or a file of another kind, StoreError
    for one that cannot be written."""
    log = EventLog.read(db)
    try:
        first, last = positions(log, at)
        with _opened(output) as out, progress("exporting") as hear:
            for line in lines(log, first, last, redact=redact, progress=hear):
                out.write(line + "\n")
        head = log.at(last)
    finally:
        log.close()
    if output is not None:
        redacted = ", redacted" if redact else ""
        message(f"wrote {last - first + 1} events{redacted} to {output}; anchor {last}:{head.hash.hex()}")
    return 0


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Stdout; or a file (0600) that appears whole or not at all; or a pipe or device, written as it is.

    An earlier export is replaced, and nothing else: a slip of the fingers must not cost a log. Raises UsageError.
    """
    if output is None or str(output) == "-":
        yield sys.stdout
        return
    try:
        if output.exists() and not stat.S_ISREG(output.stat().st_mode):
            with output.open("w", encoding="ascii") as out:
                yield out
            return
        target = Path(os.path.realpath(output))
        if target.exists() and not _is_export(target):
            raise UsageError(f"{output} is there already, and is no export", "name another file, or remove that one")
        descriptor, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600
        try:
            with open(descriptor, "w", encoding="ascii") as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            os.replace(draft, target)
        except BaseException:
            os.unlink(draft)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(f"cannot write {output}: {error.strerror or error}", "name another file: -o FILE") from None


def _is_export(path: Path) -> bool:
    begins = b'{"schema":"loop.export/'
    with path.open("rb") as file:
        return file.read(len(begins)) in (begins, b"")
