"""What happened in a window of the log, in one walk: the State folded through it, and what no State remembers.

Windows over two hours begin with a whole UTC hour, as the fold counts them, so that `report` and `status` say the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from events.envelope import Event, content, to_micros, to_text
from events.store import EventLog, Filter
from projections import figures, schedule, snapshots
from projections.allocation import UNUSED
from projections.fold import EXACT, HOUR, hour
from projections.outcomes import ASSESSED
from projections.state import State

NO_PASS = "no_pass"  # why a slot is idle once no pass has looked at it for two periods
RESTRAINTS = frozenset({"paused", "draining", "frozen", "stopped", "invalid_config"})
"""Reasons of skipped fires that leave slots idle."""
TALLIED = ("session.started", "session.ended", "session.graded")


@dataclass
class Tally:
    """Starts and ends of a window. A start that ended `limited` or `refused` is taken back, as in the allocation."""

    started: Counter[str] = field(default_factory=Counter)
    """By category."""
    outcomes: Counter[str] = field(default_factory=Counter)
    grades: dict[str, float | None] = field(default_factory=dict)
    """Of every session that ended."""
    open: dict[str, str] = field(default_factory=dict)

    def see(self, event: Event) -> None:
        """An event of the window."""
        session, data = event.session or "", event.data
        if event.type == "session.started":
            self.started[event.category or ""] += 1
            self.open[session] = event.category or ""
        elif event.type == "session.ended":
            self.outcomes[data["outcome"]] += 1
            self.grades[session] = data["grade"]
        self.learn(event)

    def learn(self, event: Event) -> None:
        """An event of the window or after it, as far as it changes what is known of the window."""
        session = event.session or ""
        if event.type == "session.graded" and session in self.grades:
            self.grades[session] = event.data["grade"]
        elif event.type == "session.ended" and session in self.open:
            category = self.open.pop(session)
            if event.data["outcome"] in UNUSED:
                self.started[category] -= 1

    @property
    def assessed(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome in ASSESSED)

    @property
    def graded(self) -> list[float]:
        return [grade for grade in self.grades.values() if grade is not None]


@dataclass
class Owed:
    """A neglected category: the sessions of it that started since it was found neglected, by what came of them."""

    since: str
    live: set[str] = field(default_factory=set)
    done: int = 0
    """They ended, and did not say that they did other work."""
    elsewhere: Counter[str] = field(default_factory=Counter)
    """The outcome file named another category as the one really done."""
    lost: int = 0

    @property
    def started(self) -> int:
        return len(self.live) + self.done + self.elsewhere.total() + self.lost

    def end(self, event: Event) -> None:
        """One of its sessions ended."""
        self.live.discard(event.session or "")
        if event.type == "session.lost":
            self.lost += 1
        elif event.data["outcome"] not in UNUSED:
            other = event.data["done_category"]
            if other is None or other == event.category:
                self.done += 1
            else:
                self.elsewhere[other] += 1


@dataclass
class Idle:
    """Slot time by the reason that the last decision gave for it, until the next; microseconds.

    Every start has a decision of its own. A fire skipped by a pause is as good as one; two periods without any, and the
    reason is that nobody looked.
    """

    since: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    capacity: int = 0
    period: int = 0
    decided: bool = False
    idle: Counter[str] = field(default_factory=Counter)
    offered: int = 0
    measured: int = 0
    """Time in which decisions followed each other."""

    def until(self, now: int) -> None:
        """What was said last held until `now`."""
        length = max(0, now - self.since)
        known = min(length, figures.SILENT_PERIODS * self.period)
        for reason, slots in self.reasons.items():
            self.idle[reason] += slots * known
            self.idle[NO_PASS] += slots * (length - known)
        self.offered += self.capacity * length
        self.measured += known if self.decided else 0
        self.since = max(self.since, now)

    def say(self, reasons: Mapping[str, int], capacity: int, period: int, *, decided: bool) -> None:
        """What holds from here on."""
        self.reasons, self.capacity, self.period, self.decided = reasons, capacity, period, decided


@dataclass
class History:
    """A window: its beginning, what it and the one before held, and the State at its end.

    The State keeps every hour of the window, where the fold alone would have let go of the oldest.
    """

    begin: int
    now: int
    before: int
    """Where the window before begins; `begin` where the log has none."""
    window: int
    """As the State counts it: what was asked for, though the log may be younger."""
    state: State
    locks: int
    violations: int
    tally: Tally
    tally_before: Tally
    owed: dict[str, Owed]
    idle: Idle

    @property
    def length(self) -> int:
        return self.now - self.begin


def history(log: EventLog, *, upto: int, now: int, span: int) -> History:
    """Walk the `span` microseconds before `now`, up to position `upto`, from the newest snapshot before them."""
    nominal = now - span if span <= EXACT else (now - span) // HOUR * HOUR
    last = nominal if span <= EXACT else nominal - 1  # not in it: the fold counts an hour whole, exact starts after
    first = log.at(min(log.base().position + 1, upto)).at  # of the log
    known = now if first is None else to_micros(first)
    begin = min(max(nominal, known), now)
    before = min(max(2 * nominal - now, known), begin)
    base = min(upto, log.position_at(to_text(max(last, 0))))
    found = History(
        begin=begin,
        now=now,
        before=before,
        window=now - nominal,
        state=snapshots.load(log, base),
        locks=0,
        violations=0,
        tally=Tally(),
        tally_before=Tally(),
        owed={},
        idle=Idle(since=begin),
    )
    start = min(base, log.position_at(to_text(max(last - (now - nominal), 0))))
    for event in log.events_of(TALLIED, start, base):
        found.tally_before.see(event)
    _resume(found.idle, log, found.state, base)
    walk = Walk(found)
    for event in log.events(base, upto):
        found.state.apply(event)
        walk.see(event)
    return walk.finish()


class Walk:
    """Feed it every event of a window in order, each just folded into the State of `found`; then `finish` it."""

    def __init__(self, found: History) -> None:
        state = found.state
        self._found = found
        self._locks, self._violations = state.locks["acquired"], state.locks["violations"]
        self._allocated, self._selected = dict(state.allocation["hours"]), dict(state.selection["hours"])
        self._hour = ""
        _find_owed(found, to_text(found.begin))

    @classmethod
    def new(cls, state: State, begin: int, now: int) -> Walk:
        """Over a whole log that is yet to be written, from `begin` to `now`, into `state`, which is that of no event
        or of the store's own first."""
        found = History(
            begin=begin, now=now, before=begin, window=now - begin, state=state, locks=0, violations=0, tally=Tally(),
            tally_before=Tally(), owed={}, idle=Idle(since=begin),
        )  # fmt: skip
        return cls(found)

    def see(self, event: Event) -> None:
        see(self._found, event)
        if hour(event.at) != self._hour:  # before the fold lets go of an old hour, which it does in a new one
            self._hour = hour(event.at)
            state = self._found.state
            self._allocated.update(state.allocation["hours"])
            self._selected.update(state.selection["hours"])

    def finish(self) -> History:
        """The window, at its end. Its State keeps all the hours, and must not be folded any further."""
        found = self._found
        state = found.state
        found.idle.until(found.now)
        _find_owed(found, to_text(found.now))
        found.locks = state.locks["acquired"] - self._locks
        found.violations = state.locks["violations"] - self._violations
        state.allocation["hours"], state.allocation["sum"] = {**self._allocated, **state.allocation["hours"]}, None
        state.selection["hours"] = {**self._selected, **state.selection["hours"]}
        return found


