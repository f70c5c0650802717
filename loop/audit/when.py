"""All intervals in which an expression holds, exactly: tested after every event and whenever time alone may turn it.

What an event changes is tested after it, at its own time. Between two events the state stands still and time passes:
pauses end, limits lapse, cool-downs run out, windows slide; at each such instant the expression is tested on the state
as it stood. So `when` says the same as asking `loop status --at` at every instant, and says who turned it: an event, or
time. Only the projections that the expression names are folded, and only the events that they rest on are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from events.envelope import Event, to_micros, to_text
from events.store import EventLog
from loop.audit.expression import Expression
from loop.audit.terms import Folds, Instants, Term, Update, source_of, updater
from loop.moment import Moment
from projections import snapshots
from projections.fold import Handler
from projections.state import BROKEN, PROJECTIONS, State, unfoldable

STEPPED = "clock.stepped"
FOREIGN: Folds = {"locks": frozenset({"lock.acquired", "lock.released"})}  # what tells a lock history from a log
Progress = Callable[[int], None]


class Turn(NamedTuple):
    """The expression began (`holds`) or ceased to hold.

    `by` is the event that turned it, at `position`; None where time did, `at` being the instant and `position` that of
    the newest event before it.
    """

    position: int
    at: str
    holds: bool
    by: int | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A span in which the expression holds; `end` is the turn that ended it, None where it still holds.

    `earlier`: it held already where the search began, and may have begun before.
    """

    begin: Turn
    end: Turn | None
    earlier: bool

    def as_dict(self) -> dict[str, Any]:
        """CONTRACT's interval, with `earlier` besides."""
        by_time = self.end is not None and self.end.by is None
        return {
            "from": {"position": self.begin.position, "at": self.begin.at},
            "to": None if self.end is None else {"position": self.end.position, "at": self.end.at},
            "opened_by": self.begin.by,
            "closed_by": None if self.end is None else self.end.by,
            "expired_at": self.end.at if self.end is not None and by_time else None,
            "earlier": self.earlier,
        }


def intervals(
    log: EventLog, expression: Expression, start: Moment, end: Moment, progress: Progress | None = None
) -> list[Interval]:
    """The intervals from `start` to `end`, in order; position 0 as the start is the whole log."""
    found: list[Interval] = []
    begin: Turn | None = None
    for turn in turns(log, expression, start, end, progress):
        if turn.holds:
            begin = turn
        elif begin is not None:
            found.append(_interval(begin, turn, start))
            begin = None
    if begin is not None:
        found.append(_interval(begin, None, start))
    return found


def _interval(begin: Turn, end: Turn | None, start: Moment) -> Interval:
    earlier = begin.by is None and (begin.position, begin.at) == (start.position, start.at)
    return Interval(begin, end, earlier)


def turns(
    log: EventLog, expression: Expression, start: Moment, end: Moment, progress: Progress | None = None
) -> Iterator[Turn]:
    """Every turn of `expression`, in the order of the log.

    The first is where it begins to hold, which is `start` itself if it holds there. `progress` hears the position now
    and then.
    """
    if end.position == 0:
        return
    scan = _Scan(log, expression, start, progress)
    yield from scan.begin()
    for event in log.events_of(scan.plan.types, scan.position, end.position):
        yield from scan.event(event)
    yield from scan.lapse(end.now, end.position + 1)


def _foreign(log: EventLog) -> int | None:
    """The first position of another program's lock history, before which nothing is known; None in a log of ours."""
    if log.origin is None:
        return None
    first = next(log.events_of(tuple(FOREIGN["locks"])), None)
    return first.position if first is not None and first.data["imported"] else None


