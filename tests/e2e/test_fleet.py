"""A fleet of 18 backends in 6 pools over 40 fires, of which providers refuse three pools midway.

The log, the folds, the decider and the passes are the real ones, on a clock that the test moves; sessions and providers
are what it says they are.
"""

from __future__ import annotations

import heapq
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from events.catalog import TickFinished
from events.envelope import content, to_micros, to_text
from events.store import EventLog, Filter
from loop.config import Config
from loop.config_file import parse
from loop.journal import Journal
from loop.observe import interpret
from loop.passes import Facts, Fire, Grant, decide_pass, this_process
from loop.sessions import ingest, outcome, rundir
from tests.conftest import FakeClock

ROOT = Path(__file__).resolve().parents[2]
MINUTE = 60_000_000  # microseconds
FIRES, REFUSED_AT = 40, 14
POOLS = {"solo": 1, "spare": 1, "large": 4, "medium": 4, "small": 4, "tiny": 4}
TARGETS = {"code": 0.25, "triage": 0.2, "research": 0.2, "news": 0.15, "content": 0.1, "docs": 0.1}
COST = 0.5  # dollars of a session
BUDGETS = {"pool:large": 20.0, "category:code": 15.0}  # dollars a day
RUNS = {"pool:medium": 30, "backend:small-1": 6}  # runs a day
SECONDS = {"limited": 5, "productive": 840}

CONFIG = f"""
[loop]
slots = 5
every = "30m"
max_starts_per_hour = 1000
[selector]
builtin = true
[respawn]
limit = 1
min_grade = 0.0
{"".join(f'''
[categories.{name}]
target = {target}
cooldown = "0s"
''' for name, target in TARGETS.items())}
{"".join(f'''
[backends.{pool}-{number}]
pool = "{pool}"
command = ["agent"]
''' for pool, size in POOLS.items() for number in range(1, size + 1))}
[pools.large]
max_cost_per_day = {BUDGETS["pool:large"]}
[pools.medium]
max_runs_per_day = {RUNS["pool:medium"]}
"""


def configured(directory: Path) -> Config:
    """The config, written where the commands find it."""
    text = CONFIG.replace("[categories.code]\n", f"[categories.code]\nmax_cost_per_day = {BUDGETS['category:code']}\n")
    text = text.replace("[backends.small-1]\n", f"[backends.small-1]\nmax_runs_per_day = {RUNS['backend:small-1']}\n")
    path = directory / "loop.toml"
    path.write_text(text)
    return parse(text, path)