def see(found: History, event: Event) -> None:
    """An event of the window, already folded into its State."""
    found.tally.see(event)
    found.tally_before.learn(event)
    if event.type == "session.started":
        owed = found.owed.get(event.category or "")
        if owed is not None:
            owed.live.add(event.session or "")
        _find_owed(found, event.at)
    elif event.type in ("session.ended", "session.lost"):
        owed = found.owed.get(event.category or "")
        if owed is not None and event.session in owed.live:
            owed.end(event)
    elif event.type == "fanout.decided":
        found.idle.until(to_micros(event.at))
        _decided(found.idle, found.state, event.data, to_micros(event.at))
    elif event.type == "tick.skipped" and event.data["reason"] in RESTRAINTS:
        found.idle.until(to_micros(event.at))
        _skipped(found.idle, found.state, event.data["reason"], to_micros(event.at))


def _find_owed(found: History, at: str) -> None:
    for name in figures.neglected(found.state, to_micros(at)):
        found.owed.setdefault(name, Owed(since=at))


def _resume(idle: Idle, log: EventLog, state: State, base: int) -> None:
    """What the last decision before the window said still holds when it begins."""
    last = log.select(Filter(types=("fanout.decided",), upto=base), limit=1, newest=True)
    if last and state.control["config"] is not None:
        begin, idle.since = idle.since, to_micros(last[0].at)
        _decided(idle, state, content(last[0]), idle.since)
        known = idle.since + figures.SILENT_PERIODS * idle.period
        if known < begin:  # silent already
            idle.say({NO_PASS: sum(idle.reasons.values())}, idle.capacity, idle.period, decided=False)
        idle.since = begin


def _decided(idle: Idle, state: State, data: Mapping[str, Any], at: int) -> None:
    reasons: Counter[str] = Counter()
    for each in data["idle"]:
        reasons[each["reason"]] += each["slots"]
    config = state.control["config"]
    assert config is not None
    idle.say(reasons, data["slots"]["capacity"] or 0, schedule.period(config, at), decided=True)


def _skipped(idle: Idle, state: State, reason: str, at: int) -> None:
    config = state.control["config"]
    if config is not None:
        free = max(0, config["slots"] - len(state.sessions["live"]))
        idle.say({reason: free}, config["slots"], schedule.period(config, at), decided=False)
