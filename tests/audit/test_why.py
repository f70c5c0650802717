"""`loop why`: the decision that is meant, what it knew, and why a session was the one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given import after, by_hand, configured, decides, limited, over, ranking, rejection, restrained, running, tick
from logged import Logged, told

from events.envelope import to_micros
from events.errors import UsageError
from loop.audit.why import find, knew, rederive, session_of, state_before
from loop.commands.why import run
from projections.view import view

BACKENDS: dict[str, Any] = {"opus": {"pool": "max"}, "sonnet": {}, "local": {}}


def of_session(story: Logged, session: str) -> dict[str, Any]:
    found = find(story.log, session)
    assert found.session == session
    seen = view(state_before(story.log, found.record), to_micros(found.decision["now"]))
    told_of = session_of(story.log, session, found.decision, seen)
    assert told_of is not None
    return told_of


# ── which decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_is_the_last_fires_and_no_session_ends() -> None:
    story = told(
        configured(), tick(), ranking("code"), decides(), over("s1"), tick("session_end", ended="s1"), decides()
    )
    assert find(story.log, "last").record.position == story.decisions[0].position


def test_between_a_fires_answer_and_its_decision_the_fire_before_is_the_last() -> None:
    story = told(
        configured(), tick(), ranking("code"), decides(), after(minutes=30), tick(), ranking("docs"), decides()
    )
    first, second = (event.position for event in story.decisions)
    assert [find(story.log, "last", upto).record.position for upto in (second - 1, second)] == [first, second]


def test_a_session_a_pass_and_a_position_mean_the_same_decision() -> None:
    story = told(configured(), tick(), ranking("code"), decides())
    position, pass_id = story.decisions[0].position, story.tick
    grant = next(event for event in story.events if event.type == "session.requested")
    assert pass_id is not None
    targets = (str(position), str(grant.position), "s1", pass_id)
    assert {find(story.log, target).record.position for target in targets} == {position}
    assert [find(story.log, target).session for target in targets] == [None, "s1", "s1", None]


def test_what_no_decision_made_or_no_one_knows_is_a_usage_error() -> None:
    story = told(configured(), tick(), ranking("code"), decides())
    for target in ("2", "999", "0", "nobody"):
        with pytest.raises(UsageError):
            find(story.log, target)


def test_a_decision_behind_the_moment_asked_about_is_refused() -> None:
    story = told(configured(), tick(), ranking("code"), decides())
    with pytest.raises(UsageError) as refused:
        find(story.log, "s1", story.decisions[0].position - 1)
    assert "--at" in refused.value.message


# ── why this session, and why this backend ────────────────────────────────────────────────────────────────────────────


def test_a_session_is_told_by_its_rule_and_rank() -> None:
    story = told(
        configured(), tick(), ranking("docs", {"category": "code", "task": "T-1"}, rule="alternatives"), decides()
    )
    session = of_session(story, "s2")
    assert (session["category"], session["rule"], session["rank"], session["task"]) == (
        "code",
        "alternatives",
        2,
        "T-1",
    )
    assert session["text"].startswith("code started because the selector named it as an alternative, rank 2")
    assert "with task T-1" in session["text"]


@pytest.mark.parametrize(
    ("backends", "category", "before", "reason", "backend"),
    [
        (BACKENDS, {"backends": ["sonnet", "opus"]}, [], "first_named", "sonnet"),
        (BACKENDS, {"backends": ["opus", "sonnet"]}, [limited("max")], "next_named", "sonnet"),
        ({"opus": {}}, {}, [], "only_one", "opus"),
        (BACKENDS, {}, [running("x", "docs", backend="opus")], "unused_longest", "sonnet"),
    ],
)
def test_the_backend_has_its_reason(backends: Any, category: Any, before: list[Any], reason: str, backend: str) -> None:
    story = told(
        configured(backends=backends, categories={"code": category, "docs": {}}),
        *before,
        tick(),
        ranking("code"),
        decides(),
    )
    session = of_session(story, f"s{len(story.category)}")
    assert (session["backend_reason"], session["backend"]) == (reason, backend)


def test_a_backend_taken_by_the_same_decision_counts_as_taken() -> None:
    backends = {"opus": {"concurrency": 1}, "sonnet": {"concurrency": 1}}
    story = told(configured(backends=backends), tick(), ranking("code", "docs"), decides())
    assert [of_session(story, id)["backend_reason"] for id in ("s1", "s2")] == ["unused_longest", "only_one"]


def test_a_start_by_hand_says_so_and_for_its_backend_too() -> None:
    story = told(configured(backends=BACKENDS), by_hand("code", backend="local"), decides())
    session = of_session(story, "s1")
    assert (session["rule"], session["backend_reason"]) == ("manual", "asked_for")
    assert "asked for by hand" in session["text"]


def test_a_respawn_names_the_session_before_it() -> None:
    story = told(
        configured(), tick(), ranking("code"), decides(), over("s1"), tick("session_end", ended="s1"), decides()
    )
    session = of_session(story, "s2")
    assert (session["rule"], session["chain"], session["parent"]) == ("respawn", 1, "s1")
    assert "after s1" in session["text"]
    assert of_session(story, "s1")["outcome"] == "productive"


# ── what it knew, and today's rules ───────────────────────────────────────────────────────────────────────────────────


def test_what_it_knew_is_the_age_of_the_answer_the_restraints_and_the_pools() -> None:
    story = told(
        configured(backends=BACKENDS, max_starts_per_hour=7),
        tick(),
        ranking("code", "docs"),
        decides(),
        limited("max"),
        restrained("paused", "category", "docs", minutes=60),
        over("s1"),
        after(minutes=4),
        tick("session_end", ended="s1"),
    )
    known = knew(story.view())
    assert known["answer"] == {"age": 240.0, "asked": False, "usable": True}
    assert known["restraints"]["category:docs"]["mode"] == "paused"
    assert known["backends"]["total"] == 3
    assert [each["name"] for each in known["backends"]["unavailable"]] == ["opus"]
    assert (known["starts"]["hour"], known["starts"]["hour_limit"]) == (2, 7)
    assert [due["session"] for due in known["due"]] == ["s1"]


def test_todays_code_decides_the_same_or_says_what_differs() -> None:
    story = told(configured(), tick(), ranking("code"), decides())
    found = find(story.log, "last")
    state = state_before(story.log, found.record)
    assert rederive(state, found.decision)["same"] is True
    tampered = found.decision
    tampered["candidates"][0]["verdict"] = "no_slot"
    assert rederive(state, tampered)["differs"] == [{"category": "code", "then": "no_slot", "now": "chosen"}]
    assert rederive(state, {**found.decision, "decider": 99})["same"] is None


def test_the_command_puts_the_sessions_own_line_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "s" / "loop.db"
    story = told(configured(), tick(), ranking("code"), decides(), path=db)
    story.log.close()
    assert run(db, "s1", at=None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("s1 code started because the selector selected it, rank 1; on default")
    run(db, "s1", at=None, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["session"]["id"] == "s1"
    assert report["decision"] == story.decisions[0].data
    assert report["command"] == "loop why s1"
    assert report["rederived"]["same"] is True


def test_a_rejected_answer_is_told_with_its_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    db = tmp_path / "s" / "loop.db"
    told(configured(), tick(), rejection(), decides(), path=db).log.close()
    run(db, "s1", at=None, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    assert "because the selector's answer was rejected" in text
    assert "selection rejected: the selector took too long" in text
