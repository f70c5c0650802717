"""`loop import FILE --into DIR`: the store that an export was made of, or the range of it, checked line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from events import audit
from events.chain import link
from events.clock import Clock
from events.envelope import to_text
from events.errors import ImportFailed, StoreTooNew
from events.imported import Building, building, refuse_taken
from events.origin import Origin
from events.store import Head
from loop.home import DB_NAME, DEFAULT_STATE
from loop.transfer.format import LONGEST, Header, read_event, read_header
from projections import snapshots
from projections.state import State

STORE = f"{DEFAULT_STATE}/{DB_NAME}"  # in the directory that -C names
SNAPSHOT_EVERY = 10_000  # events; the last position has one too
DAMAGED = "make the export anew, and copy it whole; nothing was imported"

Progress = Callable[[int, int], None]


class Imported(NamedTuple):
    """What came in: how many events, the header they came under."""

    events: int
    header: Header


def import_file(source: BinaryIO, name: str, into: Path, clock: Clock, *, progress: Progress | None = None) -> Imported:
    """Make `into` the home of a store with exactly the events of an export; `name` is the file's, for messages.

    Every line is checked: its form, its place, its link to the one before, that it folds; at the end, that it is the
    head which the header names. Raises ImportFailed, naming the line; then there is no store.
    """
    refuse_taken(Path(os.path.abspath(into)))
    numbered = enumerate(read_lines(source, name), 1)
    _, line = next(numbered, (1, ""))
    try:
        if not line:
            raise ValueError("the file is empty")
        header = read_header(line)
    except ValueError as error:
        raise _damaged(name, 1, f"{error}") from None
    state = _before(header, name)
    with building(into, STORE, clock=clock) as store:
        store.begin(_origin(header, state, clock))
        head = header.base
        for number, line in numbered:
            try:
                head = _take(store, header, head, line, state)
            except ValueError as error:
                raise _damaged(name, number, str(error)) from None
            except StoreTooNew as error:
                raise ImportFailed(f"{name}, line {number}: {error.message}", error.hint) from None
            done = head.position - header.base.position
            if done % SNAPSHOT_EVERY == 0 or head.position == header.head.position:
                store.snapshot(snapshots.version(), head.position, snapshots.packed(state))
            if progress is not None and done % 1_000 == 0:
                progress(done, header.head.position - header.base.position)
        if head != header.head:
            text = f"the file ends with event {head.position}, and its header promises {header.head.position}"
            raise ImportFailed(f"{name}: {text}: it was cut off", DAMAGED)
    return Imported(header.head.position - header.base.position, header)


def read_lines(source: BinaryIO, name: str) -> Iterator[str]:
    """The lines of an export without their ends. Raises ImportFailed, naming the line, for one that is none."""
    number = 0
    while raw := source.readline(LONGEST + 1):
        number += 1
        if len(raw) > LONGEST:
            raise _damaged(name, number, f"it is longer than {LONGEST >> 20} MiB")
        if not raw.endswith(b"\n"):
            raise _damaged(name, number, "it is the last and has no end: the file was cut off")
        try:
            yield raw[:-1].decode()
        except UnicodeDecodeError as error:
            raise _damaged(name, number, f"it is not UTF-8 (byte {error.start + 1})") from None


def _take(store: Building, header: Header, before: Head, line: str, state: State) -> Head:
    """Check one event against the one before it, fold it and lay it down; returns it as the new head."""
    record, digest = read_event(line, redacted=header.redacted)
    expected = before.position + 1
    if record.position != expected:
        how = "comes again or too late" if record.position < expected else "comes too early"
        raise ValueError(f"position {record.position} {how}: here belongs {expected}")
    if expected > header.head.position:
        raise ValueError(f"the header promises no event after {header.head.position}")
    if link(before.hash, record, digest) != record.hash:
        raise ValueError(f"event {record.position} does not follow from the one before: one of them was changed")
    event = audit.event_of(record)
    try:
        state.apply(event)
    except StoreTooNew:
        raise
    except Exception as error:  # whatever a file from anywhere does to a fold is the file's fault
        raise ValueError(f"event {record.position} cannot be folded: {type(error).__name__} {error}") from None
    store.insert(record, digest)
    return Head(record.position, record.at, record.hash)


def _before(header: Header, name: str) -> State:
    """The State that the header brings, or that of an empty log."""
    if header.state is None:
        return State()
    if header.folds != snapshots.version():
        raise ImportFailed(
            f"{name}: the state it begins with was made by other folds ({header.folds}, of loop {header.release};"
            f" today's are {snapshots.version()})",
            f"import it with loop {header.release}, or ask for an export of the whole log, which any later loop reads",
        )
    try:
        state = State.load(json.dumps(header.state))
        if (state.position, state.at) != header.base[:2]:
            raise ValueError(f"its state is that of position {state.position}")
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(name, 1, f"the state cannot be read: {error}") from None
    return state


def _origin(header: Header, state: State, clock: Clock) -> Origin:
    base = header.base
    return Origin(
        kind="export",
        store=header.store,
        position=base.position,
        at=base.at,
        hash=base.hash,
        folds=header.folds,
        state=None if header.state is None else snapshots.packed(state),
        redacted=header.redacted,
        release=header.release,
        imported_at=to_text(clock.now()),
    )


def _damaged(name: str, number: int, text: str) -> ImportFailed:
    return ImportFailed(f"{name}, line {number}: {text}", DAMAGED)
