"""`given(*happenings)`: a State folded from events made of the catalog's models, told as a story.

A happening is a function of the Story; the names read as what happened: `given(configured(), requested("s1"), ...)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from events import catalog
from events.catalog import Payload
from events.envelope import Event, to_json, to_micros, to_text
from loop.decider import decide
from projections.state import State
from projections.view import View, view

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
START = to_micros("2026-11-23T14:00:00Z")
BOOT = "boot-1"


class Story:
    """Events as they were appended, and the State folded from them."""

    def __init__(self, now: int = START) -> None:
        self.now = now
        self.events: list[Event] = []
        self.state = State()
        self.tokens: dict[str, int] = {}
        self.category: dict[str, str] = {}
        self.keys: dict[str, list[str]] = {}
        self.tick: str | None = None

    def append(self, payload: Payload, **envelope: Any) -> Event:
        """Fold one event as a reader of the log would: through its JSON."""
        data = json.loads(to_json(payload.split()[0]))
        position = len(self.events) + 1
        fields = {"tick": None, "cause": None, "session": None, "category": None, **envelope}
        event = Event(position, payload.type, to_text(self.now), data=data, **fields)
        self.state.apply(event)
        self.events.append(event)
        return event

    def happens(self, *happenings: Happening) -> Story:
        for happening in happenings:
            happening(self)
        return self

    def of(self, session: str) -> dict[str, Any]:
        """The envelope of a session's events."""
        return {"session": session, "category": self.category[session], "tick": self.tick}

    def view(self, now: int | None = None) -> View:
        return view(self.state, self.now if now is None else now)


Happening = Callable[[Story], object]


def given(*happenings: Happening) -> Story:
    return Story().happens(*happenings)


def after(**units: float) -> Happening:
    """Time passes: `after(minutes=5)`; a negative one is a clock that was set back."""
    lengths = {"seconds": SECOND, "minutes": MINUTE, "hours": HOUR, "days": 24 * HOUR}

    def happen(story: Story) -> None:
        story.now += round(sum(lengths[unit] * count for unit, count in units.items()))

    return happen


def seen(payload: Payload, **envelope: Any) -> Happening:
    """Any event."""
    return lambda story: story.append(payload, **envelope)


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CATEGORY: dict[str, Any] = {
    "target": None,
    "parallel": True,
    "maintenance": False,
    "cooldown": None,
    "backends": None,
    "lanes": 1,
    "locks": [],
    "evidence": "outcome",
    "exit_codes": {},
    "timeout": 3000.0,
    "silence": 900.0,
    "kill_on_silence": False,
    "grace": 20.0,
    "gate": False,
    "own_command": True,
    "env": [],
    "max_runs_per_day": None,
    "max_tokens_per_day": None,
    "max_cost_per_day": None,
}
POOL: dict[str, Any] = {
    "concurrency": None,
    "max_runs_per_day": None,
    "max_tokens_per_day": None,
    "max_cost_per_day": None,
}
BACKEND: dict[str, Any] = {**POOL, "pool": "default", "command": True, "env": []}


def config(**changes: Any) -> dict[str, Any]:
    """The data of `loop.configured`; keys of its tables are given flat (`max_age=60`), categories as what differs."""
    categories = changes.pop("categories", ("code", "docs", "research"))
    if not isinstance(categories, dict):
        categories = {name: {} for name in categories}
    backends = changes.pop("backends", {"default": {}})
    pools = changes.pop("pools", {})
    values: dict[str, Any] = {
        "hash": "config",
        "slots": 3,
        "every": 1800.0,
        "cron": None,
        "timezone": None,
        "jitter": 0.0,
        "policy": "intent",
        "max_starts_per_hour": 100,
        "max_starts_per_day": None,
        "stagger": 0.0,
        "window": 48 * 3600.0,
        "max_ratio": None,
        "selector": {
            "kind": "command",
            "timeout": 30.0,
            "max_age": 900.0,
            "on_reject": "fallback",
            "fallback_slots": 1,
            "default_category": None,
            "aliases": {},
        },
        "respawn": {"limit": 1, "min_grade": 0.65},
        "host": {"max_load_per_cpu": None, "min_memory_available": None, "min_disk_free": None},
        "categories": {name: {**CATEGORY, **differs} for name, differs in categories.items()},
        "backends": {name: {**BACKEND, **differs} for name, differs in backends.items()},
        "pools": {name: {**POOL, **differs} for name, differs in pools.items()},
        "settings": None,
    }
    for key, value in changes.items():
        table = next((values[name] for name in ("selector", "respawn", "host") if key in values[name]), values)
        assert key in table, key
        table[key] = value
    return values