class Fleet:
    """40 fires and all that comes of them. `refusals` says which pool refuses at which fire, and for how long."""

    def __init__(self, directory: Path, refusals: dict[str, tuple[int, int]]) -> None:
        self.directory = directory
        self.clock = FakeClock(1_790_000_000_000_000 // (1440 * MINUTE) * (1440 * MINUTE) + 2 * 60 * MINUTE)
        self.config = configured(directory)
        self.journal = Journal(EventLog.open(directory / ".loop" / "loop.db", clock=self.clock, release="test"))
        begin = self.clock.time
        self.closed = {
            pool: (begin + 30 * MINUTE * fire, begin + 30 * MINUTE * fire + minutes * MINUTE)
            for pool, (fire, minutes) in refusals.items()
        }
        self._order = 0
        self._ahead: list[tuple[int, int, Callable[[], None]]] = []
        for fire in range(FIRES):
            self._plan(begin + 30 * MINUTE * fire, self._fire)
        while self._ahead:
            at, _, happen = heapq.heappop(self._ahead)
            self.clock.time = max(at, self.clock.time)
            happen()

    @property
    def log(self) -> EventLog:
        return self.journal.log

    def events(self, *types: str) -> list[Any]:
        return self.log.select(Filter(types=types))

    def _plan(self, at: int, happen: Callable[[], None]) -> None:
        self._order += 1  # of two things at one instant the one planned first comes first
        heapq.heappush(self._ahead, (at, self._order, happen))

    def _fire(self) -> None:
        names = list(TARGETS)
        turn = (self.clock.time // (30 * MINUTE)) % len(names)
        ranked = [*names[turn:], *names[:turn]]
        answer = {"tier": 3, "all_scores": {name: len(ranked) - rank for rank, name in enumerate(ranked)}}
        selection = interpret(json.dumps(answer).encode(), self.config, source="payload")
        self._pass(Facts(Fire("timer", nominal=self.clock.time), self.config, selection))

    def _pass(self, facts: Facts) -> None:
        with self.journal.transaction() as entry:
            decided = decide_pass(entry, facts, self.clock, this_process())
            finished = TickFinished(started=len(decided.grants), failed=0, seconds=0.0)
            entry.append(finished, actor="controller", tick=decided.tick, cause=decided.position)
        for grant in decided.grants:
            self._start(grant)

    def _start(self, grant: Grant) -> None:
        with self.journal.transaction() as entry:
            live = entry.state.sessions["live"][grant.session]
            ingest.progress(entry, self._files(grant, None), live)
        came_to = self._outcome(grant)
        seconds = SECONDS[came_to]
        self._plan(self.clock.time + seconds * MINUTE // 60, lambda: self._end(grant, came_to, seconds))

    def _outcome(self, grant: Grant) -> str:
        since, until = self.closed.get(self.config.pool_of(grant.choice.backend), (0, 0))
        if since <= self.clock.time < until:
            return "limited"
        return "productive"

    def _end(self, grant: Grant, came_to: str, seconds: int) -> None:
        pool = self.config.pool_of(grant.choice.backend)
        until = to_text(self.closed[pool][1]) if came_to == "limited" else None
        usage: dict[str, float | int | None] = {"cost_usd": 0.0 if came_to == "limited" else COST}
        told = outcome.OutcomeFile(outcome=cast("Any", came_to), grade=0.7, resets_at=until, usage=usage)
        files = self._files(grant, seconds)
        assert files.exit is not None
        verdict = outcome.judge(files.exit, told, evidence="outcome", exit_codes={}, commits=None)
        with self.journal.transaction() as entry:
            ingest.append_end(entry, files, ingest.judged(files, files.exit, verdict, {}), how="clean")
        self._pass(Facts(Fire("session_end", ended=grant.session), self.config))

    def _files(self, grant: Grant, seconds: int | None) -> ingest.Files:
        """The records of a run directory as its shim would have written them."""
        choice, at = grant.choice, to_text(self.clock.time)
        spec: Any = {
            "session": grant.session, "token": grant.token, "tick": grant.tick, "category": choice.category,
            "keys": list(choice.keys), "pool": self.config.pool_of(choice.backend),
        }  # fmt: skip
        started: Any = {"pid": 9, "start": 0, "shim_pid": 8, "shim_start": 0, "boot": "b", "at": at}
        exit: Any = {
            "stage": "worker", "code": 0, "signal": None, "reason": None, "seconds": float(seconds or 0),
            "error": None, "cpu_seconds": 0.0, "max_rss_kb": 0, "out_bytes": 0, "err_bytes": 0, "at": at,
        }  # fmt: skip
        end: rundir.EndFile = {"schema": "loop.end/1", "held": {}, "stragglers": 0, "at": at}
        if seconds is None:
            return ingest.Files("", spec, None, started, [], None, None)
        return ingest.Files("", spec, None, None, [], exit, end)

    def loop(self, *words: str) -> Any:
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), "-C", str(self.directory), *words, "--json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    refusals = {"solo": (REFUSED_AT, 300), "spare": (REFUSED_AT, 240), "tiny": (28, 100)}
    return Fleet(tmp_path_factory.mktemp("fleet"), refusals)


def of_pool(fleet: Fleet, type: str, pool: str) -> list[Any]:
    return [event for event in fleet.events(type) if content(event)["pool"] == pool]


@pytest.mark.parametrize("pool", ["solo", "spare", "tiny"])
def test_nothing_starts_in_a_pool_that_is_closed_and_one_probe_opens_it_for_all(fleet: Fleet, pool: str) -> None:
    limits, probes = of_pool(fleet, "backend.limited", pool), of_pool(fleet, "backend.probed", pool)
    restored = of_pool(fleet, "backend.restored", pool)
    requests = of_pool(fleet, "session.requested", pool)
    assert len(limits) >= 1
    until = to_text(fleet.closed[pool][1])
    assert {content(limit)["until"] for limit in limits} == {until}
    [probe], [opened] = probes, restored
    shut = [request for request in requests if limits[0].position < request.position < opened.position]
    assert [request.session for request in shut] == [probe.session], "one session, and no stampede"
    assert shut[0].at >= until
    assert [request for request in requests if request.position > opened.position], "and then all of it serves again"


def test_sixteen_of_eighteen_are_shown_while_two_pools_are_closed(fleet: Fleet) -> None:
    closed = max(of_pool(fleet, "backend.limited", pool)[-1].position for pool in ("solo", "spare"))
    reset = to_text(min(fleet.closed[pool][1] for pool in ("solo", "spare")))
    places = range(closed, max(event.position for event in fleet.log.select(Filter(until=reset)) if event.at < reset))
    assert len(places) > 50
    for position in (places[0], places[len(places) // 2], places[-1]):
        shown = fleet.loop("status", "--at", str(position))["backends"]
        assert (shown["available"], shown["total"]) == (16, 18)
        shut = {item["name"]: item["until"] for item in shown["items"] if item["state"] != "available"}
        assert shut == {f"{pool}-1": to_text(fleet.closed[pool][1]) for pool in ("solo", "spare")}


def test_a_refusal_closes_all_backends_of_its_pool_at_once(fleet: Fleet) -> None:
    first = of_pool(fleet, "backend.limited", "tiny")[0]
    shown = fleet.loop("backends", "--at", str(first.position))
    assert {item["name"] for item in shown["items"] if item["state"] == "limited"} >= {
        f"tiny-{number}" for number in range(1, 5)
    }


def test_no_category_is_starved_by_it(fleet: Fleet) -> None:
    limits, ends = fleet.events("backend.limited"), fleet.events("backend.restored")
    during = [
        event
        for event in fleet.events("session.started")
        if limits[0].position < event.position < ends[-1].position
    ]
    assert {event.category for event in during} == set(TARGETS)
    for category in set(TARGETS) - {"code"}:  # which has spent its budget at last
        times = [to_micros(event.at) for event in during if event.category == category]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert max(gaps) <= 60 * MINUTE, f"{category} waited for more than two fires"
    refused = {event.category for event in fleet.events("session.ended") if content(event)["outcome"] == "limited"}
    assert refused, "some category met a refusal"
    for event in fleet.events("fanout.decided"):
        for candidate in content(event)["candidates"]:
            assert candidate["verdict"] not in ("no_backend", "cooling_down"), "quota counted against a category"


def test_budgets_are_never_exceeded_and_two_were_reached(fleet: Fleet) -> None:
    """All of it lies within one rolling day, so that the sums over the log are those of the budgets."""
    first, last = fleet.events("session.requested")[0], fleet.events("session.ended")[-1]
    assert to_micros(last.at) - to_micros(first.at) < 24 * 60 * MINUTE
    runs, costs = Counter[str](), Counter[str]()
    scopes: dict[str, list[str]] = {}
    reached = set()
    for event in fleet.events("session.requested", "session.ended"):
        data, session = content(event), event.session or ""
        if event.type == "session.requested":
            pool, backend, category = f"pool:{data['pool']}", f"backend:{data['backend']}", f"category:{event.category}"
            scopes[session] = [pool, backend, category]
            runs.update(scopes[session])
        else:
            costs.update(dict.fromkeys(scopes[session], round(data["usage"]["cost_usd"] * 100)))
    for scope, limit in BUDGETS.items():
        assert costs[scope] <= limit * 100, scope
        reached |= {scope} if costs[scope] > limit * 100 - COST * 100 else set()
    for scope, limit in RUNS.items():
        assert runs[scope] <= limit, scope
        reached |= {scope} if runs[scope] == limit else set()
    assert len(reached) >= 2, (reached, costs, runs)
    lines = {line["scope"]: line for line in fleet.loop("usage", "--by", "pool")["budgets"]}
    assert lines["pool:large"]["spent"] <= BUDGETS["pool:large"]


def test_every_decision_is_made_again_alike(fleet: Fleet) -> None:
    found = fleet.loop("replay")
    assert found["decisions"] == found["same"] > FIRES
    assert found["first_divergence"] is None
