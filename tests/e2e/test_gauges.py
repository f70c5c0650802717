"""Faults planted in the loop itself turn the gauges red: what the selector asked for was not done; status says so."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from e2e_project import ROOT, Project

from events.catalog import ViolationDetected
from events.store import EventLog

TIER_1 = {"tier": 1, "selected": {"id": "t1", "category": "research"}, "alternatives": [{"category": "news"}]}

# Each fault is a few lines of a loop that has it; what runs then is `loop tick`.
PREFIX = """
import loop.decider as decider
def considered(view):
    names = [name for name, category in view.categories.items() if category.parallel is not False]
    return [decider._Considered(name, rank, {rule!r}) for rank, name in enumerate(names[:2], start=1)]
decider._considered = considered
"""
FAULTS = {
    "the allowlist's first entries": PREFIX.format(rule="allowlist"),
    "the allowlist's first entries under the name of a ranking": PREFIX.format(rule="all_scores"),
    "decides, and requests nothing": """
from dataclasses import replace
import loop.passes as passes
real = passes.decide_pass
def decide_pass(entry, facts, clock):
    class Deaf:
        def __getattr__(self, name): return getattr(entry, name)
        def append(self, payload, **about):
            if payload.type in ("session.requested", "lock.acquired"):
                return type("Nothing", (), {"position": 0})
            return entry.append(payload, **about)
    return replace(real(Deaf(), facts, clock), grants=())
import loop.controller
loop.controller.decide_pass = decide_pass
""",
    "requests, and launches nothing": """
import loop.controller as controller
controller.Loop._start = lambda self, decided, config, observed: controller.Result(decided, (), observed=observed)
""",
}
TICK = "import sys; sys.path.insert(0, {root!r})\n{fault}\nsys.argv = ['loop', 'tick']\nimport cli\ncli.app()\n"


def tick(project: Project, fault: str = "") -> None:
    script = TICK.format(root=str(ROOT), fault=fault)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=project.directory, env={**os.environ, "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def fleet(project: Project) -> Project:
    categories = ("code", "triage", "research", "news")
    # Passes at a session's end have no fault, and must not help.
    selector = project.select(TIER_1) + '\nmax_age = "0s"\nfallback_slots = 2'
    project.configure(*categories, slots=2, selector=selector, extra="[respawn]\nlimit = 0")
    return project


def problems(project: Project) -> set[str]:
    return {problem["code"] for problem in project.status()["problems"]}


def intent(project: Project) -> bool | None:
    """The rung of the readiness ladder."""
    return next(rung["ok"] for rung in project.json("report")["ladder"] if rung["name"] == "intent")  # type: ignore[no-any-return]


def test_a_loop_without_a_fault_is_green(fleet: Project) -> None:
    tick(fleet)
    fleet.settle()
    selection = fleet.status()["selection"]
    assert (selection["granted"], selection["followed"]) == ({"count": 2, "of": 2}, {"count": 2, "of": 2})
    assert (selection["losses"], selection["ignored"], problems(fleet)) == ({}, 0, set())
    assert intent(fleet) is None, "two starts show nothing"
    fleet.loop("status", "--check")


@pytest.mark.parametrize("fault", list(FAULTS)[:2])
def test_an_allowlist_prefix_on_a_good_answer_is_red_whatever_it_calls_itself(fleet: Project, fault: str) -> None:
    tick(fleet, FAULTS[fault])
    fleet.settle()
    assert {line[1] for line in fleet.starts()} == {"code", "triage"}, "the fault is planted"
    selection = fleet.status()["selection"]
    assert (selection["granted"], selection["followed"]) == ({"count": 0, "of": 2}, {"count": 0, "of": 2})
    assert selection["losses"] == {"not_considered": 2}
    assert (selection["intent_lost"], selection["ignored"]) == (2, 4)
    assert ("intent_ignored" in problems(fleet), intent(fleet)) == (True, False)
    assert "not followed" in fleet.loop("status", "--check", code=4).stdout


def test_a_loop_that_decides_and_requests_nothing_is_red_at_once(fleet: Project) -> None:
    tick(fleet, FAULTS["decides, and requests nothing"])
    assert fleet.starts() == []
    selection = fleet.status()["selection"]
    assert (selection["granted"], selection["losses"]) == ({"count": 0, "of": 2}, {"not_started": 2})
    assert ("not_started" in problems(fleet), intent(fleet)) == (True, False)
    fleet.loop("status", "--check", code=4)


def test_a_loop_that_requests_and_launches_nothing_is_red_with_the_next_fire(fleet: Project) -> None:
    for _ in range(2):
        tick(fleet, FAULTS["requests, and launches nothing"])
    assert fleet.starts() == []
    selection = fleet.status()["selection"]
    assert selection["granted"] == {"count": 0, "of": 4}
    assert selection["losses"] == {"starting": 2, "voided": 2}
    assert ("not_started" in problems(fleet), intent(fleet)) == (True, False)
    fleet.loop("status", "--check", code=4)
    tick(fleet)
    fleet.settle()
    assert "not_started" not in problems(fleet), "the last fire acted on its choices"


def test_each_loss_has_its_reason(fleet: Project) -> None:
    """One slot's wish is locked, one is outside the allowlist, and a rejected fire loses all of its slots."""
    fleet.edit("[categories.news]", "[categories.news]\nparallel = false")
    tick(fleet)
    assert fleet.status()["selection"]["losses"] == {"not_allowed": 1}
    fleet.settle()
    (fleet.directory / "answer.json").write_text("no json")
    fleet.loop("tick", code=3)
    fleet.settle()
    selection = fleet.status()["selection"]
    assert selection["losses"] == {"rejected": 2, "not_allowed": 1}
    assert (selection["granted"], selection["ignored"]) == ({"count": 1, "of": 4}, 0)
    assert selection["intent_lost"] == 2
    assert "2 rejected, 1 not allowed" in fleet.loop("status").stdout


def test_raising_slots_under_a_red_rung_warns_and_is_recorded_and_goes_through(fleet: Project) -> None:
    """The violation is planted; a rung that nobody can judge yet is no reason to warn."""
    tick(fleet)
    fleet.settle()
    fleet.edit("slots = 2", "slots = 3")
    assert "is red" not in fleet.loop("plan").stderr
    tick(fleet)
    fleet.settle()
    with EventLog.open(fleet.db).transaction() as transaction:
        transaction.append(ViolationDetected(kind="test", key="code", token=1), actor="test")
    fleet.edit("slots = 3", "slots = 4")
    assert "loop.slots rises to 4 while lock safety is red: 1 of " in " ".join(fleet.loop("plan").stderr.split())
    assert any("lock safety is red" in warning for warning in fleet.json("plan")["selection"]["warnings"])
    tick(fleet)
    assert fleet.status()["slots"]["capacity"] == 4
    configured = [event.data for event in EventLog.read(fleet.db).events_of(["loop.configured"])]
    assert [(data["slots"], data["red_rungs"]) for data in configured] == [(2, []), (3, []), (4, ["lock_safety"])]
