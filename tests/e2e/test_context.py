"""What a session can read of itself: why it was chosen, and what the last ones of its category did."""

from __future__ import annotations

import json
from typing import Any

from e2e_project import Project

SAY = '{"outcome": "noop", "grade": 0.3, "summary": "\\u001b[31mnothing to do", "task": "t2"}'


def contexts(project: Project) -> list[dict[str, Any]]:
    """What each session found in $LOOP_CONTEXT, oldest first."""
    kept = [project.marks / f"context-{event['session']}" for event in project.events("session.started")]
    return [json.loads(path.read_text()) for path in kept]


def prepare(project: Project, category: str = "") -> Project:
    agent = project.directory / "reader.sh"
    agent.write_text(
        '#!/bin/sh\ncp "$LOOP_CONTEXT" "$MARKS/context-$LOOP_SESSION"\necho "$SAY" > "$LOOP_OUTCOME"\n'
    )
    agent.chmod(0o755)
    lines = f'command = ["./reader.sh"]\nnote = "the product"\ncooldown = "0s"\n{category}'
    payload = {"tier": 1, "selected": {"id": "t1", "category": "code"}, "all_scores": {"docs": 0.5}}
    return project.configure("code", "docs", category=lines, selector=project.select(payload), env={"SAY": SAY})


def test_it_says_why_the_session_was_chosen_and_what_the_last_ones_did(project: Project) -> None:
    prepare(project)
    for _ in range(2):
        project.loop("tick")
        project.settle()
    first, second = (each for each in contexts(project) if each["category"] == "code")
    assert (first["task"], first["note"], first["last"]) == ("t1", "the product", [])
    assert (first["why"]["rule"], first["why"]["rank"], first["why"]["tier"]) == ("selected", 1, 1)
    assert first["backend"] == {"name": "default", "why": "only_one", "text": "is the only one that could"}
    decided = project.json("why", first["session"])["decision"]
    assert decided["candidates"][0]["category"] == "code"
    [told] = second["last"]
    assert (told["session"], told["outcome"], told["grade"], told["task"]) == (first["session"], "noop", 0.3, "t2")
    assert told["summary"].endswith("nothing to do")
    assert "\x1b" not in told["summary"]
    [docs, _] = (each for each in contexts(project) if each["category"] == "docs")
    assert (docs["why"]["rule"], docs["why"]["score"], docs["task"]) == ("all_scores", 0.5, None)


def test_by_hand_it_says_so(project: Project) -> None:
    prepare(project)
    project.loop("start", "docs", "--task", "t9")
    project.settle()
    [context] = contexts(project)
    assert (context["why"]["rule"], context["task"], context["chain"]) == ("manual", "t9", 0)
