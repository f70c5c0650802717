"""A run: the production loop on a told clock and a modelled machine, with a seed's faults, and then without any.

Processes come and go as in reality: one controller (`loop.run`'s own steps), one short process for each session's end,
an operator now and then. All of them write one log in memory. Any of them may die between two steps, and whoever comes
next finds nothing but the log and the machine.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from dst_faults import Mix, changes, mix
from dst_invariants import Broken, Watch
from dst_machine import Body, Machine, SteppingClock

from events.catalog import (
    GateAnswered,
    HostMeasured,
    LoopDraining,
    LoopFrozen,
    LoopPaused,
    LoopResumed,
    OperatorRequested,
    SelectionRejected,
)
from events.envelope import Event, to_json, to_text
from events.errors import ConfigError
from events.store import EventLog, Transaction
from loop import __version__, controller, run
from loop.audit.verify import verify
from loop.config import Config
from loop.controller import Loop
from loop.gates import asked
from loop.home import Home
from loop.journal import Journal
from loop.observe import Selection, interpret
from loop.passes import Fire
from loop.sessions import ingest, outcome, rundir, start
from loop.simulate.chance import MICRO, Always, Spells, outages, stream, supply
from loop.simulate.run import START
from loop.simulate.selector import Scored
from loop.simulate.settings import settings
from loop.simulate.workload import Trouble, Workload, load

HOUR = 3_600 * MICRO
LOOK = 300 * MICRO  # between two looks of the controller
FAULTY = 24 * HOUR
# More than the allocation window, the longest back-off or wait, and a clock set back by all that it can be.
SETTLING = 7 * HOUR
CALM = 5 * HOUR
NEVER = 2**62
SLACK = 20 * 60 * MICRO  # from a deadline to the look that must have noticed
FILE = Path(__file__).with_name("fleet.toml")
_PLACE = TemporaryDirectory(prefix="loop-dst-")  # of this process; the pass lock is the one file in it
STATE = Path(_PLACE.name)


class Died(Exception):
    """The acting process was killed at this very step."""


class Process(Loop):
    """`Loop` over a log that is there already; of its places only the pass lock is a real file."""

    def __init__(self, world: World, journal: Journal | None = None) -> None:
        self.home = Home(FILE, FILE.parent, STATE)
        self.environ = {}
        self.clock = world.clock
        self._glances = {}
        self.journal = journal or Journal(world.log)

    def _lock_file(self, key: str) -> None:
        """The machine's locks have no files."""


@cache
def workload() -> Workload:
    return load(FILE)


@cache
def config_of(changed: tuple[str, ...]) -> Config:
    return settings(None, workload(), changed)


