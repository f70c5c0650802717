"""Rows deleted or replaced, triggers dropped: `loop verify` exits 4, and names position and check."""

from __future__ import annotations

from typing import Any

import pytest

from events.sqlite import sqlite3
from events.store import EventLog
from tests.audit.stores import Rows, write
from tests.e2e.e2e_project import Project


@pytest.fixture
def store(project: Project, sound: Rows) -> Project:
    """A project whose log holds 600 sound events."""
    project.configure("code")
    project.db.parent.mkdir(mode=0o700)
    write(project.db, sound)
    return project


def tampered(store: Project, *statements: str) -> dict[str, Any]:
    """Failing check -> its first bad position, after statements by somebody with another program."""
    connection = sqlite3.connect(store.db, isolation_level=None)
    query = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'events'"
    guards = [sql for (sql,) in connection.execute(query)]
    for statement in ("events_no_update", "events_no_delete", "events_no_replace", "events_no_gap"):
        connection.execute(f"DROP TRIGGER {statement}")
    for statement in statements:
        connection.execute(statement)
    for guard in guards:
        connection.execute(guard)
    connection.close()
    found = store.json("verify", code=4)
    return {check["name"]: check["first_bad"] for check in found["checks"] if not check["ok"]}


def one_clear_error(store: Project, *command: str) -> None:
    error = store.json(*command, code=1)["error"]
    assert error["code"] == "store"
    assert "loop verify" in error["hint"]


def test_a_deleted_row_is_named_and_nothing_is_decided_on_the_rest(store: Project) -> None:
    found = tampered(store, "DELETE FROM events WHERE position = 300")
    assert found["positions"] == 300
    assert found["chain"] == 301
    one_clear_error(store, "status")
    one_clear_error(store, "tick")
    assert store.starts() == []


def test_the_newest_rows_deleted_are_shown_by_an_anchor_alone(store: Project) -> None:
    before = store.json("verify")
    connection = sqlite3.connect(store.db, isolation_level=None)
    connection.execute("DROP TRIGGER events_no_delete")
    connection.execute("DELETE FROM events WHERE position > 590")
    connection.close()
    anchor = f"{before['as_of']['position']}:{before['head']}"
    found = store.json("verify", "--anchor", anchor, code=4)
    assert {check["name"] for check in found["checks"] if not check["ok"]} == {"anchor", "triggers"}


def test_a_replaced_row_is_named(store: Project) -> None:
    found = tampered(
        store, "UPDATE events SET data = json_set(data, '$.seconds', 0.5) WHERE position ="
        " (SELECT max(position) FROM events WHERE type = 'session.ended')"
    )  # fmt: skip
    log = EventLog.read(store.db)
    assert found["chain"] == max(event.position for event in log.events() if event.type == "session.ended")
    assert store.status()["as_of"]["position"] == log.head().position, "it still reads, and only verify can tell"


@pytest.mark.parametrize("name", ["events_no_update", "events_no_delete", "events_no_replace", "events_no_gap"])
def test_a_dropped_trigger_is_named_and_the_log_goes_on(store: Project, name: str) -> None:
    connection = sqlite3.connect(store.db, isolation_level=None)
    connection.execute(f"DROP TRIGGER {name}")
    connection.close()
    found = {check["name"]: check for check in store.json("verify", code=4)["checks"] if not check["ok"]}
    assert set(found) == {"triggers"}
    assert f"{name} is missing" in found["triggers"]["detail"]
    store.loop("pause")
    assert store.status()["mode"] == "paused"
