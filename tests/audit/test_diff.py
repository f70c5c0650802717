"""`loop diff`: what changed between two moments, an item at a time and under the name that expressions use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from given import START, Story, after, configured, limited, over, restrained, running, seen
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from written import written

from events import catalog
from events.envelope import to_text
from events.errors import UsageError
from loop.audit.diff import Change, changes, detached, made_by
from loop.audit.expression import parse
from loop.commands import diff as command
from projections.state import State

BORN = seen(catalog.StoreMigrated(store="l", schema_from=0, schema_to=1, sqlite="3", release="0"))
MINUTE = 60_000_000


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Positions: 2 config, 3-5 s1 on code runs, 6-7 over, 8-10 s2 on docs runs, 11 pool limited."""
    path = tmp_path / "s" / "loop.db"
    story = Story()
    story.happens(BORN, configured(), running("s1", "code"), after(minutes=5), over("s1"), running("s2", "docs"))
    story.happens(limited(minutes=30))
    written(story.events, path).close()
    return path


def ask(db: Path, capsys: pytest.CaptureFixture[str], first: str, second: str | None, **given: bool) -> dict[str, Any]:
    command.run(db, first, second, everything=given.get("everything", False), as_json=True)
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_lists_are_compared_by_what_their_items_are_about(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = ask(db, capsys, "5", "11")
    found = {change["path"]: change for change in report["changes"]}
    assert found['locks["code"]']["kind"] == "removed"
    assert found['locks["docs"]']["to"]["session"] == "s2"
    assert found['sessions.live["s1"]']["kind"] == "removed"
    assert found['sessions.recent["s1"]']["to"]["outcome"] == "productive"
    assert found['category["code"].live'] == {
        "path": 'category["code"].live',
        "from": 1,
        "to": 0,
        "kind": "changed",
    }
    assert found['backend["default"].state']["to"] == "limited"
    assert "slots.live" not in found  # one went, one came
    assert report["schema"] == "loop.diff/1"
    assert report["from"] == {"position": 5, "at": to_text(START)}
    assert report["as_of"] == report["to"] == {"position": 11, "at": to_text(START + 5 * MINUTE)}
    assert report["events"] == 6
    assert report["command"] == "loop diff 5 11"


def test_backwards_it_says_the_reverse(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there, back = ask(db, capsys, "5", "11")["changes"], ask(db, capsys, "11", "5")["changes"]
    turned = {"added": "removed", "removed": "added", "changed": "changed"}
    there = [change for change in there if not change["path"].startswith("sessions.recent")]
    expected = {(c["path"], str(c["to"]), str(c["from"]), turned[c["kind"]]) for c in there}
    assert {(c["path"], str(c["from"]), str(c["to"]), c["kind"]) for c in back} == expected


def test_what_the_clock_moves_is_left_out_unless_all_is_asked_for(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = to_text(START + 6 * MINUTE), to_text(START + 7 * MINUTE)
    assert ask(db, capsys, first, second)["changes"] == []
    report = ask(db, capsys, first, second, everything=True)
    assert [change["path"] for change in report["changes"]] == ["as_of.at"]
    assert report["command"] == f"loop diff {first} {second} --all"
    lapsed = ask(db, capsys, first, to_text(START + 40 * MINUTE))["changes"]
    assert 'backend["default"].state' in [change["path"] for change in lapsed]  # a limit's end is a fact, not an age


def test_head_is_meant_where_the_second_moment_is_not_given(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(db, capsys, "5", None)["to"]["position"] == ask(db, capsys, "5", "head")["to"]["position"] == 11
    with pytest.raises(UsageError, match="beyond"):
        ask(db, capsys, "5", "99")


def test_the_table_marks_what_came_and_what_went(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.run(db, "5", "11", everything=False, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "6 events" in lines[0]
    assert any(line.startswith('- locks["code"]') for line in lines)
    assert any(line.startswith('+ sessions.live["s2"]') and "category=docs" in line for line in lines)
    assert any(line.startswith('~ backend["default"].state') and "available → limited" in line for line in lines)
    assert lines[-1] == "→ loop diff 5 11"


def test_problems_of_one_kind_are_told_apart() -> None:
    def status(*problems: tuple[str, str]) -> dict[str, Any]:
        return {"problems": [{"code": code, "text": text, "command": "loop x"} for code, text in problems]}

    one = status(("over_allocated", "code has 2.1 times"), ("same_lock", "1 same-lock violations"))
    two = status(("over_allocated", "docs has 3.0 times"), ("over_allocated", "code has 2.2 times"))
    assert [(change.path, change.kind) for change in changes(one, two)] == [
        ('problems["over_allocated: code"].text', "changed"),
        ('problems["same_lock"]', "removed"),
        ('problems["over_allocated: docs"]', "added"),
    ]


@settings(max_examples=10)
@for_all(st.integers(0, 10**6))
def test_paths_of_the_language_can_be_asked_for_and_an_events_changes_add_up(seed: int) -> None:
    events = history(seed, 120, steps=False).events
    log = written(events)
    state = State()
    for event in events:
        found: list[Change] = made_by(log, event.position, state)
        assert state.position == event.position
        for change in found:
            if change.path.startswith(("locks[", 'category["')) and change.kind == "changed":
                parse(f"{change.path} != None")
    assert detached(state, 0)["slots"] is not None
    assert made_by(log, 1, State()) == []


def test_a_pause_shows_in_the_mode_and_as_a_restraint(tmp_path: Path) -> None:
    story = Story()
    story.happens(BORN, configured(), restrained("paused"))
    log = written(story.events)
    found = made_by(log, 3, State().fold(story.events[:2]))
    assert [(change.path, change.after) for change in found] == [
        ("mode", "paused"),
        ("restraints.all", {"mode": "paused", "until": None}),
    ]
