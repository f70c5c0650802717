"""Random but plausible histories: what a loop with bad luck would write, legal by `events.lifecycle`.

`history(seed, length)` is the same for ever for one version of this file and of the decider. Passes decide with the
real decider on the view of that instant, sessions start, fail, end, are lost and graded, pools run dry, operators
pause and start by hand, configs change, the machine reboots, its clock is set. Every append is checked against the
state machines, and locks are held physically from grant to end, so no history has a same-lock violation.
"""

from __future__ import annotations

from random import Random
from typing import Any

from given import HOUR, MINUTE, SECOND, START, Story, config

from events import catalog
from events.catalog import Payload
from events.envelope import Event, short_id, to_text
from loop.decider import Choice, decide
from loop.journal import check_legal
from projections import schedule
from projections.view import view

NAMES = ("code", "docs", "research", "triage", "infra", "news")
OUTCOMES = [
    "productive",
    "productive",
    "productive",
    "productive",
    "noop",
    "noop",
    "unproven",
    "blocked",
    "failed",
    "limited",
    "refused",
    "timed_out",
    "stalled",
    "cancelled",
]
RANKED = ("diversity_alternatives", "alternatives", "all_scores")


class World(Story):
    """A loop, its machine and its luck."""

    def __init__(self, seed: int, *, steps: bool = True) -> None:
        super().__init__(START)
        self.random = Random(seed)
        self.steps = steps  # whether the clock may be set
        self.boots = 1
        self.boot_ns = 10**12
        self.granted_ns: dict[str, int] = {}
        self.unserved: list[str] = []  # ended sessions whose end had no pass
        self.gradable: list[str] = []

    # ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, payload: Payload, **envelope: Any) -> Event:
        check_legal(self.state, payload, envelope.get("session"))
        return super().append(payload, **envelope)

    def run(self, length: int) -> World:
        """At least `length` events."""
        self.append(catalog.StoreMigrated(store="lworld", schema_from=0, schema_to=1, sqlite="3", release="0"))
        self.configure()
        while len(self.events) < length:
            self.pass_time(self.random.choice((1, 5, 30, 60, 300, 900)) * SECOND + self.random.randrange(SECOND))
            name = self.random.choices(list(MOVES), list(MOVES.values()))[0]
            getattr(self, name)()
        return self

    def pass_time(self, length: int) -> None:
        self.now += length
        self.boot_ns += length * 1_000

    @property
    def boot(self) -> str:
        return f"boot-{self.boots}"

    def pick(self, status: str) -> str | None:
        """A live session of this status."""
        found = [id for id, live in self.state.sessions["live"].items() if live["status"] == status]
        return self.random.choice(found) if found else None

    # ── passes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def configure(self) -> None:
        draw = self.random
        names = draw.sample(NAMES, draw.randint(2, len(NAMES)))
        targets = draw.random() < 0.5
        categories = {
            name: {
                "target": round(draw.random(), 2) if targets and draw.random() < 0.8 else None,
                "parallel": draw.choice((True, True, True, True, False, "alone")),
                "cooldown": draw.choice((None, None, 0.0, 600.0)),
                "backends": draw.choice((None, None, ["opus"], ["sonnet", "opus"])),
                "lanes": draw.choice((1, 1, 1, 2)),
                "locks": draw.choice(([], [], [], ["repo"], ["repo", "site"])),
                "own_command": draw.random() < 0.5,
                "gate": draw.random() < 0.3,
            }
            for name in names
        }
        if draw.random() < 0.4:
            categories[names[0]]["max_runs_per_day"] = draw.choice((1, 3))
        backends = {
            "opus": {
                "pool": "max",
                "concurrency": draw.choice((None, 1)),
                "max_cost_per_day": draw.choice((None, 1.0)),
            },
            "sonnet": {"pool": draw.choice(("max", "sonnet"))},
            "local": {"pool": "local", "command": draw.random() < 0.7},
        }
        cron = draw.random() < 0.2
        values = config(
            hash=f"config-{len(self.events)}",
            categories=categories,
            backends=backends,
            pools={
                "max": {
                    "concurrency": draw.choice((None, None, 2)),
                    "max_tokens_per_day": draw.choice((None, 9_000)),
                }
            },
            slots=draw.randint(1, 5),
            cron="*/20 * * * *" if cron else None,
            timezone="Europe/Stockholm" if cron else None,
            every=None if cron else draw.choice((600.0, 1800.0)),
            on_reject=draw.choice(("fallback", "fallback", "hold")),
            fallback_slots=draw.randint(1, 2),
            limit=draw.randint(0, 2),
            window=draw.choice((3600.0, 7200.0, 172_800.0)),
            max_starts_per_hour=draw.choice((4, 20)),
            max_starts_per_day=draw.choice((None, 40)),
            policy=draw.choice(("intent", "intent", "fair")),
            max_ratio=draw.choice((None, 1.5, 1.75)),
            max_load_per_cpu=draw.choice((None, None, 1.5)),
            min_disk_free=draw.choice((None, None, 1 << 30)),
        )
        self.append(catalog.LoopConfigured.model_validate(values))

    def begin_pass(self, trigger: str, **fields: Any) -> None:
        self.tick = short_id("t", "world", len(self.events) + 1)
        payload = catalog.TickStarted.model_validate(
            {"trigger": trigger, "pid": 100, "start": 1, "boot": self.boot, "boottime": self.boot_ns // 1000, **fields}
        )
        self.append(payload, tick=self.tick)

    def fire(self) -> None:
        manual = self.random.random() < 0.1
        nominal = schedule.last_fire(self.state.control["config"], self.now)
        if manual:
            self.begin_pass("manual")
        else:
            self.begin_pass("timer", timer="schedule", nominal=to_text(nominal))
        if self.random.random() < 0.2:
            rejected = catalog.SelectionRejected(source="command", reason="timeout", keys=[])
            self.append(rejected, tick=self.tick)
        else:
            self.select()
        for name, settings in self.state.control["config"]["categories"].items():
            if settings["gate"]:
                said = self.random.choice(("work", "work", "work", "work", "no_work", "error"))
                self.append(catalog.GateAnswered(answer=said, seconds=0.1), tick=self.tick, category=name)
        self.measure()
        self.decide()

    def measure(self) -> None:
        if any(bound is not None for bound in self.state.control["config"]["host"].values()):
            load = self.random.choice((0.5, 0.5, 0.5, 0.5, 0.5, 2.1))
            free = self.random.choice((1 << 33, 1 << 33, 1 << 33, 1 << 33, None))
            self.append(catalog.HostMeasured(load_per_cpu=load, disk_free=free), tick=self.tick)

    def select(self) -> None:
        names = self.random.sample((*NAMES, "unheard-of"), self.random.randint(0, len(NAMES)))
        rules = ["selected"] * min(1, len(names))
        rules += sorted(self.random.choices(RANKED, k=max(0, len(names) - 1)), key=RANKED.index)
        entries = [
            {
                "category": name,
                "rule": rule,
                "task": self.random.choice((None, None, "task-1", f"task-{name}")),
                "score": self.random.choice((None, round(self.random.random() * 8, 3))),
            }
            for name, rule in zip(names, rules, strict=True)
        ]
        tier = self.random.choice((None, 1, 2, 3))
        answer = catalog.SelectionMade.model_validate({"source": "command", "tier": tier, "ranking": entries})
        self.append(answer, tick=self.tick)

    def session_end(self) -> None:
        if self.unserved:
            self.begin_pass("session_end", ended=self.unserved.pop())
            self.measure()
            self.decide()

    def start_by_hand(self) -> None:
        self.begin_pass("manual")
        request = catalog.OperatorRequested(
            action="start",
            task=self.random.choice((None, "task-1")),
            backend=self.random.choice((None, None, "opus", "gone")),
        )
        self.append(request, tick=self.tick, category=self.random.choice((*NAMES, "unheard-of")))
        self.decide()

    def decide(self) -> None:
        decision = decide(view(self.state, self.now))
        event = self.append(catalog.FanoutDecided.model_validate(decision.as_dict()), tick=self.tick)
        for choice in decision.chosen:
            self.grant(choice, event)
        if self.random.random() < 0.8:
            finished = catalog.TickFinished(started=len(decision.chosen), failed=0, seconds=0.1)
            self.append(finished, tick=self.tick, cause=event.position)

    def grant(self, choice: Choice, event: Event) -> None:
        settings = self.state.control["config"]
        session = short_id("s", "world", len(self.events) + 1)
        timeout = settings["categories"][choice.category]["timeout"]
        payload = catalog.SessionRequested.model_validate(
            {
                "task": choice.task,
                "backend": choice.backend,
                "pool": settings["backends"][choice.backend]["pool"],
                "keys": list(choice.keys),
                "chain": choice.chain,
                "parent": choice.parent,
                "rule": choice.rule,
                "trigger": self.state.control["current"]["trigger"],
                "timeout": timeout,
                "deadline": to_text(self.now + round(timeout * SECOND)),
            }
        )
        about = {"tick": self.tick, "session": session, "category": choice.category}
        token = self.append(payload, cause=event.position, **about).position
        self.granted_ns[session] = self.boot_ns
        for key in choice.keys:
            self.append(catalog.LockAcquired(key=key, token=token), cause=token, **about)
        pool = self.state.backends["pools"].get(payload.pool)
        if pool is not None and pool["probe"] == session:
            self.append(catalog.BackendProbed(pool=payload.pool, source="session"), cause=token, **about)

    def skip(self) -> None:
        reason = self.random.choice(("overlap", "used", "paused", "invalid_config", "expect"))
        self.append(catalog.TickSkipped.model_validate({"trigger": "timer", "reason": reason}))

    # ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────

    def about(self, session: str) -> dict[str, Any]:
        live = self.state.sessions["live"][session]
        return {"session": session, "category": live["category"], "tick": live["tick"], "cause": live["token"]}

    def finish(self, session: str, payload: Payload) -> None:
        """A session's end and the release of its keys."""
        live, about = self.state.sessions["live"][session], self.about(session)
        self.append(payload, **about)
        if payload.type == "session.ended" and getattr(payload, "outcome", "") == "limited":
            until = self.random.choice((None, to_text(self.now + HOUR)))
            self.append(catalog.BackendLimited(pool=live["pool"], until=until, source="session"), **about)
        for key in live["keys"]:
            self.append(catalog.LockReleased(key=key, token=live["token"], how="clean"), **about)
        self.unserved.append(session)

    def held(self, session: str) -> dict[str, Any]:
        keys = self.state.sessions["live"][session]["keys"]
        interval = {"boot": self.boot, "from_ns": self.granted_ns[session], "to_ns": self.boot_ns}
        return dict.fromkeys(keys, interval)

    def start(self) -> None:
        if session := self.pick("requested"):
            payload = catalog.SessionStarted(pid=len(self.events), start=5, shim_pid=4, shim_start=4, boot=self.boot)
            self.append(payload, **self.about(session))

    def fail_to_start(self) -> None:
        if session := self.pick("requested"):
            code = self.random.choice(("voided", "voided", "command_not_found", "lock_held"))
            if code == "lock_held":
                live = self.state.sessions["live"][session]
                refused = catalog.LockRefused(key=live["keys"][0], token=live["token"], reason=code)
                self.append(refused, **self.about(session))
            self.finish(session, catalog.SessionSpawnFailed(code=code, stage="claim"))

    def watch(self) -> None:
        if session := self.pick("started"):
            models = (catalog.SessionWarned, catalog.SessionStopping, catalog.SessionAdopted)
            model = self.random.choice(models)
            self.append(model(by="shim", why=self.random.choice(("silence", "deadline"))), **self.about(session))

    def end(self) -> None:
        if session := self.pick("started"):
            outcome = self.random.choice(OUTCOMES)
            payload = catalog.SessionEnded.model_validate(
                {
                    "outcome": outcome,
                    "exit_code": 0,
                    "seconds": round(self.random.random() * 3000, 3),
                    "grade": self.random.choice((None, 0.3, 0.7, 0.9)),
                    "proved": outcome == "productive" and self.random.random() < 0.8,
                    "held": self.held(session),
                    "reason": self.random.choice((None, None, "unauthorised")) if outcome == "refused" else None,
                    "usage": self.random.choice((None, {"tokens": 2_000}, {"tokens": 3_000, "cost_usd": 0.4})),
                }
            )
            self.finish(session, payload)
            self.gradable = [*self.gradable[-5:], session]

    def lose(self) -> None:
        session = self.pick(self.random.choice(("requested", "started")))
        if session:
            self.finish(session, catalog.SessionLost.model_validate({"why": "shim_died", "held": self.held(session)}))

    def grade(self) -> None:
        if self.gradable:
            session = self.gradable.pop()
            self.append(catalog.SessionGraded(grade=0.8, source="test"), session=session)

    # ── everything else ───────────────────────────────────────────────────────────────────────────────────────────

    def pool(self) -> None:
        name = self.random.choice(("max", "sonnet", "local"))
        known = self.state.backends["pools"].get(name)
        status = known["state"] if known else "available"
        if status == "available" or self.random.random() < 0.3:
            until = self.random.choice((None, to_text(self.now + 20 * MINUTE)))
            self.append(catalog.BackendLimited(pool=name, until=until, source="operator"))
        elif status == "limited" and self.random.random() < 0.5:
            self.append(catalog.BackendProbed(pool=name, source="controller"))
        else:
            self.append(catalog.BackendRestored(pool=name, source="operator"))

    def restrain(self) -> None:
        model = self.random.choice((catalog.LoopPaused, catalog.LoopDraining, catalog.LoopFrozen))
        scope, name = self.random.choice((("all", None), ("category", "code"), ("backend", "opus")))
        until = self.random.choice((None, to_text(self.now + 30 * MINUTE)))
        self.append(model.model_validate({"scope": scope, "name": name, "until": until}))

    def resume(self) -> None:
        scope, name = self.random.choice((("all", None), ("all", None), ("category", "code")))
        self.append(catalog.LoopResumed.model_validate({"scope": scope, "name": name}))

    def controller(self) -> None:
        if self.state.control["controller"] is None:
            self.append(catalog.ControllerStarted(pid=100, start=1, boot=self.boot, release="0"))
        else:
            self.append(catalog.ControllerStopped(pid=100, why="signal"))

    def notice(self) -> None:
        model = self.random.choice((catalog.NoticeSent, catalog.NoticeFailed))
        self.append(model(kind="over_allocated"))

    def set_clock(self) -> None:
        if self.steps:
            before = self.now
            self.now = max(0, before + self.random.choice((-3 * HOUR, -MINUTE, 26 * HOUR)))
            seconds = (self.now - before) / 1e6
            stepped = catalog.ClockStepped(expected=to_text(before), observed=to_text(self.now), seconds=seconds)
            self.append(stepped)

    def suspend(self) -> None:
        self.pass_time(self.random.randint(1, 9) * HOUR)
        self.append(catalog.HostSuspended(seconds=HOUR / 1e6))

    def reboot(self) -> None:
        lost = [(session, self.held(session)) for session in self.state.sessions["live"]]
        self.boots += 1
        self.boot_ns = 10**9
        for session, held in lost:
            self.finish(session, catalog.SessionLost.model_validate({"why": "reboot", "held": held}))


MOVES = {
    "fire": 14,
    "session_end": 14,
    "start": 40,
    "end": 30,
    "fail_to_start": 4,
    "watch": 5,
    "lose": 3,
    "grade": 4,
    "start_by_hand": 4,
    "skip": 2,
    "pool": 3,
    "restrain": 2,
    "resume": 4,
    "configure": 1,
    "controller": 1,
    "notice": 1,
    "set_clock": 1,
    "suspend": 1,
    "reboot": 0.5,
}


def history(seed: int, length: int, *, steps: bool = True) -> World:
    """The history of this seed; at least `length` events."""
    return World(seed, steps=steps).run(length)