class World:
    """One seed's run. `run` raises Broken with what went wrong, or whatever the product raised that it must not."""

    def __init__(self, seed: int, faults: Mix | None = None) -> None:
        self.seed, self.mix = seed, mix(seed) if faults is None else faults
        self.clock = SteppingClock(START)
        self.machine = Machine(self.clock, launch=self._launch)
        self.config = config_of(tuple(changes(seed)))
        self.broken_until = 0
        self.calm = False
        self.fires = 0
        self.deaths = 0
        self._random = {name: stream(seed, name) for name in (*vars_of(self.mix), "machine", "operator", "selector")}
        self._models = {name: workload().of(name) for name in self.config.categories}
        self._supply: dict[str, Spells | Always] = {
            name: supply(model.work, stream(seed, "work", name), START) for name, model in self._models.items()
        }
        trouble = Trouble(every=28_800, lasts=3_600) if self.mix.outage else None
        pools = {self.config.pool_of(name) for name in self.config.backends}
        self._outages = {pool: outages(trouble, stream(seed, "outage", pool), START) for pool in pools}
        self._selector = Scored(workload(), self.config, seed, START)
        self._ahead: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._reconfigured = 0
        self._controller: run.Watch | None = None
        self._pid = 0  # the controller's
        self._folded: Journal | None = None
        self.log = EventLog.in_memory(clock=self.clock, entropy=stream(seed, "salt").randbytes, release=__version__)
        self.watch = Watch(self.machine)
        self.watch.see(self.log.events())
        self._append, self._begin = self.log.insert, self.log.transaction
        self.log.insert, self.log.transaction = self._insert, self._transaction  # type: ignore[method-assign]

    # ── the run ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        with self.machine.installed(), self._observed():
            self._plan(START, self._come_up)
            self._plan(START + LOOK, self._look)
            self._until(START + FAULTY)
            self._stop_faults()
            self._until(START + FAULTY + SETTLING)
            calm_from = self.watch.position
            self._until(START + FAULTY + SETTLING + CALM)
            self._judge_liveness(calm_from)
            self.watch.compare(Journal(self.log).refresh())
            report = verify(self.log, workers=0)
        for check in report.checks:
            if not check.ok:
                raise Broken(f"verify: {check.name}: {check.detail}")

    def _until(self, end: int) -> None:
        while self._ahead[0][0] < end:
            at, _, happen = heapq.heappop(self._ahead)
            self.clock.reach(at)
            happen()
        self.clock.reach(end)

    def _plan(self, at: int, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._ahead, (at, self._order, happen))

    def _hits(self, fault: str) -> bool:
        """Whether a fault strikes now."""
        rate = 0.0 if self.calm else getattr(self.mix, fault)
        return rate > 0 and self._random[fault].random() < rate

    def _stop_faults(self) -> None:
        """From here on nothing goes wrong, there is work for all, and it is done."""
        self.calm = True
        self.broken_until = 0
        self._supply = {name: Always(True) for name in self._supply}
        self._outages = {pool: Always(False) for pool in self._outages}
        self.config = config_of((*changes(self.seed, self._reconfigured), "loop.max_starts_per_hour=60",
                                 "allocation.max_ratio=4.0"))  # fmt: skip
        if self._controller is None:
            self._come_up()
        else:
            self._controller.config_seen = None
        with self._other() as loop, loop.journal.transaction() as entry:
            entry.append(LoopResumed(reason=None), actor="operator")
            for name in self.config.categories:
                entry.append(LoopResumed(scope="category", name=name, reason=None), actor="operator")
            for name in self.config.backends:
                entry.append(LoopResumed(scope="backend", name=name, reason=None), actor="operator")

    def _judge_liveness(self, since: int) -> None:
        """Once faults have stopped: all are served, slots fill, nobody outlives its deadline, nothing restrains."""
        served = self.watch.started_since(since)
        wanted = {name for name, category in self.config.categories.items() if category.parallel is True}
        if missing := sorted(wanted - served.keys()):
            raise Broken(f"liveness: {', '.join(missing)} had work for {CALM // HOUR} h and was not started")
        fill = min(self.config.loop.slots, 4)  # of the lanes, as many as never stand in each other's way
        if (most := self.watch.most_live_since(since)) < fill:
            raise Broken(f"liveness: {most} sessions at once, and work enough for {fill}")
        for session in self.watch.live:
            body = self.machine.bodies.get(session)
            if body is None or self.clock.boottime() > body.began + 1_800 * MICRO + SLACK:
                raise Broken(f"liveness: {session} lives past its deadline")
        if self.watch.restraints(self.clock.now()):
            raise Broken("liveness: restrained after a resume")

    # ── processes and their steps ─────────────────────────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        """A point at which a process may be killed."""
        if self._hits("crash"):
            raise Died

    def _insert(self, row: Any) -> None:
        self._step()
        self._append(row)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """The log's own, with a point to die on either side, and with whoever wrote just before."""
        self._step()
        if self.machine.acting == self._pid and self._hits("race"):
            self._race()
        with self._begin() as transaction:
            yield transaction
        new = list(self.log.events(self.watch.position))
        self.watch.see(new)
        self._answer_guard(new)
        self._step()

    def _answer_guard(self, new: Iterable[Event]) -> None:
        """An operator lifts what the storm guard froze, within two hours."""
        for event in new:
            if event.type == "loop.frozen" and event.data["because"] is not None:
                at = self.clock.time + round(self._random["operator"].uniform(60, 7_200) * MICRO)
                scope, name = event.data["scope"], event.data["name"]
                self._plan(at, partial(self._resume, scope, name))

    @contextlib.contextmanager
    def _acting(self, pid: int) -> Iterator[None]:
        """A process runs until the end of the block, or until it dies in it; the controller lives on after."""
        before, self.machine.acting = self.machine.acting, pid
        try:
            yield
        except ConfigError:
            pass  # recorded, and nothing started
        except Died:
            self.deaths += 1
            if pid == self._pid:
                self._controller_is_gone(self._random["machine"].uniform(1, 5_400))
        finally:
            self.machine.acting = before
            if pid != self._pid or self._controller is None:
                self.machine.pids.discard(pid)

    @contextlib.contextmanager
    def _other(self) -> Iterator[Process]:
        """A short process beside the controller. What it folded serves the next one, as its own snapshot and tail
        would; after a death that one begins with the store alone."""
        journal, self._folded = self._folded or Journal(self.log), None
        with self._acting(self.machine.process()):
            yield Process(self, journal)
            self._folded = journal

    def _controller_is_gone(self, seconds: float) -> None:
        self.machine.pids.discard(self._pid)
        self._controller, self._pid = None, 0
        self._plan(self.clock.time + round(seconds * MICRO), self._come_up)

    def _come_up(self) -> None:
        if self._controller is not None:
            return
        self._pid = self.machine.process()
        self._controller = run.Watch(Process(self), _nobody)
        with self._acting(self._pid):
            run._begin(self._controller.loop, _nobody)

    def _look(self) -> None:
        """What `loop run` does between two sleeps, and what befalls it."""
        self._plan(self.clock.time + LOOK, self._look)
        self._operate()
        if self._hits("reboot"):
            self.machine.reboot()
            self._controller_is_gone(self._random["machine"].uniform(30, 3_600))
        if self._hits("step_clock"):
            wrong = self.clock.wrong + round(self._random["step_clock"].uniform(-HOUR, HOUR))
            self.clock.wrong = max(-HOUR, min(HOUR, wrong))
        watch = self._controller
        if watch is None:
            return
        with self._acting(self._pid):
            run._look(watch.loop, _nobody, settle=False)
            tried = watch.tried
            run._fire_if_due(watch)
            if watch.tried != tried:
                self.fires += 1
                if self._hits("twice"):
                    again = watch.loop.fire(Fire("timer", nominal=watch.tried))
                    if again.decided is not None:
                        raise Broken(f"an instant was used twice: {to_text(watch.tried or 0)}")
        if self._controller is watch and self.clock.time % HOUR < LOOK:
            self.watch.compare(watch.loop.journal.refresh())
        self.machine.forget(self.watch.live)

    def _race(self) -> None:
        """A session ends, and its own process has its pass, while this one was about to write."""
        running = [body for body in self.machine.bodies.values() if body.shim and body.session in self.watch.live]
        if running:
            self._finish(self._random["race"].choice(running))

    # ── operators ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _operate(self) -> None:
        random = self._random["operator"]
        if self._hits("reconfigure"):
            self._reconfigured += 1
            self.config = config_of(tuple(changes(self.seed, self._reconfigured)))
        if self._hits("break_config"):
            self.broken_until = self.clock.time + round(random.uniform(600, 7_200) * MICRO)
        if self._controller is not None:
            self._controller.config_seen = None  # as if the file had been touched
        if self._hits("by_hand"):
            category = random.choice(sorted(self.config.categories))
            asked_for = OperatorRequested(action="start", task="by-hand", backend=None, reason=None)
            with self._other() as loop:
                loop.fire(Fire("manual", start=asked_for, category=category))
        if self._hits("restrain"):
            scope, name = random.choice(
                [("all", None), *(("category", name) for name in self.config.categories), ("backend", "one")]
            )
            kind = random.choice([LoopPaused, LoopDraining, LoopFrozen])
            length = round(random.uniform(600, 4 * 3_600) * MICRO)
            until = to_text(self.clock.now() + length) if random.random() < 0.5 else None
            with self._other() as loop, loop.journal.transaction() as entry:
                entry.append(kind(scope=scope, name=name, until=until, reason=None), actor="operator")
            if until is None:
                self._plan(self.clock.time + length, lambda: self._resume(scope, name))

    def _resume(self, scope: Any, name: str | None) -> None:
        with self._other() as loop, loop.journal.transaction() as entry:
            entry.append(LoopResumed(scope=scope, name=name, reason=None), actor="operator")

    # ── what a pass observes ──────────────────────────────────────────────────────────────────────────────────────────

    def _observed(self) -> contextlib.AbstractContextManager[Any]:
        return patch.multiple(
            controller, load=self._load, measure=self._measure, asking=self._asking,
            ask_selector=lambda config, *rest, **more: self._answer(config),
        )  # fmt: skip

    def _load(self, path: Path) -> Config:
        if self.clock.time < self.broken_until:
            raise ConfigError("loop.toml: unknown key", "a fault of this run")
        return self.config

    def _measure(self, config: Config) -> HostMeasured:
        load = 9.0 if self._hits("busy_host") else 0.5
        return HostMeasured(load_per_cpu=load, text=None)

    def _with_work(self) -> list[str]:
        return [name for name, spells in self._supply.items() if spells.at(self.clock.time)]

    @contextlib.contextmanager
    def _asking(self, config: Config, *rest: Any, **more: Any) -> Iterator[dict[str, GateAnswered]]:
        answers: dict[str, GateAnswered] = {}
        yield answers
        with_work = self._with_work()
        for name in asked(config):
            answer: Any = "error" if self._hits("gate_error") else "work" if name in with_work else "no_work"
            answers[name] = GateAnswered(answer=answer, exit_code=None, seconds=0.1, text=None)

    def _answer(self, config: Config) -> Selection:
        self._step()
        self.clock.sleep(0.15)
        if self.calm:
            names = sorted(self._with_work(), key=self.watch.started_last)
            alternatives = [{"category": name} for name in names]
            return interpret(to_json({"alternatives": alternatives}).encode(), config, source="command", exit_code=0)
        answer = self._selector(self.clock.time, self._with_work(), lambda name: f"{name}-{self.watch.position}")
        return self._drifted(answer, config) if self._hits("drift") else answer

    def _drifted(self, answer: Selection, config: Config) -> Selection:
        """What a selector that changed, or failed, may print instead."""
        random = self._random["selector"]
        unheard_of = [{"category": "unheard-of"}, {"category": "code"}]
        payloads: list[Any] = [
            None, [], {}, {"choices": ["code"]}, {"selected": 7}, {"all_scores": {}}, {"all_scores": {"code": "high"}},
            {"alternatives": unheard_of}, {"alternatives": ["code"]}, {"tier": 3, "selected": {"category": "release"}},
            {"all_scores": {"code": 0.5, "triage": 0.5, "audit": 0.1}}, {"selected": None, "alternatives": []},
        ]  # fmt: skip
        payload = random.choice(payloads)
        if payload is None:
            return SelectionRejected(
                source="command", reason="exit_code", keys=[], exit_code=1, seconds=0.1, text=None, payload=None
            )
        return interpret(to_json(payload).encode(), config, source="command", exit_code=0)

    # ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _launch(self, spec: rundir.Spec) -> int:
        """A shim comes up: it finds its keys free, or what granted them was wrong."""
        self._step()
        if self._hits("launch_error"):
            raise start.LaunchError("no process could be made")
        if spec["session"] in self.machine.voided:
            raise start.LaunchError("claimed already")
        if (other := self.machine.holder(spec["keys"])) is not None:
            keys = ", ".join(spec["keys"])
            raise Broken(f"lock: {spec['session']} is granted {keys}, which {other.session} physically holds")
        body = self._drawn(spec)
        if self._hits("stillborn"):
            body.claimed = body.started = False
            self.machine.gone(body)
            self.machine.bodies[body.session] = body
            return body.pid
        self.machine.begin(body)
        self.clock.sleep(0.05)
        self._plan(self.clock.time + round(body.seconds * MICRO), lambda: self._finish(body))
        if self._hits("kill_shim"):
            after = self._random["kill_shim"].uniform(0, body.seconds)
            self._plan(self.clock.time + round(after * MICRO), lambda: self._kill_shim(body))
        return body.pid

    def _drawn(self, spec: rundir.Spec) -> Body:
        model, random = self._models[spec["category"]], self._random["machine"]
        pool = self._outages[spec["pool"]]
        seconds, limit, killed, code = model.seconds.draw(random), spec["timeout"], False, 0
        grade = round(model.grades.draw(random), 3)
        works = self._supply[spec["category"]].at(self.clock.time)
        came_to: Any = (model.outcomes if works else workload().session.without_work).at(random.random())
        told: outcome.OutcomeFile | None = outcome.OutcomeFile(
            outcome=came_to if came_to not in ("failed", "unproven") else None,
            grade=grade if came_to == "productive" else None,
        )
        if self.calm:
            seconds, told = random.uniform(1_200, 1_700), outcome.OutcomeFile(outcome="productive", grade=0.5)
        elif pool.at(self.clock.time):
            until = to_text(pool.until + self.clock.wrong) if random.random() < 0.7 else None
            seconds, told = 1.5, outcome.OutcomeFile(outcome="limited", resets_at=until)
        elif seconds > limit:
            seconds, told, killed = limit, None, True
        elif came_to == "failed":
            told, code = None, 1
        elif came_to == "unproven":
            told = None
        began = self.clock.boottime()
        return Body(spec, self.machine.new_pid(), self.machine.boot, began, seconds, code, told, killed)

    def _finish(self, body: Body) -> None:
        """The worker exits in order; its shim leaves the rest to a process of its own."""
        if not body.shim:
            if body.worker and not body.hidden:
                self.machine.gone(body)  # what its shim left behind comes to its end by itself
            return
        body.seconds = round((self.clock.boottime() - body.began) / MICRO, 3)
        self.machine.finish(body)
        if not self._hits("lose_ingest"):
            self._tell_end(body)
            if self._hits("twice"):
                self._tell_end(body)

    def _tell_end(self, body: Body) -> None:
        """`loop/sessions/end.py`, for this machine."""
        with self._other() as loop:
            ingest.ingest(loop.journal, rundir.path_of(str(STATE), body.session))
            self._step()
            loop.session_ended(body.session)

    def _kill_shim(self, body: Body) -> None:
        """The shim is killed; its worker may end with it, live on, or hide with the keys in its hands."""
        if not body.shim or self.calm:
            return
        random = self._random["kill_shim"]
        body.shim = False
        body.stubborn = random.random() < 0.3
        if random.random() < 0.2:
            self.machine.record_exit(body)
        if self._hits("hide"):
            body.hidden = True
            self._plan(self.clock.time + round(random.uniform(60, 7_200) * MICRO), lambda: self.machine.gone(body))
        elif random.random() < 0.5:
            self.machine.gone(body)


def vars_of(faults: Mix) -> tuple[str, ...]:
    """The names of a mix's faults."""
    return tuple(faults.__dataclass_fields__)


def _nobody(text: str) -> None:
    """Nobody reads what a controller reports."""