def configured(**changes: Any) -> Happening:
    return seen(catalog.LoopConfigured.model_validate(config(**changes)))


def tick(trigger: str = "timer", *, ended: str | None = None, nominal: str | None = None) -> Happening:
    """A pass begins; what follows belongs to it."""

    def happen(story: Story) -> None:
        position = len(story.events) + 1
        story.tick = f"t{position}"
        payload = catalog.TickStarted.model_validate(
            {
                "trigger": trigger,
                "pid": 100,
                "start": 1,
                "boot": BOOT,
                "boottime": story.now,
                "timer": "schedule" if trigger == "timer" else None,
                "nominal": nominal or (to_text(story.now) if trigger == "timer" else None),
                "ended": ended,
            }
        )
        story.append(payload, tick=story.tick)

    return happen


def by_hand(category: str, *, task: str | None = None, backend: str | None = None) -> Happening:
    """`loop start`: a pass with the operator's request in it."""

    def happen(story: Story) -> None:
        tick("manual")(story)
        request = catalog.OperatorRequested(action="start", task=task, backend=backend)
        story.append(request, tick=story.tick, category=category)

    return happen


def ranking(*categories: str | dict[str, Any], rule: str = "all_scores", tier: int = 3) -> Happening:
    """The selector answers; the first entry has the rule `selected`."""

    def happen(story: Story) -> None:
        entries = []
        for index, given in enumerate(categories):
            entry = {"category": given} if isinstance(given, str) else given
            entries.append({"rule": "selected" if index == 0 else rule, **entry})
        answer = catalog.SelectionMade.model_validate({"source": "command", "tier": tier, "ranking": entries})
        story.append(answer, tick=story.tick)

    return happen


def rejection(reason: str = "timeout") -> Happening:
    def happen(story: Story) -> None:
        answer = catalog.SelectionRejected(source="command", reason=reason, keys=[])
        story.append(answer, tick=story.tick)

    return happen


def gate(category: str, answer: str = "work", exit_code: int | None = None) -> Happening:
    """A gate answers, in the pass under way."""
    code = {"work": 0, "no_work": 1}.get(answer, exit_code)
    payload = catalog.GateAnswered.model_validate({"answer": answer, "exit_code": code, "seconds": 0.1})
    return lambda story: story.append(payload, tick=story.tick, category=category)


def measured(**figures: float) -> Happening:
    """The host is measured, in the pass under way."""
    payload = catalog.HostMeasured.model_validate(figures)
    return lambda story: story.append(payload, tick=story.tick)


def decided(free: int) -> Happening:
    """A decision with `free` free slots; folds read no more of it."""

    def happen(story: Story) -> None:
        slots = catalog.Slots(capacity=3, live=3 - free, free=free)
        payload = catalog.FanoutDecided(
            decider=1,
            basis=len(story.events),
            now=to_text(story.now),
            policy="intent",
            slots=slots,
            chosen=[],
            candidates=[],
            idle=[],
            ledger=None,
        )
        story.append(payload, tick=story.tick)

    return happen


def decides(*, start: bool = True) -> Happening:
    """The pass decides, and what it chooses is granted and started as s1, s2, …"""

    def happen(story: Story) -> None:
        decision = decide(story.view())
        event = story.append(catalog.FanoutDecided.model_validate(decision.as_dict()), tick=story.tick)
        for choice in decision.chosen if start else ():
            session = f"s{len(story.category) + 1}"
            fields = {
                "task": choice.task,
                "backend": choice.backend,
                "keys": list(choice.keys),
                "chain": choice.chain,
                "parent": choice.parent,
                "rule": choice.rule,
            }
            story.happens(requested(session, choice.category, **fields))
            story.happens(*(acquired(key, session) for key in choice.keys), started(session))
        assert event.data["chosen"] == decision.as_dict()["chosen"]

    return happen


