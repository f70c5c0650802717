"""What happens, in the order of time: fires, ends of sessions, crashes of the machine; each with its real pass.

Only the processes are missing. A grant becomes a session with drawn figures, and its end the records that a shim would
have left; what they mean is judged by `loop.sessions.outcome` and appended by `loop.sessions.ingest`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from events.catalog import ControllerStarted, GateAnswered, HostMeasured, Interval, SessionLost, TickFinished
from events.envelope import to_text
from loop import __version__
from loop.cascade.tasks import Files, Task
from loop.config import Config, facts
from loop.gates import asked
from loop.journal import Entry, Rehearsal
from loop.observe import Selection, ask_selector
from loop.passes import ACTOR, Facts, Fire, Grant, Process, configure, decide_pass
from loop.sessions import ingest, outcome, rundir
from loop.simulate.chance import MICRO, Always, Spells, outages, stream, supply
from loop.simulate.clock import ToldClock
from loop.simulate.selector import SECONDS, Selector
from loop.simulate.tally import Tally
from loop.simulate.workload import Workload
from loop.simulate.writer import Ahead
from projections import schedule
from projections.view import view

if TYPE_CHECKING:
    from events.envelope import Event
    from projections.state import State

CONTROLLER = Process(pid=2, start=0, boot="00000000-0000-4000-8000-000000000000")
FIRST_PID = 1_000
START_SECONDS = 0.05  # from a grant to its worker
REFUSED_SECONDS = 1.5  # that an agent needs to find its quota used up


@dataclass(frozen=True, slots=True)
class Running:
    """A session with what will become of it: since `began` (microseconds), for `seconds`, to this exit and file."""

    grant: Grant
    began: int
    seconds: float
    exit: int
    told: outcome.OutcomeFile | None
    killed: bool


class World:
    """A simulated machine with its loop, which appends to `ahead`; `folded` hears every event."""

    def __init__(
        self,
        config: Config,
        workload: Workload,
        seed: int,
        selector: Selector,
        clock: ToldClock,
        state: State,
        ahead: Ahead,
        folded: Callable[[Event], None] | None = None,
    ) -> None:
        self.config, self.clock, self.state = config, clock, state
        self._ahead, self._entry = ahead, Entry(ahead, state, folded)
        self.tally = Tally(tuple(config.categories))
        start = clock.time
        self._schedule = facts(config)[0]
        self._selector = selector
        self._workload = workload
        self._models = {name: workload.of(name) for name in config.categories}
        self._sessions = {name: stream(seed, "session", name) for name in config.categories}
        self._supply = {
            name: supply(model.work, stream(seed, "work", name), start) for name, model in self._models.items()
        }
        pools = {config.pool_of(name) for name in config.backends}
        self._outages: dict[str, Spells | Always] = {
            pool: outages(workload.outages, stream(seed, "outage", pool), start) for pool in pools
        }
        self._crashes = outages(workload.crashes, stream(seed, "crash"), start)
        self._tasks: dict[str, list[str]] = {name: [] for name in config.categories}  # not done yet, oldest first
        self._named = dict.fromkeys(config.categories, 0)  # tasks so far
        self._pids = FIRST_PID
        self._order = 0  # of two things at one instant the one first planned comes first
        self._running: dict[str, Running] = {}
        self._gone: dict[str, Running] = {}  # by a crash, which nobody has noticed yet
        self._planned: list[tuple[int, int, str, Callable[[], None]]] = []
        self._plan_fire(start - 1)
        if self._crashes.until < 2**62:
            self._plan(self._crashes.until, "crash", self._crash)

    def begin(self) -> None:
        """The controller comes up."""
        process = CONTROLLER
        started = ControllerStarted(pid=process.pid, start=process.start, boot=process.boot, release=__version__)
        self._now().append(started, actor=ACTOR)

    @property
    def next(self) -> int:
        """When the next thing happens."""
        return self._planned[0][0]

    def step(self) -> None:
        """The next thing."""
        at, _, _, happen = heapq.heappop(self._planned)
        self._pass_time(at)
        happen()

    def finish(self, end: int) -> None:
        """Nothing more happens until `end`."""
        self._pass_time(end)

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan(self, at: int, what: str, happen: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._planned, (at, self._order, what, happen))

    def _pass_time(self, at: int) -> None:
        self.tally.live_for(len(self._running), max(0, at - self.clock.time))
        self.clock.reach(at)

    def _sleep(self, seconds: float) -> None:
        self._pass_time(self.clock.time + round(seconds * MICRO))

    def _now(self) -> Entry:
        """A transaction at the clock's time."""
        self._ahead.now = self.clock.time
        self._ahead.at = to_text(self.clock.time)
        return self._entry

    # ── fires and passes ──────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_fire(self, after: int) -> None:
        nominal = schedule.next_fire(self._schedule, after)
        late = schedule.jitter(self._schedule, "simulated", nominal)
        self._plan(nominal + late, "fire", lambda: self._fire(nominal))

    def _fire(self, nominal: int) -> None:
        self._plan_fire(nominal)
        if self._crashes.at(self.clock.time):
            return  # the machine is down; the next fire that is made counts those missed
        with_work = [name for name, spells in self._supply.items() if spells.at(self.clock.time)]
        selection = self._answer(with_work)
        gates = {
            name: GateAnswered(answer="work" if name in with_work else "no_work", seconds=SECONDS, text=None)
            for name in asked(self.config)
        }
        self._sleep(SECONDS)
        self._pass(Facts(Fire("timer", nominal=nominal), self.config, selection, gates, self._host()))

    def _answer(self, with_work: list[str]) -> Selection:
        if not self.config.selector.builtin:
            return self._selector(self.clock.time, with_work, self._task)
        rehearsal = Rehearsal(self.state, self.clock.time)
        configure(rehearsal, self.config)
        files = self._files_of(with_work)
        return ask_selector(self.config, view(rehearsal.state, rehearsal.now), {}, dry_run=False, files=files)

    def _files_of(self, with_work: list[str]) -> Files:
        """The task files that say what the modelled selector knows: one ready task where there is work, else one that
        waits."""
        ready = [Task(self._task(name), "backlog", tags=(name,)) for name in with_work]
        dry = (name for name in self.config.categories if name not in with_work)
        return Files((*ready, *(Task(f"{name}-waits", "backlog", tags=(name,), waiting=True) for name in dry)))

    def _task(self, category: str) -> str:
        """The oldest task of the category that is not done and that no session works on."""
        taken = {running.grant.choice.task for running in self._running.values()}
        found = next((task for task in self._tasks[category] if task not in taken), None)
        if found is None:
            self._named[category] += 1
            found = f"{category}-{self._named[category]}"
            self._tasks[category].append(found)
        return found

    def _host(self) -> HostMeasured | None:
        """A machine that is within every bound; what agents do to a real one is not modelled."""
        host = self.config.host
        if host.max_load_per_cpu is None and host.min_memory_available is None and host.min_disk_free is None:
            return None
        return HostMeasured(
            load_per_cpu=None if host.max_load_per_cpu is None else 0.0,
            memory_available=None if host.min_memory_available is None else 1.0,
            disk_free=host.min_disk_free,
            text=None,
        )

    def _pass(self, observed: Facts) -> None:
        """The transaction of a pass, then what a controller does after it."""
        begun = self.clock.time
        decided = decide_pass(self._now(), observed, self.clock, CONTROLLER)
        for index, grant in enumerate(decided.grants):
            self._sleep(START_SECONDS + (self.config.loop.stagger if index else 0))
            self._start(grant)
        seconds = round((self.clock.time - begun) / MICRO, 3)
        finished = TickFinished(started=len(decided.grants), failed=0, seconds=seconds)
        self._now().append(finished, actor=ACTOR, tick=decided.tick, cause=decided.position)

    # ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, grant: Grant) -> None:
        running = self._drawn(grant)
        self._running[grant.session] = running
        ingest.progress(self._now(), self._files(running, None), self.state.sessions["live"][grant.session])
        end = running.began + round(running.seconds * MICRO)
        self._plan(end, "end", lambda: self._end(running))

    def _drawn(self, grant: Grant) -> Running:
        """What will become of a session. However it goes, its category's stream gives the same numbers for it."""
        category, now = grant.choice.category, self.clock.time
        model, random = self._models[category], self._sessions[category]
        seconds = model.seconds.draw(random)
        chance = random.random()
        grade = round(model.grades.draw(random), 3)
        has_work = self._supply[category].at(now)
        came_to = (model.outcomes if has_work else self._workload.session.without_work).at(chance)
        self.tally.started(category)
        out = self._outages[self.config.pool_of(grant.choice.backend)]
        if out.at(now):
            told = outcome.OutcomeFile(outcome="limited", resets_at=to_text(out.until))
            return Running(grant, now, REFUSED_SECONDS, 0, told, killed=False)
        limit = self.config.session_of(category).timeout
        if seconds > limit:
            return Running(grant, now, limit, 0, None, killed=True)
        if came_to in ("failed", "unproven"):
            return Running(grant, now, seconds, int(came_to == "failed"), None, killed=False)
        claimed = cast("outcome.Claimed", came_to)
        told = outcome.OutcomeFile(outcome=claimed, grade=grade if claimed == "productive" else None)
        return Running(grant, now, seconds, 0, told, killed=False)

    def _end(self, running: Running) -> None:
        session = running.grant.session
        if self._running.pop(session, None) is None:
            return  # a crash took it
        files = self._files(running, running.exit)
        assert files.exit is not None
        verdict = outcome.judge(files.exit, running.told, evidence=files.spec["evidence"], exit_codes={}, commits=0)
        span = Interval(boot=CONTROLLER.boot, from_ns=running.began * 1_000, to_ns=self.clock.time * 1_000)
        held = dict.fromkeys(running.grant.choice.keys, span)
        ends = ingest.judged(files, files.exit, verdict, held)
        ingest.append_end(self._now(), files, ends, how="clean")
        choice = running.grant.choice
        self.tally.ended(choice.category, verdict.outcome)
        if verdict.outcome == "productive" and choice.task in self._tasks[choice.category]:
            self._tasks[choice.category].remove(choice.task)
        self._after(session)

    def _after(self, session: str) -> None:
        """The pass after a session's end."""
        self._pass(Facts(Fire("session_end", ended=session), self.config, host=self._host()))

    def _crash(self) -> None:
        """The machine goes down with all its sessions; nobody notices before it is up again."""
        self._crashes.at(self.clock.time)
        self._gone, self._running = self._running, {}
        self._plan(self._crashes.until, "boot", self._boot)

    def _boot(self) -> None:
        """It is up: the controller finds its sessions gone, and each end has its pass, as with `loop run`."""
        self._crashes.at(self.clock.time)
        self._plan(self._crashes.until, "crash", self._crash)
        self.begin()
        gone, self._gone = self._gone, {}
        for running in gone.values():
            lost = SessionLost(why="reboot")
            ingest.append_end(self._now(), self._files(running, None), [lost], how="lost")
            self.tally.ended(running.grant.choice.category, "lost")
        for session in gone:
            self._after(session)

    def _files(self, running: Running, exit: int | None) -> ingest.Files:
        """The records of a run directory as its shim would have written them."""
        grant = running.grant
        choice, at, boottime = grant.choice, to_text(self.clock.time), self.clock.time * 1_000
        category = self.config.categories[choice.category]
        spec = {
            "session": grant.session, "token": grant.token, "tick": grant.tick, "category": choice.category,
            "keys": list(choice.keys), "pool": self.config.pool_of(choice.backend), "evidence": category.evidence,
        }  # fmt: skip
        if exit is None:
            self._pids += 2
            started: rundir.Started = {
                "schema": "loop.started/1", "pid": self._pids, "start": 0, "shim_pid": self._pids - 1,
                "shim_start": 0, "boot": CONTROLLER.boot, "boottime_ns": boottime, "at": at,
            }  # fmt: skip
            return ingest.Files("", cast("rundir.Spec", spec), None, started, [], None, None)
        ended: rundir.ExitFile = {
            "schema": "loop.exit/1", "stage": "worker", "code": None if running.killed else exit,
            "signal": 15 if running.killed else None, "reason": "timeout" if running.killed else None,
            "seconds": running.seconds, "error": None, "cpu_seconds": 0.0, "max_rss_kb": 0, "out_bytes": 0,
            "err_bytes": 0, "truncated": False, "boottime_ns": boottime, "at": at,
        }  # fmt: skip
        end: rundir.EndFile = {"schema": "loop.end/1", "held": {}, "stragglers": 0, "at": at}
        return ingest.Files("", cast("rundir.Spec", spec), None, None, [], ended, end)