class _Plan:
    """What an expression rests on: the types to read, the handlers to run, the names that each type may change."""

    def __init__(self, terms: Iterable[Term], foreign: bool) -> None:
        touched: dict[str, set[Term]] = {}
        routes: dict[str, dict[str, Handler]] = {}
        self.clocked: list[tuple[Instants, str]] = []
        clocked: set[Term] = set()
        for term in terms:
            source = source_of(term)
            folds = {**FOREIGN, **source.folds} if foreign else source.folds
            for projection, types in folds.items():
                for type in types & PROJECTIONS[projection].HANDLERS.keys():
                    touched.setdefault(type, set()).update(() if type in source.quiet else (term,))
                    routes.setdefault(type, {})[projection] = PROJECTIONS[projection].HANDLERS[type]
            if source.instants is not None:
                clocked.add(term)
                self.clocked.append((source.instants, term.key or ""))
        if clocked:  # a clock set back brings back what time had ended
            touched.setdefault(STEPPED, set()).update(clocked)
        self.touched = {type: updater(changed) for type, changed in touched.items()}
        self.routes = {type: tuple(handlers.items()) for type, handlers in routes.items()}
        self.tick: Update | None = updater(clocked) if clocked else None
        self.all = updater(terms)
        self.types = tuple(sorted(touched))

    def instants(self, state: State, after: int, upto: int) -> list[int]:
        """The times in (after, upto] at which time alone may change a name, in order."""
        return sorted({time for source, key in self.clocked for time in source(state, key, after, upto)})


class _Scan:
    """Where a scan stands: folded to `position`, at the time `now`, the expression known to hold or not."""

    def __init__(self, log: EventLog, expression: Expression, start: Moment, progress: Progress | None) -> None:
        self.log = log
        self.holds_of = expression.holds
        self.progress = progress
        base, foreign = log.base().position, _foreign(log)
        self.plan = _Plan(expression.terms, foreign is not None)
        self.first = start.position <= base  # the whole log: what holds from the first event on is opened by it
        self.position = (foreign or base + 1) if self.first else start.position
        self.state = snapshots.load(log, self.position)
        self.now = to_micros(log.at(self.position).at or "") if self.first else start.now
        self.values: dict[Term, Any] = {}
        self.holds = False
        self.seen = 0

    def begin(self) -> Iterator[Turn]:
        self.plan.all(self.values, self.state, self.now)
        self.holds = self.holds_of(self.values)
        if self.holds:
            yield Turn(self.position, to_text(self.now), True, self.position if self.first else None)

    def event(self, event: Event) -> Iterator[Turn]:
        """Time up to the event, then the event."""
        plan, clocked = self.plan, self.plan.tick
        lapsed: Turn | None = None
        if clocked is not None:
            at = to_micros(event.at)
            if event.type == STEPPED:  # time had passed up to here, before it was set back
                yield from self.lapse(to_micros(self.log.at(event.position - 1).at or event.at), event.position)
            if at > self.now:
                for turn in self.lapse(at, event.position):
                    if turn.at == event.at:
                        lapsed = turn  # at the event's own instant: whether it counts, the event decides
                    else:
                        yield turn
            elif at < self.now:
                clocked(self.values, self.state, at)
            self.now = at
        try:
            for name, handler in plan.routes.get(event.type, ()):
                handler(getattr(self.state, name), event)
        except BROKEN as error:
            raise unfoldable(event.position, error) from error
        plan.touched[event.type](self.values, self.state, self.now)
        holds = self.holds_of(self.values)
        if lapsed is not None:
            # Between the instant and the event another event may lie that changes no name of ours.
            stood = event.position - 1 > self.position and self.log.at(event.position - 1).at == event.at
            if holds == lapsed.holds or stood:
                yield lapsed
            else:
                self.holds = not lapsed.holds
        if holds != self.holds:
            self.holds = holds
            yield Turn(event.position, event.at, holds, event.position)
        self.position = event.position
        self.seen += 1
        if self.progress is not None and self.seen % 1_000 == 0:
            self.progress(event.position)

    def lapse(self, upto: int, before: int) -> Iterator[Turn]:
        """Let time pass to `upto` on the state as it stands; `before` is the position of what comes next."""
        if self.plan.tick is None or upto <= self.now:
            return
        for instant in self.plan.instants(self.state, self.now, upto):
            self.plan.tick(self.values, self.state, instant)
            holds = self.holds_of(self.values)
            if holds != self.holds:
                self.holds = holds
                at = to_text(instant)
                yield Turn(self._newest_before(at, before), at, holds, None)
        self.now = upto

    def _newest_before(self, at: str, end: int) -> int:
        """The newest position before the time `at`, of those from here to `end`, between which time only grows."""
        low, high = self.position, end
        while high - low > 1:
            middle = (low + high) // 2
            if (self.log.at(middle).at or "") < at:
                low = middle
            else:
                high = middle
        return low
