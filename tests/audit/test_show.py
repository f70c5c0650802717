"""`loop show`: one event whole, up to what caused it and down to what it caused, with what it changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import history
from written import written

from events.envelope import Event
from events.errors import UsageError
from loop.commands.show import show


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    path = tmp_path_factory.mktemp("show") / "s" / "loop.db"
    events = history(5, 400, steps=False).events
    written(events, path).close()
    return path, events


def ask(db: Path, capsys: pytest.CaptureFixture[str], target: str) -> dict[str, Any]:
    assert show(db, target, as_json_object=True) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def first(events: list[Event], type: str) -> Event:
    return next(event for event in events if event.type == type)


def test_causes_go_up_to_the_beginning(made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]) -> None:
    db, events = made
    started = first(events, "session.started")
    report = ask(db, capsys, str(started.position))
    chain = [cause["type"] for cause in report["causes"]]
    assert chain == ["session.requested", "fanout.decided"]
    assert report["event"]["data"]["pid"] == started.data["pid"]
    assert report["command"] == f"loop show {started.position}"


def test_effects_are_all_events_that_name_it_as_their_cause(
    made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, events = made
    for event in events:
        expected = [other.position for other in events if other.cause == event.position]
        if expected and event.position % 3 == 0:
            report = ask(db, capsys, str(event.position))
            assert [effect["position"] for effect in report["effects"]] == expected
            assert not report["effects_truncated"]


def test_an_effect_is_found_however_far_away_and_in_whatever_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = history(5, 1_500, steps=False).events
    late = events[-1]
    written([*events[:-1], replace(late, cause=3, tick=None, session=None)], tmp_path / "loop.db").close()
    assert [effect["position"] for effect in ask(tmp_path / "loop.db", capsys, "3")["effects"]][-1] == late.position


def test_what_it_changed_is_shown_under_expression_names(
    made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, events = made
    taken = first(events, "lock.acquired")
    (held, *_) = ask(db, capsys, str(taken.position))["changes"]
    assert held["path"] == f'locks["{taken.data["key"]}"]'
    assert held["to"]["session"] == taken.session
    assert ask(db, capsys, str(first(events, "tick.finished").position))["changes"] == []


def test_an_id_means_its_event_a_sessions_its_start_a_passs_its_decision(
    made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, events = made
    started, decided = first(events, "session.started"), first(events, "fanout.decided")
    assert ask(db, capsys, started.session or "")["event"]["position"] == started.position
    assert ask(db, capsys, decided.tick or "")["event"]["position"] == decided.position
    by_id = ask(db, capsys, ask(db, capsys, "7")["event"]["id"])
    assert by_id["event"]["position"] == by_id["as_of"]["position"] == 7


@pytest.mark.parametrize("target", ["0", "9999", "99999999999999999999999", "nobody", ""])
def test_what_is_not_there_is_a_mistake_of_words(made: tuple[Path, list[Event]], target: str) -> None:
    with pytest.raises(UsageError):
        show(made[0], target, as_json_object=True)


def test_a_person_sees_causes_effects_changes_and_where_to_go_on(
    made: tuple[Path, list[Event]], capsys: pytest.CaptureFixture[str]
) -> None:
    db, events = made
    request = first(events, "session.requested")
    show(db, str(request.position), as_json_object=False)
    text = capsys.readouterr().out
    for part in (
        "caused by",
        f"{request.cause} ",
        "fanout.decided",
        "led to",
        "lock.acquired",
        f'+ sessions.live["{request.session}"]',
        f"→ loop show {request.position}",
        f"→ loop status --at {request.position}",
        f"→ loop diff {request.position - 1} {request.position}",
        f"→ loop why {request.tick}",
        f"→ loop log --session {request.session}",
        f"→ loop step --at {request.position}",
    ):
        assert part in text
