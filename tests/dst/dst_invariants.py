"""What must hold after every transaction, from the raw events and the machine alone.

Its bookkeeping is its own: it shares no fold, no view and no gate with the product, so that a mistake there is seen
here. Rules are written from DESIGN.md and docs/, by exact arithmetic; times are microseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

from dst_machine import Machine

from events.envelope import Event

HOUR = 3_600_000_000
PROVEN = HOUR // 12  # a probe that has run for so long was not refused
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENDS = ("session.ended", "session.lost", "session.spawn_failed")
ASSESSED = ("productive", "noop", "blocked", "failed", "timed_out", "stalled")
UNUSED = ("limited", "refused")
MODES = {"loop.paused": "paused", "loop.draining": "draining", "loop.frozen": "frozen"}


class Broken(AssertionError):
    """A rule does not hold; the message says which, where, and with what."""


@dataclass(slots=True)
class Session:
    category: str
    token: int
    keys: list[str]
    chain: int
    rule: str
    backend: str
    task: str
    parent: str | None
    started: int | None = None
    at: int = 0
    end: str | None = None
    """Its outcome."""
    ended: int = 0
    may_respawn: bool = False
    followed: bool = False


@dataclass(slots=True)
class Answer:
    """The selector's last word, and who was started on it."""

    tick: str | None
    at: int
    rejected: bool
    ranking: list[tuple[str, str, str]]  # category, rule, task
    used: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Limit:
    """A pool that refused: when, until when it said, and the session that tries it."""

    since: int
    until: int | None
    probe: str | None = None


