"""`loop import`: an export, or another program's lock history, as a store of its own for reading."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from events.clock import SystemClock
from events.errors import ImportFailed
from loop.home import Home
from loop.output import as_of, clean, console, print_json
from loop.progress import progress

SCHEMA = "loop.import/1"


def export(file: Path, into: Path, *, as_json: bool) -> int:
    """Import an export into a new store at `into`, and say what came in."""
    from loop.transfer.importing import import_file

    with _opened(file) as source, progress("importing") as hear:
        done = import_file(source, str(file), into, SystemClock(), progress=hear)
    header = done.header
    begin, end = header.base.position + 1, header.head.position
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "as_of": as_of(end, header.head.at),
                "kind": "export",
                "into": str(into),
                "store": header.store,
                "release": header.release,
                "events": done.events,
                "range": {"from": begin, "to": end},
                "head": header.head.hash.hex(),
                "redacted": header.redacted,
            }
        )
        return 0
    out = console()
    what = f"{done.events} events, {begin} to {end}" + (", redacted" if header.redacted else "")
    out.print(f"imported {what}, of store {clean(header.store, 40)}", soft_wrap=True)
    if begin > 1:
        out.print(f"a range: it goes on from the state at {header.base.position} and claims no genesis", soft_wrap=True)
    _look(into)
    return 0


def gptme_locks(file: Path, into: Path, *, as_json: bool) -> int:
    """Import a lock history into a new store at `into`, and say what it shows."""
    from loop.transfer.gptme import import_locks, read_history
    from projections.figures import foreign

    with _opened(file) as source:
        history = read_history(source)
    state = import_locks(history, str(file), into, SystemClock())
    found: dict[str, Any] | None = foreign(state)
    assert found is not None, "a history without observations is refused"
    if as_json:
        print_json(
            {
                "schema": SCHEMA,
                "as_of": as_of(state.position, state.at),
                "kind": "gptme-locks",
                "into": str(into),
                "lines": {
                    "read": history.read,
                    "understood": len(history.observed),
                    "not_understood": history.not_understood,
                    "out_of_order": history.out_of_order,
                    "examples": [{"line": number, "text": text} for number, text in history.examples],
                },
                **found,
                "unknown": ["noop", "backends", "categories", "selection"],
            }
        )
        return 0
    from loop.commands.status import foreign_table

    out = console()
    odd = f"{history.not_understood} not understood, {history.out_of_order} out of order"
    out.print(f"{history.read} lines read, {odd}", soft_wrap=True)
    for number, text in history.examples:
        out.print(f"  line {number}: {clean(text)}", soft_wrap=True)
    out.print(foreign_table(found))
    _look(into)
    return 0


def beside(home: Home | None) -> Path:
    """Where a lock history goes unless told otherwise: beside the project's state directory, or here without one."""
    from loop.home import DEFAULT_STATE

    state = Path.cwd() / DEFAULT_STATE if home is None else home.state
    return state.with_name(f"{state.name}-gptme-locks")


def _look(into: Path) -> None:
    console().print(f"look: loop -C {clean(into)} status", soft_wrap=True)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise ImportFailed(f"cannot read {file}: {error.strerror or error}", "check the path and its rights") from None
    with source:
        yield source
