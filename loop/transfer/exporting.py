"""`loop export`: a log, or a range of it, as lines; one page of events in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from events import audit
from events.envelope import to_text
from events.errors import StoreError, UsageError
from events.store import EventLog
from loop import __version__
from loop.moment import parse_time, resolve
from loop.transfer.format import Header, event_line, header_line, redacted_line
from projections import snapshots

Progress = Callable[[int, int], None]


def positions(log: EventLog, text: str | None) -> tuple[int, int]:
    """(first, last) position that `A:B` names, both included; the whole log for None.

    Each side is what `--at` takes, or empty for the log's own end; a time on the left is the first event not before
    it. Raises UsageError for a range with nothing in it, and for one that can be read in two ways.
    """
    head, base = log.head().position, log.base().position
    if head == base:
        raise StoreError("there is no event to export yet", "make a pass: loop tick")
    if text is None:
        return base + 1, head
    begin, end = _sides(text)
    first = base + 1 if not begin else _first(log, begin)
    last = head if not end else resolve(log, end).position
    first = max(first, base + 1)
    if not first <= last:
        raise UsageError(f"nothing lies between {begin!r} and {end!r}: positions {first} to {last}", f"head is {head}")
    return first, last


def _first(log: EventLog, text: str) -> int:
    now = resolve(log, None).now
    time = None if text.isdigit() else parse_time(text, now)
    if time is None:
        return resolve(log, text).position
    return log.position_at(to_text(time - 1)) + 1


def _sides(text: str) -> tuple[str, str]:
    """The two moments of `A:B`; times hold colons themselves."""
    cuts = [(text[:at].strip(), text[at + 1 :].strip()) for at, letter in enumerate(text) if letter == ":"]
    if not cuts:
        raise UsageError(f"{text!r} is no range", "write it as A:B, such as 800:812, -2h: or :812")
    fitting = [cut for cut in cuts if all(_is_moment(side) for side in cut)]
    alike = [cut for cut in fitting if _kind(cut[0]) == _kind(cut[1])]
    chosen = alike or fitting
    if len(chosen) != 1:
        why = "can be read in more than one way" if chosen else "holds no two moments"
        raise UsageError(f"{text!r} {why}", "write it with positions (800:812) or whole times (2026-11-23T14:00:00Z)")
    return chosen[0]


def _is_moment(text: str) -> bool:
    if ":" not in text:
        return True  # an id, a position, a span, or nothing: whatever is wrong with it is said when it is looked up
    try:
        return parse_time(text, 0) is not None
    except (UsageError, ValueError, OverflowError):
        return False


def _kind(text: str) -> str:
    return "position" if text.isdigit() else "time" if ":" in text else text


def lines(log: EventLog, first: int, last: int, *, redact: bool, progress: Progress | None = None) -> Iterator[str]:
    """The header and then every event of the range, each as a line without its end; `progress` hears (done, in all).

    A log that was redacted stays so. Raises StoreError where the log cannot be read.
    """
    base = log.at(first - 1)
    redacted = redact or (log.origin is not None and log.origin.redacted)
    whole = base.position == 0
    state = None if whole else json.loads(snapshots.load(log, base.position).dump())
    folds = None if whole else snapshots.version()
    yield header_line(Header(log.store_id, __version__, base, log.at(last), redacted, folds, state))
    write = redacted_line if redacted else event_line
    done = 0
    for page in audit.pages(log, base.position, last):
        digests = audit.digests(log, page)
        for record in page:
            yield write(record, digests.get(record.position))
        done += len(page)
        if progress is not None:
            progress(done, last - base.position)
