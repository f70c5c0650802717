"""Gates, the host, blocked sessions and tasks, with real passes."""

from __future__ import annotations

from typing import Any

from e2e_project import Project

BLOCKED = '{"outcome": "blocked"}'


def verdicts(decision: dict[str, Any]) -> dict[str, str]:
    return {candidate["category"]: candidate["verdict"] for candidate in decision["candidates"]}


def gated(project: Project, **changes: Any) -> Project:
    """`code` and `docs`, each with a gate that exits with what its file says."""
    (project.directory / "code.says").write_text("0")
    (project.directory / "docs.says").write_text("1")
    gate = 'command = ["./agent.sh"]\ngate = ["sh", "-c", "exit $(cat {category}.says)"]\ncooldown = "0s"'
    payload = {"selected": {"id": "t1", "category": "code"}, "alternatives": [{"category": "docs"}]}
    return project.configure("code", "docs", selector=project.select(payload), category=gate, **changes)


def test_a_fire_asks_the_gates_and_decides_on_what_they_said(project: Project) -> None:
    gated(project)
    report = project.json("tick")
    assert verdicts(report["decision"]) == {"code": "chosen", "docs": "no_work"}
    assert {name: each["answer"] for name, each in report["gates"].items()} == {"code": "work", "docs": "no_work"}
    project.settle()
    answers = project.events("gate.answered")
    assert [(each["category"], each["data"]["answer"]) for each in answers] == [("code", "work"), ("docs", "no_work")]
    assert [line["supply"] for line in project.status()["categories"]] == ["work", "none"]
    assert project.json("verify")["ok"]
    project.assert_sound()


def test_a_gate_error_is_a_problem_with_its_command_and_starts_nothing(project: Project) -> None:
    gated(project)
    (project.directory / "code.says").write_text("3")
    project.loop("tick")
    assert project.starts() == []
    [problem] = [each for each in project.status()["problems"] if each["code"] == "gate_error"]
    assert "code" in problem["text"]
    assert "3" in problem["text"]
    command, *arguments = problem["command"].split()
    assert command == "loop"
    assert '"error"' in project.loop(*arguments).stdout
    assert "exit code 3" in project.loop("why", "last", env={"COLUMNS": "200"}).stdout


def test_plan_asks_as_a_pass_does_and_expect_holds_it_to_the_answers(project: Project) -> None:
    gated(project)
    plan = project.json("plan")
    assert verdicts(plan["decision"]) == {"code": "chosen", "docs": "no_work"}
    assert project.events("gate.answered") == []
    (project.directory / "docs.says").write_text("4")
    project.loop("tick", "--expect", plan["inputs"], code=6)
    (project.directory / "docs.says").write_text("1")
    assert project.json("tick", "--expect", plan["inputs"])["inputs"] == plan["inputs"]
    project.settle()


def test_expect_holds_a_pass_to_the_answers_of_those_too_that_nobody_asked_for(project: Project) -> None:
    gated(project)
    project.select({"all_scores": {"code": 1}})
    plan = project.json("plan")
    assert verdicts(plan["decision"]) == {"code": "chosen", "docs": "not_ranked"}
    (project.directory / "docs.says").write_text("0")
    again = project.json("plan")
    assert verdicts(again["decision"]) == verdicts(plan["decision"])
    assert again["inputs"] != plan["inputs"]


def test_plan_with_recorded_facts_asks_nobody(project: Project) -> None:
    gated(project)
    project.loop("tick")
    project.settle()
    for name in ("code", "docs"):
        (project.directory / f"{name}.says").unlink()
    plan = project.json("plan", "--recorded")
    assert (plan["gates"], verdicts(plan["decision"])) == ({}, {"code": "chosen", "docs": "no_work"})


def test_a_payload_stands_in_for_the_selector_alone(project: Project) -> None:
    gated(project)
    plan = project.loop("plan", "-q", "--payload", "-", stdin='{"all_scores": {"docs": 2, "code": 1}}')
    assert plan.stdout == "code\n"


def test_a_busy_host_starts_nothing_with_the_figures(project: Project) -> None:
    project.configure("code", extra="[host]\nmin_memory_available = 1.0")
    report = project.json("tick")
    assert report["host"]["memory_available"] < 1
    detail = report["decision"]["candidates"][0]["detail"]
    assert detail == {"memory_available": report["host"]["memory_available"], "min_memory_available": 1.0}
    assert project.starts() == []
    assert [each["code"] for each in project.status()["problems"]] == ["host_busy"]
    assert "at least 1" in project.loop("why-not", "code", env={"COLUMNS": "200"}).stdout
    by_hand = project.loop("start", "code", "--json", code=6)
    assert '"host_busy"' in by_hand.stdout


def test_an_empty_lane_is_assessed_once(project: Project) -> None:
    command = 'command = ["./agent.sh"]\ncooldown = "0s"'
    selector = project.select({"all_scores": {"code": 1}})
    project.configure("code", selector=selector, category=command, env={"SAY": BLOCKED})
    project.loop("tick")
    session = project.settle()["sessions"]["recent"][0]["id"]
    for _ in range(2):
        decision = project.json("tick")["decision"]
        assert verdicts(decision) == {"code": "no_work"}
        assert decision["candidates"][0]["detail"]["session"] == session
    assert len(project.starts()) == 1
    assert "found it blocked" in project.loop("why", "last", env={"COLUMNS": "200"}).stdout


def test_two_sessions_never_get_the_same_task_though_two_categories_ask_for_it(project: Project) -> None:
    """Not at once, and not when the first is over: the answer is from before."""
    payload = {"selected": {"id": "t1", "category": "code"}, "alternatives": [{"category": "docs", "id": "t1"}]}
    command = 'command = ["./agent.sh"]'
    project.configure("code", "docs", selector=project.select(payload), category=command, extra="[respawn]\nlimit = 0")
    report = project.json("tick")
    entries = {entry["category"]: entry["task"] for entry in report["selection"]["ranking"]}
    assert entries == {"code": "t1", "docs": "t1"}
    assert verdicts(report["decision"]) == {"code": "chosen", "docs": "task_taken"}
    project.settle()
    assert [line[2] for line in project.starts()] == ["t1"]
    project.assert_sound()


def test_what_runs_alone_has_the_machine_to_itself(project: Project) -> None:
    command = 'command = ["./agent.sh"]\ncooldown = "0s"\nparallel = "alone"'
    payload = {"all_scores": {"code": 2, "docs": 1}}
    project.configure("code", "docs", selector=project.select(payload), category=command, extra="[respawn]\nlimit = 0")
    assert verdicts(project.json("tick")["decision"]) == {"code": "chosen", "docs": "not_alone"}
    project.settle()
    assert {line.strip() for line in (project.marks / "concurrency").read_text().splitlines()} == {"1"}
    assert [line[1] for line in project.starts()] == ["code", "docs"], "docs followed when code was over"
