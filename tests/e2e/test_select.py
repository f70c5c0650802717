"""The built-in selector in a real project: `loop select` prints it, a pass uses it, and the past gives it again."""

from __future__ import annotations

import json
import stat
import subprocess

import pytest
from e2e_project import Project, wait_until

WITH_TASKS = "\n".join(
    (
        "[categories.code]", 'command = ["./agent.sh"]', "target = 0.5",
        "[categories.docs]", 'command = ["./agent.sh"]', "target = 0.5",
    )
)  # fmt: skip


def task(project: Project, id: str, *lines: str) -> None:
    directory = project.directory / "tasks"
    directory.mkdir(exist_ok=True)
    (directory / f"{id}.md").write_text("\n".join(("---", *lines, "---", f"# {id}", "")))


@pytest.fixture
def tasked(project: Project) -> Project:
    """Two categories, one slot; `docs` has an active task, `code` backlog, and a file is broken."""
    project.configure(slots=1, extra=WITH_TASKS)
    task(project, "login", "state: backlog", "priority: high", "tags: [code]")
    task(project, "guide", "state: active", "tags: [docs]")
    task(project, "broken", "tags: [docs]")
    return project


def test_it_prints_a_payload_that_plan_reads(tasked: Project) -> None:
    answer = tasked.json("select")
    assert (answer["tier"], answer["selected"]["category"], answer["selected"]["id"]) == (1, "docs", "guide")
    assert [entry["id"] for entry in answer["diversity_alternatives"]] == ["login"]
    assert set(answer["terms"]["code"]["gap"]) == {"value", "weight", "points"}
    assert "broken.md: it has no state" in answer["diversity_warnings"]
    planned = tasked.loop("plan", "-q", "--payload", "-", stdin=json.dumps(answer))
    assert planned.stdout == "docs\n"
    assert not tasked.db.exists(), "a read makes no store"


def test_the_table_has_a_line_for_each_category_with_its_terms(tasked: Project) -> None:
    done = tasked.loop("select")
    head, behind, _, columns, first, *_ = done.stdout.splitlines()
    assert (head, behind) == ("tier 1: docs, task guide", "behind it code, task login")
    assert columns.split() == ["category", "score", "recency", "gap", "neglect", "grades", "supply", "plateau"]
    assert first.split()[0] == "docs"
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "warning: broken.md: it has no state" in done.stderr


def test_a_pass_starts_what_it_said_and_the_past_gives_it_again_term_by_term(tasked: Project) -> None:
    said = tasked.json("select")
    tasked.loop("tick")
    tasked.settle()
    assert tasked.starts()[0][1:] == ["docs", "guide"]
    (made,) = tasked.events("selection.made")
    assert made["data"]["source"] == "builtin"
    (tasked.directory / "tasks" / "guide.md").unlink()
    for at in (str(made["position"]), str(tasked.status()["as_of"]["position"])):
        then = tasked.json("select", "--at", at)
        for key in ("tier", "selected", "diversity_alternatives", "all_scores", "terms"):
            assert then[key] == said[key]
        assert then["rederived"]["position"] == made["position"]
    assert tasked.json("select")["selected"]["category"] == "code", "now there is no other task"


def test_under_an_unchanged_config_the_answer_is_derived_anew_and_is_the_same(tasked: Project) -> None:
    for _ in range(2):
        tasked.loop("tick")
        tasked.settle()
    second = tasked.events("selection.made")[-1]
    assert tasked.json("select", "--at", str(second["position"]))["rederived"]["same"] is True
    assert "made again from the log: the same" in tasked.loop("select", "--at", str(second["position"])).stdout


def test_an_edited_config_counts_at_once(tasked: Project) -> None:
    tasked.loop("tick")
    tasked.settle()
    weight = tasked.json("select")["terms"]["code"]["gap"]["weight"]
    tasked.edit("builtin = true", f"builtin = true\nweights = {{ gap = {weight + 4} }}")
    assert tasked.json("select")["terms"]["code"]["gap"]["weight"] == weight + 4
    tasked.edit("weights = { gap", "weights = { gab")
    assert "did you mean gap?" in tasked.loop("select", code=3).stderr


def test_task_files_are_where_the_config_says_for_plan_and_select_alike(tasked: Project) -> None:
    home = tasked.directory / "home"
    home.mkdir()
    tasked.edit("builtin = true", 'builtin = true\ntasks = "~/todo"')
    checked = tasked.loop("config", "check", env={"HOME": str(home)})
    assert f"selector.tasks: no directory {home}/todo" in checked.stdout + checked.stderr
    (tasked.directory / "tasks").rename(home / "todo")
    for _ in ("a config that is new", "one that is in force"):
        answer = json.loads(tasked.loop("select", "--json", env={"HOME": str(home)}).stdout)
        planned = json.loads(tasked.loop("plan", "--json", env={"HOME": str(home)}).stdout)
        assert answer["selected"]["id"] == planned["decision"]["chosen"][0]["task"] == "guide"
        tasked.loop("pause", "--reason", "to have it recorded", env={"HOME": str(home)})
        tasked.loop("tick", env={"HOME": str(home)})
        tasked.loop("resume", env={"HOME": str(home)})