def micros(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


class Watch:
    """Feed it every event in order with `see`; it raises Broken at the first that breaks a rule."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.position = 0
        self.sessions: dict[str, Session] = {}
        self.live: dict[str, Session] = {}
        self._at = ""
        self._config: dict[str, Any] = {}
        self._holders: dict[str, int] = {}
        self._last_token: dict[str, int] = {}
        self._modes: dict[str, tuple[str, int | None]] = {}
        self._answer: Answer | None = None
        self._gates: dict[str, tuple[int, str]] = {}
        self._host: tuple[int, float] | None = None
        self._pools: dict[str, Limit] = {}
        self._assessed: dict[str, list[tuple[int, bool]]] = {}  # category -> its last 20 ends: when, NOOP?
        self._all_assessed: list[str] = []
        self._chain_end: dict[str, tuple[int, str]] = {}  # category -> when its last session ended, and how
        self._requests: list[int] = []
        self._tick: dict[str, Any] = {}
        self._served: set[str] = set()
        self._nominal: set[str] = set()  # instants that had their fire
        self._stepped_back = False
        self._expected: list[dict[str, Any]] = []  # choices of a decision that are still to be granted
        self._history: list[tuple[int, int]] = []  # position, live sessions
        self._ended = 0

    def see(self, events: Iterable[Event]) -> None:
        """The events of one transaction."""
        for event in events:
            self._event(event)
        if self._expected:
            self._break(f"{len(self._expected)} choices of a decision were not granted with it")
        for session in self.live.values():
            missing = [key for key in session.keys if self._holders.get(key) != session.token]
            if missing:
                self._break(f"a live session of {session.category} does not hold {missing}")
        tokens = {session.token for session in self.live.values()}
        if left := [key for key, token in self._holders.items() if token not in tokens]:
            self._break(f"{left} are held by nobody who lives")
        self._history.append((self.position, len(self.live)))

    def _break(self, text: str) -> None:
        raise Broken(f"event {self.position}: {text}")

    def _event(self, event: Event) -> None:
        if event.position != self.position + 1:
            self._break(f"{event.position} comes next")
        self.position = event.position
        if event.at < self._at and event.type != "clock.stepped":
            self._break(f"time runs back from {self._at} to {event.at}")
        self._at = event.at
        if self._expected and event.type not in ("session.requested", "lock.acquired"):
            self._break(f"{event.type} between a decision and its grants")
        handler = getattr(self, "_" + event.type.replace(".", "_"), None)
        if event.type in MODES:
            self._restrained(event)
        elif event.type in ENDS:
            self._end(event)
        elif handler is not None:
            handler(event)
        elif event.type == "violation.detected":
            self._break(f"a violation: {event.data}")

    # ── what is believed ──────────────────────────────────────────────────────────────────────────────────────────────

    def _loop_configured(self, event: Event) -> None:
        self._config = event.data

    def _clock_stepped(self, event: Event) -> None:
        self._stepped_back = True

    def _restrained(self, event: Event) -> None:
        """The newest restraint of a scope counts; beside one that freezes, whichever lasts longer."""
        scope, mode, until = _scope(event), MODES[event.type], _time(event.data["until"])
        before = self.restraints(micros(event.at)).get(scope)
        if before is not None and "frozen" in (before, mode):
            earlier = self._modes[scope][1]
            mode, until = "frozen", None if earlier is None or until is None else max(earlier, until)
        self._modes[scope] = mode, until

    def _loop_resumed(self, event: Event) -> None:
        if event.data["scope"] == "all":
            self._modes.clear()
        else:
            self._modes.pop(_scope(event), None)

    def _tick_started(self, event: Event) -> None:
        data = event.data
        self._tick = {"id": event.tick, **data}
        if data["nominal"] is not None:
            if data["nominal"] in self._nominal:
                self._break(f"the instant {data['nominal']} is used a second time")
            if data["nominal"] < max(self._nominal, default="") and not self._stepped_back:
                self._break(f"the instant {data['nominal']} is used after a later one, and no clock went back")
            self._nominal.add(data["nominal"])
        if data["ended"] is not None:
            if data["ended"] in self._served:
                self._break(f"the end of {data['ended']} has a second pass")
            self._served.add(data["ended"])

    def _selection_made(self, event: Event) -> None:
        ranking = [(entry["category"], entry["rule"], entry["task"] or "") for entry in event.data["ranking"]]
        self._answer = Answer(event.tick, micros(event.at), False, ranking)

    def _selection_rejected(self, event: Event) -> None:
        self._answer = Answer(event.tick, micros(event.at), True, [])

    def _gate_answered(self, event: Event) -> None:
        self._gates[event.category or ""] = (micros(event.at), event.data["answer"])

    def _host_measured(self, event: Event) -> None:
        self._host = (micros(event.at), event.data["load_per_cpu"])

    def _backend_limited(self, event: Event) -> None:
        pool, now, until = event.data["pool"], micros(event.at), _time(event.data["until"])
        before = self._pools.get(pool)
        if until is None and before is not None and before.until is not None and before.until > now:
            until = before.until  # one that was not told when makes a known reset no less known
        self._pools[pool] = Limit(now, until)

    def _backend_restored(self, event: Event) -> None:
        self._pools.pop(event.data["pool"], None)

    # ── decisions ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fanout_decided(self, event: Event) -> None:
        data, slots = event.data, event.data["slots"]
        live = len(self.live)
        free = max(0, self._config["slots"] - live)
        if (slots["capacity"], slots["live"], slots["free"]) != (self._config["slots"], live, free):
            self._break(f"decided on {slots}, with {live} live of {self._config['slots']}")
        if data["basis"] != self.position - 1 or data["now"] != event.at:
            self._break(f"rests on {data['basis']} at {data['now']}")
        idle = sum(each["slots"] for each in data["idle"])
        if idle + len(data["chosen"]) != free:
            self._break(f"{free} free slots, {len(data['chosen'])} given and {idle} explained")
        given = [each["category"] for each in data["candidates"] if each["verdict"] == "chosen"]
        if sorted(given) != sorted(choice["category"] for choice in data["chosen"]):
            self._break(f"verdicts choose {given}, the decision {data['chosen']}")
        self._net(event)
        self._credits(data["ledger"])
        self._expected = list(data["chosen"])

    def _net(self, event: Event) -> None:
        """The safety net is for rejected answers, and serves the most owed first."""
        data, answer, config = event.data, self._answer, self._config
        netted = [each["category"] for each in data["candidates"] if each["rule"] == "allowlist"]
        if not netted:
            return
        if answer is None or not answer.rejected or answer.tick != event.tick:
            self._break("the safety net is open on an answer that can be read")
        if config["selector"]["on_reject"] != "fallback":
            self._break("the safety net is open, and the config says hold")
        if config["policy"] != "intent":
            return  # `fair` has its own order
        stated = {name: each for name, each in config["categories"].items() if each["parallel"] is not False}
        whole = sum(Fraction(str(each["target"])) for each in stated.values())
        starts = self._starts(micros(event.at))
        following = 1 + sum(starts[name] for name in stated)
        owed = {n: Fraction(str(e["target"])) / whole * following - starts[n] for n, e in stated.items()}
        if sorted(netted) != sorted(stated):
            self._break(f"the safety net is over {netted}")
        for first, then in pairwise(netted):
            if owed[then] - owed[first] > Fraction(following, 100_000):  # targets are rounded to millionths
                self._break(f"{first} comes before {then}, which is owed more: {owed}")

    def _credits(self, ledger: dict[str, Any] | None) -> None:
        if ledger is None or not ledger["slots"]:
            return
        accounts = ledger["accounts"].values()
        moved = sum(each["moved"] for each in accounts) - sum(ledger["forfeited"].values())
        change = sum(each["after"] - each["credit"] for each in accounts) - sum(ledger["forfeited"].values())
        if moved or change:
            self._break(f"the credits of the ledger change by {change} in sum, moved {moved}")

    # ── grants ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _session_requested(self, event: Event) -> None:
        data, name, now = event.data, event.session or "", micros(event.at)
        category, config = event.category or "", self._config
        if name in self.sessions:
            self._break(f"{name} is requested a second time")
        choice = self._expected.pop(0) if self._expected else None
        if choice is None or any(choice[key] != data[key] for key in choice if key != "category"):
            self._break(f"{category} is granted, and the decision said {choice}")
        settings = config["categories"].get(category)
        if settings is None:
            self._break(f"{category} is not configured")
        assert settings is not None
        if len(self.live) >= config["slots"]:
            self._break(f"{len(self.live) + 1} sessions in {config['slots']} slots")
        taken = {key for session in self.live.values() for key in session.keys}
        if taken & set(data["keys"]):
            self._break(f"{category} is granted {data['keys']}, of which {taken & set(data['keys'])} is taken")
        if not set(settings["locks"]) < set(data["keys"]):
            self._break(f"{category} is granted {data['keys']}, without all of {settings['locks']}")
        alone = [s.category for s in self.live.values() if self._is_alone(s.category)]
        if self.live and (alone or self._is_alone(category)):
            self._break(f"{category} starts beside {[s.category for s in self.live.values()]}")
        self._unrestrained(category, data["backend"], now)
        self._backend_takes(name, data["backend"], now)
        self._within_rates(now)
        most = config["host"]["max_load_per_cpu"]
        if self._host is None or now - self._host[0] > self._max_age or self._host[1] > most:
            self._break(f"{category} starts on a host that is busy or was not measured: {self._host}")
        if data["rule"] != "manual":
            if settings["parallel"] is False:
                self._break(f"{category} is started by rule {data['rule']}, and is only for hands")
            self._may_start(category, settings, data, now)
        self._asked_for(category, data, event.tick, now)
        session = Session(
            category, event.position, data["keys"], data["chain"], data["rule"], data["backend"], data["task"],
            data["parent"], at=now,
        )  # fmt: skip
        self._in_chain(session, data["parent"], now)
        self.sessions[name] = self.live[name] = session
        self._requests.append(now)

    def _is_alone(self, category: str) -> bool:
        return self._config["categories"].get(category, {}).get("parallel") == "alone"

    @property
    def _max_age(self) -> int:
        return round(self._config["selector"]["max_age"] * 1_000_000)

    @property
    def _period(self) -> int:
        return round(self._config["every"] * 1_000_000)

    def restraints(self, now: int) -> dict[str, str]:
        return {scope: mode for scope, (mode, until) in self._modes.items() if until is None or until > now}

    def _unrestrained(self, category: str, backend: str, now: int) -> None:
        found = self.restraints(now)
        for scope in ("all", f"category:{category}", f"backend:{backend}"):
            if scope in found:
                self._break(f"{category} starts on {backend} while {scope} is {found[scope]}")

    def _backend_takes(self, session: str, backend: str, now: int) -> None:
        settings = self._config["backends"][backend]
        live = sum(session.backend == backend for session in self.live.values())
        if settings["concurrency"] is not None and live >= settings["concurrency"]:
            self._break(f"{backend} has {live} sessions, and takes {settings['concurrency']}")
        pool = settings["pool"]
        if (limit := self._pools.get(pool)) is None:
            return
        if now < (limit.since + HOUR if limit.until is None else limit.until):
            self._break(f"{backend} is used while its pool {pool} is limited")
        probe = self.live.get(limit.probe or "")
        if probe is not None and (probe.started is None or now < probe.started + PROVEN):
            self._break(f"{backend} is used while its pool {pool} is tried by {limit.probe}")
        if limit.probe is None or probe is None:
            limit.probe = session

    def _within_rates(self, now: int) -> None:
        hour = sum(0 <= now - at < HOUR for at in self._requests)
        if hour >= self._config["max_starts_per_hour"]:
            self._break(f"start {hour + 1} of an hour, and {self._config['max_starts_per_hour']} are allowed")

    def _starts(self, now: int) -> Counter[str]:
        """Starts by category in the UTC hours that the window touches, but for those that came to nothing."""
        first, last = max(0, now - round(self._config["window"] * 1_000_000)) // HOUR, now // HOUR
        return Counter(
            session.category
            for session in self.sessions.values()
            if session.started is not None and session.end not in UNUSED and first <= session.started // HOUR <= last
        )

    def _may_start(self, category: str, settings: dict[str, Any], data: dict[str, Any], now: int) -> None:
        """The gates that do not bind a start by hand."""
        if settings["gate"]:
            at, answer = self._gates.get(category, (0, "none"))
            if answer != "work" or not 0 <= now - at <= self._max_age:
                self._break(f"{category} starts, and its gate said {answer} {(now - at) // 1_000_000} s ago")
        if self._config["max_ratio"] is not None and settings["target"] is not None:
            counts = self._starts(now)
            counts.update(session.category for session in self.live.values() if session.started is None)
            stated = [each["target"] for each in self._config["categories"].values() if each["target"] is not None]
            share = Fraction(str(settings["target"])) / sum(Fraction(str(each)) for each in stated)
            total = sum(counts[name] for name in self._config["categories"])
            most = max(1, ceil(Fraction(str(self._config["max_ratio"])) * share * (total + 1)))
            if counts[category] + 1 > most:
                self._break(f"{category} has {counts[category]} of {total} starts; {most} are the most after one more")
        self._rested(category, settings, data["rule"], now)

    def _rested(self, category: str, settings: dict[str, Any], rule: str, now: int) -> None:
        """Neither backing off after NOOPs (docs/gates.md) nor cooling down after a chain."""
        ends = self._assessed.get(category, [])
        noops = [at for at, noop in ends if noop]
        if noops:
            since = noops[-1] - 48 * self._period
            k = sum(since < at <= noops[-1] for at in noops)
            n = sum(since < at <= now for at, _ in ends)
            if k >= 3 and 3 * k >= n and noops[-1] <= now < noops[-1] + min(2 ** (k - 2), 8) * self._period:
                self._break(f"{category} starts while it backs off: {k} NOOPs of {n}")
        if rule == "respawn" or category not in self._chain_end:
            return
        at, outcome = self._chain_end[category]
        length = self._period if settings["cooldown"] is None else round(settings["cooldown"] * 1_000_000)
        excused = outcome in ("productive", "limited")  # and failures of a backend's own command, which are none here
        if settings["cooldown"] is None and excused:
            return
        if at <= now < at + length:
            seconds = (now - at) // 1_000_000
            self._break(f"{category} starts {seconds} s after it ended {outcome}, and cools down {length // 1_000_000}")

    def _asked_for(self, category: str, data: dict[str, Any], tick: str | None, now: int) -> None:
        """By the rule that it names: the selector's last answer, the net, an operator, or a respawn that is due."""
        rule, answer = data["rule"], self._answer
        if rule == "manual":
            if self._tick["trigger"] != "manual":
                self._break(f"{category} is started by hand in a pass of {self._tick['trigger']}")
            return
        if rule == "respawn":
            if data["parent"] is None:
                self._break(f"{category} is a respawn of nobody")
            return
        assert answer is not None
        if rule == "allowlist":
            live = sum(session.rule == "allowlist" for session in self.live.values())
            if live >= self._config["selector"]["fallback_slots"]:
                self._break(f"{live} sessions of the safety net live already")
            return
        if (category, rule, data["task"]) not in answer.ranking:
            self._break(f"{category} is started by rule {rule}, and the answer has {answer.ranking}")
        if answer.tick != tick and not 0 <= now - answer.at <= self._max_age:
            self._break(f"{category} is started on an answer {(now - answer.at) // 1_000_000} s old")
        answer.used[category] += 1
        if answer.used[category] > 1:
            self._break(f"{category} is started a second time on one answer")

    def _in_chain(self, session: Session, parent: str | None, now: int) -> None:
        if parent is None:
            if session.chain:
                self._break(f"{session.category} is respawn {session.chain} of nobody")
            return
        before = self.sessions[parent]
        if session.chain != before.chain + 1 or session.category != before.category:
            self._break(f"{session.category} follows {parent} as respawn {session.chain}, after {before.chain}")
        if session.chain > self._config["respawn"]["limit"]:
            self._break(f"respawn {session.chain} of a chain, and {self._config['respawn']['limit']} are allowed")
        if not before.may_respawn or before.followed or not 0 <= now - before.ended <= self._period:
            self._break(f"{session.category} follows {parent}, which has earned no respawn, or has had it, or long ago")
        before.followed = True

    # ── sessions and locks ────────────────────────────────────────────────────────────────────────────────────────────

    def _lock_acquired(self, event: Event) -> None:
        key, token = event.data["key"], event.data["token"]
        session = self.live.get(event.session or "")
        if session is None or session.token != token or key not in session.keys:
            self._break(f"{key} is taken under {token} for {event.session}")
        if key in self._holders or token <= self._last_token.get(key, 0):
            self._break(f"{key} is taken under {token}, after {self._last_token[key]}")
        self._holders[key] = self._last_token[key] = token

    def _lock_released(self, event: Event) -> None:
        key, token = event.data["key"], event.data["token"]
        if self._holders.pop(key, None) != token:
            self._break(f"{key} is let go under {token}, which does not hold it")
        body = self.machine.bodies.get(event.session or "")
        if body is not None and body.over is None:
            self._break(f"{key} is let go while {event.session} physically holds it")

    def _session_started(self, event: Event) -> None:
        session = self.live.get(event.session or "")
        if session is None or session.started is not None:
            self._break(f"{event.session} starts without a request, or a second time")
        assert session is not None
        session.started = micros(event.at)

    def _end(self, event: Event) -> None:
        session = self.live.pop(event.session or "", None)
        if session is None:
            self._break(f"{event.session} ends without a request, or a second time")
        assert session is not None
        body = self.machine.bodies.get(event.session or "")
        if body is not None and body.over is None:
            self._break(f"{event.session} ends in the log while the machine has it alive")
        data, now = event.data, micros(event.at)
        code = data.get("code") or data.get("reason") or ""
        session.end = data.get("outcome") or ("refused" if event.type == "session.spawn_failed" else "lost")
        session.ended = now
        self._ended += 1
        if session.end in ASSESSED:
            self._all_assessed = [*self._all_assessed, event.session or ""][-20:]
            ends = self._assessed.setdefault(session.category, [])
            self._assessed[session.category] = [*ends, (now, session.end == "noop")][-20:]
        grade, lowest = data.get("grade"), self._config["respawn"]["min_grade"]
        session.may_respawn = (
            session.end == "productive" and data["proved"] and session.rule != "allowlist"
            and (grade is None or grade >= lowest)
        )  # fmt: skip
        if code != "voided":
            self._chain_end[session.category] = (now, session.end)
            return
        if self._answer is not None and self._answer.at <= session.at:
            self._answer.used[session.category] -= session.rule not in ("manual", "respawn", "allowlist")
        if session.parent is not None:  # its respawn is still to come
            self.sessions[session.parent].followed = False

    # ── for the end of a run ──────────────────────────────────────────────────────────────────────────────────────────

    def started_since(self, position: int) -> Counter[str]:
        sessions = self.sessions.values()
        return Counter(s.category for s in sessions if s.started is not None and s.token > position)

    def started_last(self, category: str) -> tuple[int, str]:
        """A sort key: who was started longest ago comes first."""
        return max((s.token for s in self.sessions.values() if s.category == category), default=0), category

    def most_live_since(self, position: int) -> int:
        return max(live for at, live in self._history if at > position)

    def compare(self, state: Any) -> None:
        """The product's projections at head against this bookkeeping."""
        assert state.position == self.position, (state.position, self.position)
        now = micros(self._at)
        first, last = max(0, now - round(self._config["window"] * 1_000_000)) // HOUR, now // HOUR
        hours = state.allocation["hours"].items()
        counted: Counter[str] = Counter()
        for hour, cells in hours:
            if first <= micros(f"{hour}:00:00.000000Z") // HOUR <= last:
                counted.update({name: started for name, (started, _) in cells.items() if started})
        started = sum(session.started is not None for session in self.sessions.values())
        lately, lowest = now - self._period, self._config["respawn"]["min_grade"]
        due = {
            each["session"]
            for each in state.outcomes["due"]
            if micros(each["at"]) > lately and (each["grade"] is None or each["grade"] >= lowest)
        }
        earned = {
            name
            for name, each in self.sessions.items()
            if each.may_respawn and not each.followed and each.ended > lately
        }
        pairs = {
            "live sessions": (set(state.sessions["live"]), set(self.live)),
            "locks": ({key: held["token"] for key, held in state.locks["held"].items()}, self._holders),
            "ends": (state.sessions["ended"], self._ended),
            "starts": (state.sessions["started"], started),
            "requests": (state.sessions["requested"], len(self.sessions)),
            "starts in the window": (+counted, self._starts(now)),
            "assessed ends": ([each["session"] for each in state.outcomes["assessed"]], self._all_assessed),
            "respawns due": (due, earned),
            "last ends": (
                {name: last["outcome"] for name, last in state.outcomes["last"].items()},
                {name: outcome for name, (_, outcome) in self._chain_end.items()},
            ),
            "same-lock violations": (state.locks["violations"], 0),
        }
        for what, (theirs, ours) in pairs.items():
            if theirs != ours:
                self._break(f"{what}: the projection has {theirs}, the events {ours}")


def _scope(event: Event) -> str:
    scope, name = event.data["scope"], event.data["name"]
    return scope if name is None else f"{scope}:{name}"


def _time(text: str | None) -> int | None:
    return None if text is None else micros(text)
