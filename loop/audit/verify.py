"""`loop verify`: whether the log is whole, and whether the loop did what it promises.

One pass over the rows checks positions, chain and time, folds the State and watches the loop's conduct; decisions and
snapshots are made again beside it, segment by segment; SQL then computes the head's figures a second time. Memory does
not grow with the log. Nothing that a row may hold raises: it is a failed check.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from orjson import loads

from events import audit
from events.chain import link
from events.envelope import Record
from events.errors import StoreError, StoreTooNew
from events.store import EventLog
from loop.audit import projected, witnesses
from loop.audit.again import SEGMENT, Again, Segment, workers_for
from loop.audit.checks import Check, Report, Tally
from loop.audit.conduct import Conduct
from projections import snapshots
from projections.state import uncollected

Progress = Callable[[int, int], None]

END = 2**62  # a position behind every log
PROGRESS = 10_000  # events between two reports of progress
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def verify(
    log: EventLog,
    *,
    anchor: tuple[int, str] | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
    lock_dir: Path | None = None,
) -> Report:
    """Check everything that the log can show about itself, up to its head.

    `anchor` is a position and the hash (hex) it had once; `progress` hears (events done, events in all) every 10,000.
    `workers` processes make the decisions again: by default as many as there are cores, and none for a short log.
    With `lock_dir` the witnesses there are held against the log, too.
    A range, which has no genesis, is checked from the state that came with it. Raises StoreError where the file cannot
    be read at all.
    """
    file = _file(log)
    try:
        total = log.head().position
    except StoreError:  # it is in a damaged page: read what lies before
        total = END
    rows = Rows(log)
    walk = _Walk(log, workers_for(total - log.base().position) if workers is None else workers)
    intervals, projections = Tally("lock_intervals"), Tally("projections")
    try:
        with uncollected():
            whole = _read(log, rows, walk, total, progress)
        with audit.still(log):  # what others appended meanwhile is a handful, so this is short
            if whole:
                _read(log, rows, walk, END)
            walk.flush()
            _by_sql(log, walk, rows.stepped_back, intervals, projections)
            schema, anchored = _schema(log), [] if anchor is None else [_anchored(log, *anchor)]
        walk.again.finish()
    finally:
        walk.again.close()
    rows.finish()
    walk.mark_unread(projections)
    witnessed = [] if lock_dir is None or not lock_dir.is_dir() else [witnesses.compare(log, str(lock_dir))]
    tallies = (
        file, rows.positions, rows.chain, walk.readable, rows.time, schema, intervals, *walk.conduct.tallies(),
        walk.again.decisions, walk.again.snapshots, projections, *witnessed, *anchored,
    )  # fmt: skip
    checks = tuple(tally.check() for tally in tallies)
    return Report(rows.count, rows.position, rows.at or None, rows.hash.hex(), checks)


def _read(log: EventLog, rows: Rows, walk: _Walk, upto: int, progress: Progress | None = None) -> bool:
    """See every row up to a position; False where one lies in a page that cannot be read, and what follows with it."""
    try:
        for page in audit.pages(log, rows.position, upto):
            digests = audit.digests(log, page)
            for record in page:
                rows.see(record, digests.get(record.position))
                walk.see(record)
                if progress is not None and rows.count % PROGRESS == 0:
                    progress(rows.count, upto)
    except StoreError as error:
        walk.unreadable(rows.position + 1, error)
        return False
    return True


def _file(log: EventLog) -> Tally:
    """The file as SQLite sees it: every page, and every index against its table."""
    tally = Tally("file")
    tally.checked = 1
    for line in audit.damage(log):
        tally.fail(None, line)
    return tally


class Rows:
    """Positions, chain and time: what rows must be whatever they say."""

    def __init__(self, log: EventLog) -> None:
        self.positions, self.chain, self.time = Tally("positions"), Tally("chain"), Tally("time")
        self.count = 0
        self.position, at, self.hash = log.base()
        self.stepped_back = False
        self.at = at or ""
        self._redacted = 0
        if self.position:
            self.chain.note = f"no genesis: a range, it follows from {self.hash.hex()[:16]}… at {self.position}"
        self._suspect: tuple[int, bytes | None] | None = None  # the first bad link, and the hash its content has

    def see(self, record: Record, digest: bytes | None = None) -> None:
        """Judge the next row in order of position; `digest` is of its private part, where that was redacted."""
        self._redacted += digest is not None
        position, at = record.position, record.at
        self.count += 1
        gap = position != self.position + 1
        if gap:
            self.positions.fail(self.position + 1, f"{self.position + 1} is missing: {position} comes next")
        try:
            expected = link(self.hash, record, _stands_in(record, digest))
        except ValueError:  # a private part without its salt, text that is not UTF-8
            expected = None
        if self._suspect is not None:
            self._explain(record, follows=expected == record.hash)
        if expected != record.hash:
            self._broken(position, expected, gap)
        if at < self.at:
            self.stepped_back = True
            if record.type != "clock.stepped":
                self.time.fail(position, f"{at} comes after {self.at}, and no clock was stepped")
        if _TIME.fullmatch(at) is None:
            self.time.fail(position, f"{at[:40]!r} is no time")
        self.position, self.hash, self.at = position, record.hash, at

    def finish(self) -> None:
        """After the last row."""
        self.positions.checked = self.chain.checked = self.time.checked = self.count
        if self._redacted:
            told = f"{self._redacted} private parts redacted, by their digests"
            self.chain.note = "; ".join(part for part in (self.chain.note, told) if part)
        if self._suspect is not None:
            self._explain(None, follows=False)

    def _broken(self, position: int, expected: bytes | None, gap: bool) -> None:
        if gap:
            self.chain.fail(position, f"gap: {position} does not follow from the event before it, others are missing")
        else:
            self.chain.fail(position, f"link: {position} does not follow from the event before it")
            if self.chain.faults == 1:
                self._suspect = (position, expected)

    def _explain(self, after: Record | None, *, follows: bool) -> None:
        """Say more of the first bad link now that the row behind it is known: was it the content, or the hash?"""
        assert self._suspect is not None
        position, expected = self._suspect
        self._suspect = None
        if follows:
            self.chain.text = f"content: {position} was changed; what comes next still follows from its old hash"
        elif after is None:
            self.chain.text = f"link: {position}, the last, has another hash than its content gives"
        elif expected is not None and link(expected, after) == after.hash:
            self.chain.text = f"link: the hash of {position} was changed; what comes next follows from the right one"


def _stands_in(record: Record, digest: bytes | None) -> bytes | None:
    """The digest of a redacted row. Raises ValueError where the row has its private part all the same."""
    if digest is not None and (record.private is not None or record.salt is not None):
        raise ValueError("redacted, and yet there")
    return digest


class _Walk:
    """The decoded side of the pass: the State, the loop's conduct, and the segments whose decisions are made again."""

    def __init__(self, log: EventLog, workers: int) -> None:
        self.readable = Tally("readable")
        self.again = Again(log, workers)
        self.state = snapshots.first(log)
        self.conduct = Conduct(self.state)
        self.stopped: int | None = None
        """The position at which folding ended; None while it goes on."""
        self._segment = (self.state.dump(), self.state.position)

    def see(self, record: Record) -> None:
        self.readable.checked += 1
        try:
            event = audit.event_of(record)
            if record.private is not None:
                loads(record.private)
        except (ValueError, RecursionError, StoreTooNew) as error:
            self._stop(record.position, f"event {record.position} cannot be read: {error}")
            return
        try:
            self.conduct.see(event)
            if self.stopped is None:
                if event.position != self.state.position + 1:
                    raise StoreError(f"position {self.state.position + 1} is missing")
                self.state.apply(event)
        except Exception as error:  # whatever a row that somebody changed does to a fold is a finding, not a bug
            self._stop(record.position, f"event {record.position} cannot be folded: {type(error).__name__} {error}")
            return
        if self.stopped is None and event.position % SEGMENT == 0:
            self.flush()

    def unreadable(self, position: int, error: StoreError) -> None:
        """No row from `position` on can be read."""
        self._stop(position, f"event {position} and what follows cannot be read: {error.message}")

    def flush(self) -> None:
        """Hand out what was folded since the last segment."""
        dump, after = self._segment
        upto = self.state.position if self.stopped is None else self.stopped - 1
        if upto <= after:
            return
        try:
            following = b"" if self.stopped else self.state.dump()
        except TypeError as error:  # a number beyond 64 bits, a key that is no text
            self._stop(upto, f"the state after event {upto} cannot be kept: {error}")
            return
        self.again.add(Segment(dump, after, upto))
        self._segment = (following, upto)

    def mark_unread(self, projections: Tally) -> None:
        """Checks that need the fold have seen nothing behind an unreadable event, and must not look as if they had."""
        if self.stopped is not None:
            for tally in (self.again.decisions, self.again.snapshots, projections):
                tally.fail(self.stopped, f"nothing was checked from event {self.stopped} on, which cannot be folded")

    def _stop(self, position: int, text: str) -> None:
        self.readable.fail(position, text)
        if self.stopped is None:
            self.stopped = position
            self.flush()


