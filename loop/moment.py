"""Which instant a read command speaks of: `--at POSITION|TIME|-5m|SESSION|PASS`, or head."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from events.clock import Clock, SystemClock
from events.envelope import to_micros, to_text
from events.errors import UsageError
from events.store import EventLog, Filter
from loop.duration import parse_seconds
from projections import snapshots
from projections.state import State


@dataclass(frozen=True, slots=True)
class Moment:
    """A position of the log and the time that counts as now there (microseconds).

    `since` is where windows begin: None, as long as the config says; at the head of an imported store its first event.
    """

    position: int
    now: int
    since: int | None = None

    @property
    def at(self) -> str:
        """`now` as the log writes it."""
        return to_text(self.now)

    def state(self, log: EventLog) -> State:
        """Everything folded up to here."""
        return snapshots.load(log, self.position)


def resolve(log: EventLog, text: str | None, clock: Clock | None = None) -> Moment:
    """The moment that `text` names; head at the clock's time for None.

    Digits are a position, whose event's time is now; a time (ISO, or `14:03` today) and `-5m` are a time, with the last
    position not after it; the id of a session is its start, of a pass its decision, of an event itself. Raises
    UsageError for anything else, for a position beyond head or before a range, and for an id that is unknown or not
    unique. In an imported store, whose time does not go on, the last event's time is now.
    """
    head = log.head()
    newest = to_micros(head.at) if head.at else 0
    imported = log.origin is not None
    present = newest if imported else max((clock or SystemClock()).now(), newest)
    if text is None:
        return Moment(head.position, present, _first(log) if imported else None)
    text = text.strip()
    if text.isascii() and text.isdigit():
        return _position(log, int(text), present)
    time = parse_time(text, present)
    if time is not None:
        base = log.base()
        if base.at is not None and to_text(time) < base.at:
            raise UsageError(f"{text} is before this range of a log, which begins after {base.at}", "name a later time")
        return Moment(log.position_at(to_text(time)), time)
    if re.fullmatch(r"\+?\d+(\.\d+)?\s*[a-z]+", text):  # no id begins with a digit
        raise UsageError(f"{text!r} is no moment", f"so long ago is -{text.lstrip('+')}; the future is not known")
    return _position(log, position_of(log, text), present)


def word(log: EventLog, moment: Moment) -> str:
    """What names this moment to `--at` for good: its position where its event's time is now there, else its time."""
    return str(moment.position) if log.at(moment.position).at == moment.at else moment.at


def again(log: EventLog, moment: Moment, *words: str) -> str:
    """The command that gives the same answer at any later time: `loop` and `words` at this moment.

    The head of an imported store stands still, and its windows are longer than those of the position that it is at.
    """
    return shlex.join(["loop", *words, *(() if moment.since is not None else ("--at", word(log, moment)))])


def flags(options: Mapping[str, str | None]) -> Iterator[str]:
    """The words of those options that are given."""
    for name, value in options.items():
        if value is not None:
            yield from (name, value)


def parse_time(text: str, now: int) -> int | None:
    """`-5m`, `14:03`, or an ISO date or time (local unless it names a zone) as microseconds; None for no time."""
    if match := re.fullmatch(r"-\s*(\d.*)", text):
        try:
            return now - round(parse_seconds(match[1]) * 1_000_000)
        except ValueError:
            raise UsageError(f"{text!r} is no time span", "write it like -5m, -2h or -1d") from None
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        today = datetime.fromtimestamp(now / 1e6).astimezone().date()
        text = f"{today}T{text.zfill(5) if text.count(':') == 1 else text.zfill(8)}"
    if not re.match(r"\d{4}-", text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no time", "write it like 2026-11-23T14:03:00Z") from None
    return to_micros((moment if moment.tzinfo else moment.astimezone()).isoformat())


def past(text: str, now: int) -> int:
    """`2h` or `-2h` ago, or a time, as microseconds: what `--since` takes. Raises UsageError."""
    time = parse_time(text, now)
    return _ago(text, now) if time is None else time


def ahead(text: str, now: int) -> int:
    """`2h` from now, or a time, as microseconds: what `--until` of a pause takes. Raises UsageError if it is past."""
    time = parse_time(text, now)
    if time is None:
        time = 2 * now - _ago(text, now)
    if time <= now:
        raise UsageError(f"{text!r} is not ahead of now ({to_text(now)})", "name a later time")
    return time


def _ago(text: str, now: int) -> int:
    try:
        return now - round(parse_seconds(text) * 1_000_000)
    except ValueError:
        raise UsageError(f"{text!r} is no time", "write it like 2h, 14:03 or 2026-11-23T14:03:00Z") from None


def position_of(log: EventLog, prefix: str) -> int:
    """The position that an id stands for, by unique prefix: a session's start, a pass's decision, an event."""
    kind, id = unique(log, prefix)
    if kind == "session":
        rows = log.select(Filter(types=("session.started", "session.requested"), session=id))
    elif kind == "tick":
        rows = log.select(Filter(types=("fanout.decided", "tick.started"), tick=id))
    else:
        return log.position_of_id(id)
    return rows[-1].position


def unique(log: EventLog, prefix: str, kinds: tuple[str, ...] = ("session", "tick", "id")) -> tuple[str, str]:
    """(kind, id) of the one session, pass or event whose id begins with `prefix`. Raises UsageError."""
    found = [(kind, id) for kind, id in log.ids(prefix) if kind in kinds] if prefix else []
    exact = [item for item in found if item[1] == prefix]
    if len(exact or found) == 1:
        return (exact or found)[0]
    what = " or ".join({"session": "session", "tick": "pass", "id": "event"}[kind] for kind in kinds)
    if not found:
        raise UsageError(f"no {what} has an id that begins with {prefix!r}", "see: loop sessions, loop log")
    raise UsageError(f"{prefix!r} is ambiguous: {', '.join(id for _, id in found)}", "write more of the id")


def _first(log: EventLog) -> int | None:
    """The time of the log's first event."""
    at = log.at(log.base().position + 1).at
    return None if at is None else to_micros(at)


def _position(log: EventLog, position: int, present: int) -> Moment:
    head, base = log.head(), log.base()
    if position < base.position:
        text = f"position {position} is before this range of a log, which begins after {base.position}"
        raise UsageError(text, f"{base.position} to {head.position} can be asked")
    if position > head.position:
        raise UsageError(f"position {position} is beyond the log's head, {head.position}", "0 to head can be asked")
    found = log.at(position)
    return Moment(position, to_micros(found.at) if found.at else present)
