"""The views against the same figures computed in Python, on random histories and on two SQLite libraries."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from histories import World, history
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import records, write

from events.envelope import Event
from events.lifecycle import SESSION_ENDS
from events.sqlite import sqlite3 as store_sqlite
from migrations.views import VIEWS

SESSION = [
    "id", "category", "task", "backend", "pool", "rule", "trigger", "chain", "parent", "token", "requested_at",
    "started_at", "ended_at", "end_type", "outcome", "reason", "grade", "seconds", "exit_code", "signal",
    "end_position",
]  # fmt: skip


def of_session(events: list[Event], type: str) -> dict[str, Event]:
    """Session -> its last event of a type."""
    return {event.session or "": event for event in events if event.type == type}


def ends(events: list[Event]) -> dict[str, Event]:
    return {event.session or "": event for event in events if event.type in SESSION_ENDS}


def sessions(events: list[Event]) -> list[dict[str, Any]]:
    started, ended, graded = of_session(events, "session.started"), ends(events), of_session(events, "session.graded")
    found = []
    for event in events:
        if event.type != "session.requested":
            continue
        id, data = event.session or "", event.data
        end = ended.get(id)
        how: dict[str, Any] = {} if end is None else end.data
        line = {name: data[name] for name in ("task", "backend", "pool", "rule", "trigger", "chain", "parent")}
        line |= {"id": id, "category": event.category, "token": event.position, "requested_at": event.at}
        line |= {"started_at": started[id].at if id in started else None}
        line |= {"ended_at": end and end.at, "end_type": end and end.type, "end_position": end and end.position}
        line |= {name: how.get(name) for name in ("grade", "seconds", "exit_code", "signal")}
        line["outcome"] = how.get("outcome", {"session.lost": "lost", "session.spawn_failed": "refused"}.get(end.type)
                                  if end else None)  # fmt: skip
        line["reason"] = how.get("reason") or how.get("why") or how.get("code")
        if id in graded:
            line["grade"] = graded[id].data["grade"]
        found.append({name: line[name] for name in SESSION})
    return found


def intervals(events: list[Event]) -> list[tuple[Any, ...]]:
    tokens = {id: event.position for id, event in of_session(events, "session.requested").items()}
    return [
        (key, id, tokens[id], span["boot"], span["from_ns"], span["to_ns"], end.position)
        for id, end in ends(events).items()
        for key, span in end.data["held"].items()
    ]


def decisions(events: list[Event]) -> list[tuple[Any, ...]]:
    trigger = {event.tick: event.data["trigger"] for event in events if event.type == "tick.started"}
    return [
        (event.position, event.at, event.tick, trigger[event.tick], event.data["policy"], event.data["decider"],
         event.data["slots"]["free"], len(event.data["chosen"]), len(event.data["candidates"]))
        for event in events
        if event.type == "fanout.decided"
    ]  # fmt: skip


def spawns(events: list[Event]) -> dict[tuple[str, str], tuple[int, float]]:
    ended = ends(events)
    found: dict[tuple[str, str], tuple[int, float]] = defaultdict(lambda: (0, 0.0))
    for id, event in of_session(events, "session.started").items():
        how = ended[id].data if id in ended else {}
        key = (event.at[:13], event.category or "")
        counted = how.get("outcome") not in ("limited", "refused")
        found[key] = (found[key][0] + counted, found[key][1] + (how.get("seconds") or 0.0))
    return found


def assert_views(connection: Any, events: list[Event]) -> None:
    rows = connection.execute("SELECT * FROM sessions ORDER BY token").fetchall()
    assert [dict(zip(SESSION, row, strict=True)) for row in rows] == sessions(events)
    rows = connection.execute("SELECT * FROM lock_intervals").fetchall()
    assert sorted(map(tuple, rows)) == sorted(intervals(events))
    rows = connection.execute("SELECT * FROM decisions ORDER BY position").fetchall()
    assert list(map(tuple, rows)) == decisions(events)
    rows = connection.execute("SELECT * FROM spawns_by_category").fetchall()
    found = {(hour, category): (started, pytest.approx(seconds)) for hour, category, started, seconds in rows}
    assert found == spawns(events)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_the_views_are_what_python_finds(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    world = history(seed, 300)
    connection = store_sqlite.connect(write(tmp_path_factory.mktemp("store") / "loop.db", records(world.events)))
    assert_views(connection, world.events)
    connection.close()


def test_the_views_work_in_the_interpreters_own_sqlite(tmp_path: Path, world: World) -> None:
    connection = sqlite3.connect(write(tmp_path / "loop.db", records(world.events)))
    assert_views(connection, world.events)
    connection.close()


@pytest.mark.parametrize("library", [sqlite3, store_sqlite], ids=["interpreter's", "store's"])
def test_no_view_looks_up_every_event_of_a_type_for_each_row(tmp_path: Path, library: Any, world: World) -> None:
    """That took minutes where it should take a tenth of a second: only the outermost loop may go by type."""
    connection = library.connect(write(tmp_path / "loop.db", records(world.events)))
    for name in VIEWS:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM {name}").fetchall()]
        assert sum("events_by_type" in step or step.startswith("SCAN events") for step in plan) <= 1, plan
    connection.close()