def restrained(mode: str, scope: str = "all", name: str | None = None, *, minutes: float | None = None) -> Happening:
    """`paused`, `draining`, `frozen` or `resumed`, for good or for some minutes."""
    model = catalog.REGISTRY[f"loop.{mode}"]

    def happen(story: Story) -> None:
        until = None if minutes is None else to_text(story.now + round(minutes * MINUTE))
        story.append(model.model_validate({"scope": scope, "name": name, "until": until}))

    return happen


# ── locks and sessions ────────────────────────────────────────────────────────────────────────────────────────────────


def acquired(key: str, session: str = "s1", *, token: int | None = None, imported: bool = False) -> Happening:
    def happen(story: Story) -> None:
        number = story.tokens[session] if token is None else token
        story.append(catalog.LockAcquired(key=key, token=number, imported=imported), session=session)

    return happen


def released(key: str, session: str = "s1", *, token: int | None = None, imported: bool = False) -> Happening:
    def happen(story: Story) -> None:
        number = story.tokens[session] if token is None else token
        payload = catalog.LockReleased(key=key, token=number, how="clean", imported=imported)
        story.append(payload, session=session)

    return happen


def requested(session: str = "s1", category: str = "code", **changes: Any) -> Happening:
    """A grant; no lock is taken."""

    def happen(story: Story) -> None:
        story.category[session] = category
        values: dict[str, Any] = {
            "task": "",
            "backend": "default",
            "pool": "default",
            "keys": [category],
            "chain": 0,
            "parent": None,
            "rule": "selected",
            "trigger": "timer",
            "timeout": 3000.0,
            "deadline": to_text(story.now + 3000 * SECOND),
            **changes,
        }
        story.keys[session] = values["keys"]
        event = story.append(catalog.SessionRequested.model_validate(values), **story.of(session))
        story.tokens[session] = event.position

    return happen


def granted(session: str = "s1", category: str = "code", **changes: Any) -> Happening:
    """A grant with its locks."""

    def happen(story: Story) -> None:
        requested(session, category, **changes)(story)
        for key in story.keys[session]:
            acquired(key, session)(story)

    return happen


def started(session: str = "s1") -> Happening:
    payload = catalog.SessionStarted(pid=200, start=2, shim_pid=199, shim_start=1, boot=BOOT)
    return lambda story: story.append(payload, **story.of(session))


def running(session: str = "s1", category: str = "code", **changes: Any) -> Happening:
    """A grant, its locks and its start."""
    return lambda story: story.happens(granted(session, category, **changes), started(session))


def ended(session: str = "s1", outcome: str = "productive", **changes: Any) -> Happening:
    """A session's end; a productive one is proved unless said otherwise. Locks stay as they are."""
    values = {"outcome": outcome, "seconds": 60.0, "proved": outcome == "productive", **changes}
    return lambda story: story.append(catalog.SessionEnded.model_validate(values), **story.of(session))


def over(session: str = "s1", outcome: str = "productive", **changes: Any) -> Happening:
    """A session's end and the release of its locks."""

    def happen(story: Story) -> None:
        ended(session, outcome, **changes)(story)
        for key in story.keys[session]:
            released(key, session)(story)

    return happen


def lost(session: str = "s1", **changes: Any) -> Happening:
    payload = catalog.SessionLost.model_validate({"why": "shim_died", **changes})
    return lambda story: story.append(payload, **story.of(session))


def failed(session: str = "s1", code: str = "voided") -> Happening:
    """A grant that became no session, and the release of its locks."""

    def happen(story: Story) -> None:
        payload = catalog.SessionSpawnFailed(code=code, stage="claim")
        story.append(payload, **story.of(session))
        for key in story.keys[session]:
            if key in story.state.locks["held"]:
                released(key, session)(story)

    return happen


def graded(session: str, grade: float) -> Happening:
    return lambda story: story.append(catalog.SessionGraded(grade=grade, source="test"), **story.of(session))


def held(begin: int, end: int, boot: str = BOOT) -> dict[str, Any]:
    """A physical interval on the boot clock."""
    return {"boot": boot, "from_ns": begin, "to_ns": end}


def limited(pool: str = "default", *, minutes: float | None = None) -> Happening:
    def happen(story: Story) -> None:
        until = None if minutes is None else to_text(story.now + round(minutes * MINUTE))
        story.append(catalog.BackendLimited(pool=pool, source="session", until=until))

    return happen