def _by_sql(log: EventLog, walk: _Walk, stepped_back: bool, intervals: Tally, projections: Tally) -> None:
    """The checks that SQL makes; a row that SQL cannot read fails them."""
    overlaps: projected.Overlaps | None = None
    try:
        overlaps = projected.intervals(log, intervals)
    except (StoreError, TypeError, ValueError) as error:
        intervals.fail(walk.stopped, f"cannot be computed: {error}")
    if log.base().position:
        for tally in (intervals, projections):
            tally.note = f"sessions requested up to {log.base().position} are not here, nor what SQL would find of them"
    elif walk.stopped is None:
        try:
            projected.compare(log, walk.state, overlaps, stepped_back, projections)
        except (StoreError, TypeError, ValueError) as error:
            projections.fail(None, f"cannot be computed: {error}")


def _schema(log: EventLog) -> Tally:
    """Triggers, indexes, tables and views as a fresh store of this schema has them; no trigger beside them."""
    tally = Tally("triggers")
    try:
        found, expected = audit.objects(log), audit.expected_objects(log)
    except StoreError as error:
        tally.fail(None, f"cannot be read: {error.message}")
        return tally
    tally.checked = len(expected)
    for (kind, name), sql in expected.items():
        if (kind, name) not in found:
            tally.fail(None, f"the {kind} {name} is missing")
        elif found[kind, name] != sql:
            tally.fail(None, f"the {kind} {name} is not what loop made")
    for kind, name in found.keys() - expected.keys():
        if kind == "trigger":
            tally.fail(None, f"the trigger {name} is not of loop")
    return tally


def _anchored(log: EventLog, position: int, hash: str) -> Tally:
    tally = Tally("anchor")
    tally.checked = 1
    try:
        found = log.at(position).hash.hex()
    except StoreError as error:
        tally.fail(position, f"{error.message}; {error.hint}")
    else:
        if found != hash.lower():
            tally.fail(position, f"{position} has the hash {found}, not the one that was kept: the log was rewritten")
    return tally


__all__ = ["Check", "Report", "verify"]
