"""A log as months of work would leave it, made by the real passes and the real ingest under a clock that is told.

Ten categories, 18 backends in six pools, six slots. Every half hour a selector's payload is read, a decision with ten
candidates is made and its sessions start; each ends after 5 to 50 minutes with a record of one of the usual kinds, and
has its session-end pass, respawns included. Now and then the payload is damaged, or an operator pauses the loop. Only
the processes are missing: their files are made up here.
"""

from __future__ import annotations

import heapq
import json
import random
import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from events import place as place_of
from events.catalog import Interval, LoopPaused, LoopResumed, TickFinished
from events.envelope import to_text
from events.store import EventLog
from loop import home
from loop.config import Config
from loop.config_file import load
from loop.home import Home
from loop.journal import Journal
from loop.observe import Selection, interpret
from loop.passes import ACTOR, Facts, Fire, Grant, append_skip, decide_pass
from loop.sessions import ingest, rundir
from loop.simulate.clock import ToldClock
from projections.view import restraints
from tests.bench.measure import connect, progress

MINUTE = 60_000_000  # microseconds
PERIOD = 30 * MINUTE
EVENTS_A_FIRE = 54  # about; only so that the log ends near the present
BOOT = "9f1c2d3e-4a5b-4c6d-8e7f-0123456789ab"
CATEGORIES = {
    "code": 0.25, "triage": 0.15, "infrastructure": 0.1, "research": 0.1, "content": 0.1, "cleanup": 0.05,
    "monitoring": 0.05, "novelty": 0.05, "strategic": 0.1, "social": 0.05,
}  # fmt: skip
TASKS = ("mend the parser of quoted words", "answer the open review", "read the paper on leases", "draft the notes")
OUTCOMES: tuple[tuple[int, int, dict[str, Any] | None], ...] = (  # weight, exit code, outcome file
    (55, 0, {"outcome": "productive", "grade": 0.8, "summary": "Two commits, tests pass.", "usage": {"tokens": 8134}}),
    (12, 0, {"outcome": "productive", "grade": 0.4, "summary": "A draft.", "usage": {"tokens": 20411}}),
    (8, 0, {"outcome": "noop", "summary": "Everything was done already."}),
    (8, 0, None),
    (6, 0, {"outcome": "blocked", "summary": "Waits for an answer."}),
    (8, 1, None),
    (3, 0, {"outcome": "limited", "summary": "The quota is used up."}),
)  # fmt: skip


