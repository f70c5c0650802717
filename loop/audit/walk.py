"""Walking through a log: the state at each position, fast in both directions, and the ways from one to the next."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from events.envelope import Record, to_micros
from events.errors import UsageError
from events.lifecycle import SESSION_ENDS
from events.store import EventLog, Filter
from loop.audit.diff import Change, detached, made_by
from loop.audit.expression import parse
from loop.audit.links import record_of
from loop.audit.when import turns
from loop.moment import Moment, resolve
from loop.status import status
from projections import snapshots
from projections.state import State

STRIDE = 5_000  # events between two states that a walk keeps where the store has no snapshot
BEHIND = 24  # positions before one walked back to that are looked at along with it
KEPT = 400  # positions whose looks are kept
BLOCK = 400  # events that a search backwards folds at once

PROBLEMS = frozenset({"violation.detected", "session.lost", "session.spawn_failed", "selection.rejected"})
_TELLING = SESSION_ENDS | {"session.started", "session.warned", "selection.made", "tick.skipped"}
_GLOB = re.compile(r"[a-z*?]+\.[a-z_*?]+")

Hear = Callable[[int], None]


class Look(NamedTuple):
    """One position: its event, what that changed, and the status after it."""

    record: Record
    changes: list[Change]
    report: dict[str, Any]


class Way(Protocol):
    """The positions that a walk stops at."""

    def next(self, position: int, step: int) -> int | None:
        """The nearest one after (step 1) or before (step -1) `position`."""


class Walk:
    """A place in a log. `hear` is told of progress in long work, and may end it by raising."""

    def __init__(self, log: EventLog, position: int, hear: Hear) -> None:
        self.log = log
        self.first = log.base().position + 1
        """The log's first position."""
        self.position = max(self.first, position)
        self.filter = ""
        self._way: Way | None = None
        self._hear = hear
        self._looks: dict[int, Look] = {}
        self._state: State | None = None
        self._rungs: dict[int, bytes] = {}

    @property
    def head(self) -> int:
        """The log's newest position, now."""
        return self.log.head().position

    # ── looking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> Look:
        """What there is to see here."""
        wanted = self.position
        if wanted not in self._looks:
            if self._state is None or self._state.position != wanted - 1:
                behind = wanted + 1 in self._looks  # walking back: the next steps will ask for those before
                self._state = self._load(max(self.first - 1, wanted - 1 - (BEHIND if behind else 0)))
            while self._state.position < wanted:
                self._advance(self._state)
        return self._looks[wanted]

    def _advance(self, state: State) -> None:
        position = state.position + 1
        record = record_of(self.log, str(position))
        changed = made_by(self.log, position, state)
        self._looks[position] = Look(record, changed, detached(state, to_micros(record.at)))
        if len(self._looks) > KEPT:
            del self._looks[next(iter(self._looks))]

    def _load(self, position: int) -> State:
        """A state of our own at `position`: from the store's snapshots, or from the states kept on the way."""
        rung = max((known for known in self._rungs if known <= position), default=0)
        found = self.log.load_snapshot(snapshots.version(), position)
        if found is not None and found[0] >= rung:
            return snapshots.load(self.log, position)
        state = State.load(self._rungs[rung]) if rung else snapshots.first(self.log)
        while state.position < position:
            upto = min(position, (state.position // STRIDE + 1) * STRIDE)
            state.fold(self.log.events(state.position, upto))
            if upto % STRIDE == 0:
                self._rungs[upto] = state.dump()
                self._hear(upto)
        return state

    # ── walking ───────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, step: int) -> bool:
        """One event on (1) or back (-1), of those that pass the filter; whether there was one."""
        return self._to(self._near(self.position, step))

    def same_type(self, step: int) -> bool:
        """To the next or previous event of this one's type."""
        way = _Types(self.log, self.look().record.type)
        position = way.next(self.position, step)
        while position is not None and not self._passes(position):
            position = way.next(position, step)
        return self._to(position)

    def problem(self, step: int) -> bool:
        """To the next or previous event that is a problem, or after which status has one more."""
        found = self._problems_after(self.position) if step > 0 else self._problems_before(self.position)
        return self._to(next((position for position in found if self._passes(position)), None))

    def go(self, text: str) -> None:
        """To a position, time or id. Raises UsageError."""
        position = resolve(self.log, text).position
        if position < self.first:
            raise UsageError(f"nothing had happened at {text}", f"the log begins at position {self.first}")
        self.position = position

    def only(self, text: str) -> None:
        """Stop only where an expression holds, or at events whose type matches a pattern (`lock.*`); empty: at all."""
        text = text.strip()
        if not text:
            self._way = None
        elif _GLOB.fullmatch(text):
            self._way = _Types(self.log, text)
        else:
            self._way = _Ranges(list(self._where(text)))
        self.filter = text

    def _where(self, text: str) -> Iterator[tuple[int, int]]:
        expression, end = parse(text), resolve(self.log, None)
        first: int | None = None
        for turn in turns(self.log, expression, Moment(0, 0), end, self._hear):
            if turn.holds:
                first = turn.position + 1 if turn.by is None else turn.by
            elif first is not None:
                yield first, turn.position if turn.by is None else turn.by - 1
                first = None
        if first is not None:
            yield first, end.position

    def _near(self, position: int, step: int) -> int | None:
        if self._way is not None:
            return self._way.next(position, step)
        return position + step if self.first <= position + step <= self.head else None

    def _passes(self, position: int) -> bool:
        return self._way is None or self._way.next(position - 1, 1) == position

    def _to(self, position: int | None) -> bool:
        if position is not None:
            self.position = position
        return position is not None

    # ── problems ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _problems_after(self, position: int, upto: int | None = None) -> Iterator[int]:
        state = self._load(position)
        known = _problems(state)
        for event in self.log.events(position, upto):
            violations = state.locks["violations"]
            state.apply(event)
            new = event.type in PROBLEMS
            if _telling(event.type) or state.locks["violations"] != violations:
                found = _problems(state)
                new = new or not found <= known
                known = found
            if event.position % 100 == 0:
                self._hear(event.position)
            if new:
                yield event.position

    def _problems_before(self, position: int) -> Iterator[int]:
        end = position - 1
        while end >= self.first:
            begin = max(self.first - 1, end - BLOCK)
            yield from reversed(list(self._problems_after(begin, end)))
            end = begin


def _telling(type: str) -> bool:
    return type in _TELLING or type in PROBLEMS or type.startswith(("backend.", "loop."))


def _problems(state: State) -> set[tuple[str, str]]:
    if state.at is None:
        return set()
    return {(item["code"], item["command"]) for item in status(state, to_micros(state.at))["problems"]}


class _Types:
    """The events whose type matches a pattern."""

    def __init__(self, log: EventLog, pattern: str) -> None:
        self._log = log
        self._types = (pattern,)

    def next(self, position: int, step: int) -> int | None:
        wanted = Filter(types=self._types)
        wanted = wanted._replace(after=position) if step > 0 else wanted._replace(upto=position - 1)
        rows = self._log.select(wanted, limit=1, newest=step < 0)
        return rows[0].position if rows else None


class _Ranges:
    """Positions as (first, last), in order."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self._ranges = [(first, last) for first, last in ranges if first <= last]
        self._firsts = [first for first, _ in self._ranges]

    def next(self, position: int, step: int) -> int | None:
        target = position + step
        index = bisect_right(self._firsts, target) - 1
        if index >= 0 and target <= self._ranges[index][1]:
            return target
        if step < 0:
            return self._ranges[index][1] if index >= 0 else None
        return self._firsts[index + 1] if index + 1 < len(self._firsts) else None