def test_a_task_that_a_session_holds_is_offered_to_nobody_else(tasked: Project) -> None:
    tasked.edit('SAY = "', 'NAP = "5"\nSAY = "')
    tasked.loop("tick")
    wait_until(lambda: tasked.starts() and tasked.status()["sessions"]["live"], what="a session")
    answer = tasked.json("select")
    offered = [answer.get("selected"), *answer.get("diversity_alternatives", [])]
    assert "guide" not in {entry.get("id") for entry in offered if entry}
    assert answer["needs_supply"] == {"docs": "none of its open tasks is ready (of 1)"}
    tasked.loop("stop")


def test_a_lane_without_a_ready_task_is_shown_as_without_work_and_not_as_neglected(tasked: Project) -> None:
    def supply() -> dict[str, str]:
        return {line["name"]: line["supply"] for line in tasked.status()["categories"]}

    (tasked.directory / "tasks" / "guide.md").write_text("---\nstate: done\ntags: [docs]\n---\n")
    tasked.loop("tick")
    assert supply()["docs"] == "none"
    assert supply()["code"] == "unknown"
    (tasked.directory / "tasks" / "guide.md").write_text("---\nstate: active\ntags: [docs]\n---\n")
    tasked.loop("tick")
    assert supply()["docs"] == "unknown", "the newest answer counts"
    tasked.settle()


def test_why_not_leads_from_a_category_that_was_not_named_to_what_it_needs(tasked: Project) -> None:
    (tasked.directory / "tasks" / "guide.md").write_text("---\nstate: done\ntags: [docs]\n---\n")
    tasked.loop("tick")
    tasked.settle()
    told = tasked.loop("why-not", "docs").stdout.splitlines()
    assert "the selector did not ask for it" in told[0]
    command = told[-1].removeprefix("→ ")
    assert "docs needs supply: all of its tasks are over (of 1)" in tasked.loop(*command.split()[1:]).stdout
    assert "loop select" not in tasked.loop("why-not", "code").stdout


def test_the_past_of_another_selector_is_said_to_be_none_of_ours(project: Project) -> None:
    project.configure("code", selector=project.select({"all_scores": {"code": 1}}))
    project.loop("tick")
    refused = project.loop("select", "--at", str(project.settle()["as_of"]["position"]), code=2)
    assert "was given by command" in refused.stderr
    assert "no selector gave an answer, as of position 1" in project.loop("select", "--at", "1", code=2).stderr


def test_a_new_selector_is_a_script_that_plan_takes_at_once(project: Project) -> None:
    project.configure("code", "triage")
    told = project.loop("new-selector", "mine").stdout
    script = project.directory / "mine"
    assert "loop plan --payload -" in told
    assert script.stat().st_mode & stat.S_IXUSR
    assert len(script.read_text().splitlines()) <= 31
    answer = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    assert project.loop("plan", "-q", "--payload", "-", stdin=answer).stdout == "code triage\n"
    script.write_text(script.read_text().replace('[("fix-login", "code")]', '[("sort", "triage"), ("fix", "code")]'))
    edited = subprocess.run([script], capture_output=True, text=True, check=True).stdout
    planned = json.loads(project.loop("plan", "--json", "--payload", "-", stdin=edited).stdout)
    assert [(each["category"], each["task"]) for each in planned["decision"]["chosen"]] == [
        ("triage", "sort"),
        ("code", "fix"),
    ]
    project.edit("builtin = true", 'command = ["./mine"]')
    assert project.loop("plan", "-q").stdout == "triage code\n"


def test_what_a_new_selector_says_to_try_is_a_line_for_the_shell(project: Project) -> None:
    project.configure("code", "triage")
    line = next(
        line.removeprefix("try it: ")
        for line in project.loop("new-selector", "a 'good' one").stdout.splitlines()
        if line.startswith("try it: ")
    )
    done = subprocess.run(["sh", "-c", line.split(" | ")[0]], capture_output=True, text=True, check=True)
    assert project.loop("plan", "-q", "--payload", "-", stdin=done.stdout).stdout == "code triage\n"


def test_a_new_selector_overwrites_nothing(project: Project) -> None:
    project.configure("code")
    (project.directory / "my-selector").write_text("mine")
    assert "is there already" in project.loop("new-selector", code=2).stderr
    assert "cannot be written" in project.loop("new-selector", "no/such/place", code=2).stderr
    assert (project.directory / "my-selector").read_text() == "mine"