@cache
def store(directory: Path, events: int) -> Home:
    """A project in `directory` whose log has at least so many events, with the snapshots that the passes left."""
    place = directory / f"history-{events}"
    place.mkdir()
    _write_config(place)
    found = home.at(place / home.CONFIG_NAME)
    now = time.time_ns() // 1_000
    clock = ToldClock((now // PERIOD - events // EVENTS_A_FIRE) * PERIOD)
    log = EventLog.in_memory(clock=clock)  # a hundred thousand durable commits would show nothing here
    journal = Journal(log)
    history = History(place, journal, load(found.config), clock)
    while journal.state.position < events:
        history.half_hour()
        if history.fires % 250 == 0:
            progress(f"writing a log of {events} events: {journal.state.position}")
    place_of.create_file(found.db)
    with closing(connect(found.db)) as file:
        log._connection.backup(file)
    log.close()
    EventLog.open(found.db).close()  # which makes it a store like any other: its journal, its mark
    return found


@dataclass
class History:
    """The project as it goes on, half hour by half hour."""

    place: Path
    journal: Journal
    config: Config
    clock: ToldClock
    random: random.Random = field(default_factory=lambda: random.Random(1))
    fires: int = 0
    running: list[tuple[int, int, Grant]] = field(default_factory=list)  # a heap: its end, its start, its grant

    def half_hour(self) -> None:
        """The sessions that end until the next fire, and the fire."""
        nominal = (self.clock.time // PERIOD + 1) * PERIOD
        while self.running and self.running[0][0] < nominal:
            at, began, grant = heapq.heappop(self.running)
            self.clock.time = max(self.clock.time, at)
            self._end(grant, began)
        self.clock.time = max(self.clock.time, nominal + 150_000)
        self.fires += 1
        fire = Fire("timer", nominal=nominal)
        self._operator()
        with self.journal.transaction() as entry:
            if restraint := restraints(entry.state, entry.now).get("all"):
                append_skip(entry, fire, restraint.mode)
                return
        self._pass(Facts(fire, self.config, self._selection()))

    def _operator(self) -> None:
        if self.fires % 200 in (0, 2):
            model = LoopPaused if self.fires % 200 == 0 else LoopResumed
            with self.journal.transaction() as entry:
                entry.append(model(reason="the release goes out"), actor="operator")

    def _selection(self) -> Selection:
        names = self.random.sample(sorted(CATEGORIES), 9)
        payload: dict[str, Any] = {
            "tier": 1,
            "selected": {"id": f"issue-{self.fires}", "category": names[0], "label": self.random.choice(TASKS)},
            "alternatives": [
                {"id": f"a{rank}-{self.fires}", "category": name, "label": self.random.choice(TASKS)}
                for rank, name in enumerate(names[1:4])
            ],
            "all_scores": {name: round(self.random.uniform(-1, 5), 3) for name in names},
            "diversity_warnings": [f"{names[0]} is 40 % of the last 20"],
        }
        raw = json.dumps(payload).encode()
        raw = raw[:-20] if self.fires % 50 == 0 else raw
        return interpret(raw, self.config, source="command", exit_code=0, seconds=round(self.random.uniform(0.2, 2), 3))

    def _pass(self, facts: Facts) -> None:
        """The transaction of a pass, then what a controller does after it."""
        with self.journal.transaction() as entry:
            decided = decide_pass(entry, facts, self.clock)
        for grant in decided.grants:
            self.clock.time += 40_000
            self._start(grant)
        with self.journal.transaction() as entry:
            finished = TickFinished(started=len(decided.grants), failed=0, seconds=0.4)
            entry.append(finished, actor=ACTOR, tick=decided.tick, cause=decided.position)
        self.journal.save_snapshot()

    def _start(self, grant: Grant) -> None:
        files = self._files(grant, 0, None)
        with self.journal.transaction() as entry:
            ingest.progress(entry, files, entry.state.sessions["live"][grant.session])
        lasts = round(self.random.uniform(5, 50) * MINUTE)
        heapq.heappush(self.running, (self.clock.time + lasts, self.clock.time, grant))

    def _end(self, grant: Grant, began: int) -> None:
        _, code, outcome = self.random.choices(OUTCOMES, [weight for weight, _, _ in OUTCOMES])[0]
        if outcome is not None and outcome["outcome"] == "limited":
            outcome = {**outcome, "resets_at": to_text(self.clock.time + 90 * MINUTE)}
        files = self._files(grant, code, outcome)
        assert files.exit is not None
        span = Interval(boot=BOOT, from_ns=began * 1_000, to_ns=self.clock.time * 1_000)
        held = dict.fromkeys(grant.choice.keys, span)
        ends = ingest.end_events(files, files.exit, held)
        with self.journal.transaction() as entry:
            ingest.append_end(entry, files, ends, how="clean")
        self._pass(Facts(Fire("session_end", ended=grant.session), self.config))

    def _files(self, grant: Grant, code: int, outcome: dict[str, Any] | None) -> ingest.Files:
        """The files of a run directory as its shim would have written them; only the outcome file is a real one."""
        path = self.place / "outcome.json"
        path.unlink(missing_ok=True)
        if outcome is not None:
            path.write_text(json.dumps(outcome))
        choice, at, boottime = grant.choice, to_text(self.clock.time), self.clock.time * 1_000
        spec = {
            "session": grant.session, "token": grant.token, "tick": grant.tick, "category": choice.category,
            "keys": list(choice.keys), "pool": self.config.pool_of(choice.backend), "cwd": grant.cwd,
            "evidence": "outcome", "exit_codes": {}, "loop_env": {"LOOP_OUTCOME": str(path)},
        }  # fmt: skip
        pid = self.random.randint(2_000, 4_000_000)
        started: rundir.Started = {
            "schema": "loop.started/1", "pid": pid, "start": boottime // 10_000_000, "shim_pid": pid - 1,
            "shim_start": boottime // 10_000_000, "boot": BOOT, "boottime_ns": boottime, "at": at,
        }  # fmt: skip
        exit: rundir.ExitFile = {
            "schema": "loop.exit/1", "stage": "worker", "code": code, "signal": None, "reason": None,
            "seconds": round(self.random.uniform(300, 3_000), 3), "error": None,
            "cpu_seconds": round(self.random.uniform(1, 400), 2), "max_rss_kb": self.random.randint(50_000, 900_000),
            "out_bytes": self.random.randint(0, 400_000), "err_bytes": 0, "truncated": False,
            "boottime_ns": boottime, "at": at,
        }  # fmt: skip
        end: rundir.EndFile = {"schema": "loop.end/1", "held": {}, "stragglers": 0, "at": at}
        return ingest.Files("", cast("rundir.Spec", spec), None, started, [], exit, end)


def _write_config(place: Path) -> None:
    lines = [
        "[loop]", "slots = 6", 'every = "30m"', "max_starts_per_hour = 24",
        "[selector]", 'command = ["./selector", "--json"]', 'max_age = "25m"',
        "[allocation]", 'window = "48h"', "max_ratio = 3.0",
    ]  # fmt: skip
    for name, target in CATEGORIES.items():
        lines += [f"[categories.{name}]", f"target = {target}", f'prompt = "work on {name}: {{task}}"']
        lines += ['locks = ["repo-api"]'] if name in ("code", "cleanup") else []
    for number in range(18):
        lines += [f"[backends.agent-{number}]", f'pool = "pool-{number % 6}"']
        lines += [f'command = ["agent", "--model", "m{number % 3}", "-p", "{{prompt}}"]', "concurrency = 2"]
    (place / home.CONFIG_NAME).write_text("\n".join(lines) + "\n")
