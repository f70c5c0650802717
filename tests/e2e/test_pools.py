"""Pools, breakers and budgets with real sessions: who closes them, who tries them, and what is left of the money."""

from __future__ import annotations

import json
from typing import Any

import pytest
from e2e_project import PRODUCTIVE, Project

POOL = '[backends.a]\npool = "max"\n[backends.b]\npool = "max"'
LIMITED = '{"outcome": "limited"}'


def say(project: Project, before: str, after: str) -> None:
    """Let the agents end otherwise from now on."""
    project.edit(f"SAY = {json.dumps(before)}", f"SAY = {json.dumps(after)}")


def verdicts(project: Project) -> dict[str, str]:
    return {each["category"]: each["verdict"] for each in project.json("plan")["decision"]["candidates"]}


def states(project: Project) -> dict[str, str]:
    return {each["name"]: each["state"] for each in project.json("backends")["items"]}


def run_out(project: Project) -> None:
    """One session finds the quota of the pool used up."""
    project.configure("code", "docs", "research", extra=POOL, env={"SAY": LIMITED})
    project.json("start", "code", "--backend", "a")
    project.settle()


class TestLimit:
    def test_one_refusal_closes_the_account_and_its_first_good_end_opens_it_for_all(self, project: Project) -> None:
        run_out(project)
        assert states(project) == {"a": "unknown", "b": "unknown"}
        assert set(verdicts(project).values()) == {"no_backend"}
        waiting = project.spawn("backends", "--wait", "max")
        say(project, LIMITED, PRODUCTIVE)
        project.edit('SAY =', 'NAP = "3"\nSAY =')
        asked = project.json("backends", "probe", "b", "--reason", "they said it is up")
        assert (asked["pool"], asked["probe_due"]) == ("max", True)
        assert waiting.wait(timeout=30) == 0
        assert len(project.json("tick")["started"]) == 1, "a probe, and no stampede"
        assert "already" in project.loop("backends", "probe", "a", code=6).stderr
        [pool] = project.json("backends")["pools"]
        assert (pool["state"], pool["because"], pool["backends"]) == ("limited", "probing", ["a", "b"])
        project.settle()
        assert states(project) == {"a": "available", "b": "available"}
        types = [event["type"] for event in project.events("backend.*")]
        assert types == ["backend.limited", "backend.probed", "backend.restored"]
        assert len(project.events("session.requested")) > 2, "the pass after its end has served the others"
        assert project.json("verify")["ok"]
        project.assert_sound()

    def test_a_probe_that_is_refused_closes_it_again(self, project: Project) -> None:
        run_out(project)
        project.loop("backends", "probe", "a")
        project.json("tick")
        project.settle()
        assert states(project) == {"a": "unknown", "b": "unknown"}
        assert [event["type"] for event in project.events("backend.*")][1:] == ["backend.probed", "backend.limited"]
        assert len(project.events("session.requested")) == 2

    def test_what_is_open_needs_no_probe_and_what_nobody_has_cannot_have_one(self, project: Project) -> None:
        project.configure("code", extra=POOL)
        project.json("tick")
        assert "nothing to try" in project.loop("backends", "probe", "a", code=6).stderr
        assert "no backend is named" in project.loop("backends", "probe", "c", code=2).stderr
        assert "no backend or pool is named" in project.loop("backends", "--wait", "c", code=2).stderr
        assert "choose one" in project.loop("backends", "--wait", "a", "--at", "1", code=2).stderr
        project.settle()


class TestBreaker:
    def test_a_missing_program_costs_the_category_one_session_and_no_cool_down(self, project: Project) -> None:
        extra = '[backends.gone]\ncommand = ["./no-such-agent"]\n[backends.good]\ncommand = ["./agent.sh"]'
        project.configure("code", category='backends = ["gone", "good"]', extra=extra)
        project.json("tick")
        project.settle()
        assert project.events("session.spawn_failed")[0]["data"]["code"] == "command_not_found"
        assert states(project) == {"gone": "limited", "good": "available"}
        planned = project.json("plan")["decision"]
        assert [each["backend"] for each in planned["chosen"]] == ["good"]
        assert planned["candidates"][0]["backends"] == {"gone": "breaker", "good": "next_named"}
        project.json("tick")
        project.settle()
        assert project.status()["sessions"]["recent"][0]["outcome"] == "productive"
        assert "limited (breaker)" in project.loop("backends").stdout
        assert project.json("verify")["ok"]


def usage(project: Project, by: str) -> dict[str, dict[str, Any]]:
    return {line["name"]: line for line in project.json("usage", "--by", by)["items"]}


class TestBudget:
    TOLD = json.dumps({"outcome": "noop", "usage": {"tokens": 1200, "cost_usd": 0.75}})

    def test_what_sessions_tell_is_added_up_and_a_spent_budget_closes_the_category_alone(
        self, project: Project
    ) -> None:
        extra = POOL + "\n[pools.max]\nmax_tokens_per_day = 1000000"
        project.configure("code", "docs", extra=extra, env={"SAY": self.TOLD})
        project.edit("[categories.code]", "[categories.code]\nmax_cost_per_day = 1.0\ncooldown = \"0s\"")
        project.json("tick")
        project.settle()
        assert usage(project, "category")["code"]["cost_usd"] == {"sum": 0.75, "told": 1, "untold": 0}
        assert usage(project, "pool")["max"]["tokens"] == {"sum": 2400, "told": 2, "untold": 0}
        assert sum(line["sessions"] for line in usage(project, "backend").values()) == 2
        [budget] = usage(project, "category")["code"]["budgets"]
        assert (budget["kind"], budget["limit"], budget["spent"], budget["open"]) == ("cost_usd", 1.0, 0.75, False)
        assert verdicts(project)["code"] == "budget_spent"
        done = project.loop("start", "code", code=None)
        assert "the budget of category code is $1.00 a day" in done.stdout + done.stderr
        project.json("tick")
        flips = {flip["fact"]: flip["to"] for flip in project.json("why-not", "code")["flips"]}
        assert flips['budget["category:code"].cost'] == 1_500_000
        assert "budget of category code: $0.75 of $1.00, spent until" in project.loop("usage").stdout
        assert project.json("verify")["ok"]

    def test_what_was_not_told_is_unknown_and_not_zero(self, project: Project) -> None:
        project.configure("code", "docs", extra=POOL)
        project.json("tick")
        project.settle()
        lines = usage(project, "category")
        assert lines["code"]["cost_usd"] == {"sum": None, "told": 0, "untold": lines["code"]["sessions"]}
        assert "unknown" in project.loop("usage").stdout
        past = project.json("usage", "--at", "1")
        assert (past["items"], past["total"]["cost_usd"]["sum"]) == ([], None)
        assert "there are: category, backend, pool" in project.loop("usage", "--by", "mood", code=2).stderr

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ("[pools.mx]", "no pool 'mx'; did you mean max?"),
            ("[pools.max]\nmax_cost_per_day = 0", "max_cost_per_day: 0 should be greater than 0"),
            ("[pools.max]\nruns = 1", "unknown key"),
        ],
    )
    def test_a_pool_that_cannot_be_is_a_mistake_of_the_config(self, project: Project, line: str, why: str) -> None:
        project.configure("code", extra=f"{POOL}\n{line}")
        assert why in project.loop("config", "check", code=3).stderr
