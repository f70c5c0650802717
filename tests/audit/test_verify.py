"""`verify`: a sound store passes every check, and rows or a schema that somebody changed are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from histories import history
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import (
    NAMES,
    Rows,
    at,
    chained,
    changed,
    detail,
    failing,
    records,
    released,
    replaced,
    report_of,
    tamper,
    write,
)

from events import audit
from events.store import EventLog
from loop.audit.verify import verify
from migrations import SCHEMA
from tests.e2e.e2e_project import Project

FOLDED = {"decisions", "snapshots", "projections"}  # what sees nothing behind a row that cannot be folded


# ── sound stores ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_every_legal_history_passes_every_check(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rows = records(history(seed, 250).events)
    report = report_of(write(tmp_path_factory.mktemp("store") / "loop.db", rows, keep_snapshots=(100, 200)))
    assert failing(report) == {}, report
    assert [check.name for check in report.checks] == NAMES
    assert report.anchor == f"{len(rows)}:{rows[-1].hash.hex()}"


def test_a_sound_store_is_looked_at_in_full(tmp_path: Path, sound: Rows) -> None:
    report = report_of(write(tmp_path / "loop.db", sound, keep_snapshots=(300, 600)))
    checked = {check.name: check.checked for check in report.checks}
    count = {type: sum(row.type == type for row in sound) for type in {row.type for row in sound}}
    assert failing(report) == {}
    assert checked["positions"] == checked["chain"] == checked["time"] == checked["readable"] == len(sound)
    assert checked["decisions"] == count["fanout.decided"]
    assert checked["slots"] == count["session.requested"]
    assert checked["starts_locked"] == count["session.started"]
    assert checked["tokens"] == count["lock.acquired"] + count["lock.released"]
    assert checked["snapshots"] == 2
    assert checked["lock_intervals"] == sum(len(json.loads(row.data).get("held", ())) for row in sound)
    assert checked["projections"] > 20


def test_segments_on_other_processes_find_the_same(
    tmp_path: Path, sound: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loop.audit.verify.SEGMENT", 200)
    bad = at(sound, "fanout.decided", 500)
    rows = replaced(sound, bad, lambda row: changed(row, policy="luck"))
    path = write(tmp_path / "loop.db", rows, keep_snapshots=(200, 333, 700))
    alone, together = report_of(path), report_of(path, workers=2)
    assert alone == together
    assert failing(together)["decisions"] == bad
    assert {check.name: check.checked for check in together.checks}["snapshots"] == 3


def test_progress_is_told_now_and_then(tmp_path: Path, sound: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loop.audit.verify.PROGRESS", 300)
    heard: list[tuple[int, int]] = []
    report_of(write(tmp_path / "loop.db", sound), progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, len(sound)) for done in range(300, len(sound) + 1, 300)]


@pytest.mark.parametrize("migrated", [False, True])
@pytest.mark.parametrize("schema", range(1, SCHEMA))
def test_a_store_of_each_older_schema_verifies_before_and_after_its_migration(
    tmp_path: Path, schema: int, migrated: bool
) -> None:
    path = released(tmp_path / "loop.db", schema)
    if migrated:
        EventLog.open(path).close()
    log = EventLog.read(path)
    report = verify(log)
    assert (log.schema(), failing(report)) == (SCHEMA if migrated else schema, {})
    assert report.events == 44 + schema + migrated, "each migration appends one"
    assert {check.name: check.checked for check in report.checks}["lock_intervals"] == 4
    stored = {name for kind, name in audit.objects(log) if kind == "view"}
    assert len(stored) == (4 if migrated or schema > 1 else 0)
    log.close()


def test_a_loop_at_work_verifies(tmp_path: Path) -> None:

    project = Project(tmp_path).configure("code", "docs")
    project.loop("tick")
    project.settle()
    project.loop("start", "code")
    project.settle()
    report = report_of(project.db)
    assert failing(report) == {}
    assert {check.name: check.checked for check in report.checks}["starts_locked"] >= 3


# ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_row_is_a_gap(tmp_path: Path, sound: Rows) -> None:
    gone = at(sound, "tick.finished")
    report = report_of(write(tmp_path / "loop.db", [row for row in sound if row.position != gone]))
    rest = dict.fromkeys({"chain", "readable", *FOLDED}, gone + 1)
    assert failing(report) == {"positions": gone, **rest}
    assert "gap" in detail(report, "chain")


def test_changed_content_is_told_from_a_changed_hash(tmp_path: Path, sound: Rows) -> None:
    rows = list(sound)
    rows[499] = rows[499]._replace(actor="somebody else")
    report = report_of(write(tmp_path / "content.db", rows))
    assert failing(report) == {"chain": 500}
    assert detail(report, "chain").startswith("content: 500")

    rows = list(sound)
    rows[499] = rows[499]._replace(hash=bytes(32))
    report = report_of(write(tmp_path / "hash.db", rows))
    assert failing(report) == {"chain": 500}
    assert "link: the hash of 500 was changed" in detail(report, "chain")


def test_a_tail_from_another_log_does_not_follow(tmp_path: Path, sound: Rows) -> None:
    other = chained([sound[0]._replace(actor="another log"), *sound[1:]])
    report = report_of(write(tmp_path / "loop.db", [*sound[:500], *other[500:]]))
    assert failing(report) == {"chain": 501}
    assert detail(report, "chain").startswith("content")  # as if 501 alone: what follows is a chain of its own


def test_the_last_rows_hash_has_nothing_behind_it(tmp_path: Path, sound: Rows) -> None:
    rows = [*sound[:-1], sound[-1]._replace(hash=bytes(32))]
    report = report_of(write(tmp_path / "loop.db", rows))
    assert failing(report) == {"chain": len(rows)}
    assert "the last" in detail(report, "chain")


def test_private_text_is_in_the_chain(tmp_path: Path, sound: Rows) -> None:
    rows = [row._replace(private='{"text":"other"}') if row.position == 490 else row for row in sound]
    assert failing(report_of(write(tmp_path / "loop.db", rows))) == {"chain": 490}


@pytest.mark.parametrize("data", ["{", "[]", "null", '{"outcome":', "\ud800", "[" * 5_000])
def test_a_row_that_cannot_be_read_is_a_failed_check_and_no_traceback(tmp_path: Path, sound: Rows, data: str) -> None:
    bad = at(sound, "session.ended")
    rows = list(sound)
    rows[bad - 1] = rows[bad - 1]._replace(data="{" if data == "\ud800" else data)
    path = write(tmp_path / "loop.db", rows)
    if data == "\ud800":
        tamper(path, f"UPDATE events SET data = CAST(x'7b22ff' AS TEXT) WHERE position = {bad}")
    found = failing(report_of(path))
    assert found["chain"] == found["readable"] == bad
    assert {found[name] for name in FOLDED} == {bad}


@pytest.mark.parametrize("change", [{"type": "session.unheard"}, {"version": 9}, {"data": '{"outcome":"noop"}'}])
def test_an_event_that_no_fold_knows_is_a_failed_check(tmp_path: Path, sound: Rows, change: dict[str, Any]) -> None:
    bad = at(sound, "session.ended")
    rows = replaced(sound, bad, lambda row: row._replace(**change))
    found = failing(report_of(write(tmp_path / "loop.db", rows)))
    assert found["readable"] == bad
    assert "chain" not in found


def test_time_runs_backwards_only_where_a_clock_was_stepped(tmp_path: Path, sound: Rows) -> None:
    bad = at(sound, "tick.finished")
    earlier = "2020-01-01T00:00:00.000000Z"
    rows = replaced(sound, bad, lambda row: row._replace(at=earlier))
    assert failing(report_of(write(tmp_path / "back.db", rows))) == {"time": bad}
    rows = replaced(sound, bad, lambda row: row._replace(at="yesterday, or the day befo"))
    assert failing(report_of(write(tmp_path / "none.db", rows)))["time"] == bad


# ── the schema ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("DROP TRIGGER events_no_delete", "events_no_delete is missing"),
        ("DROP INDEX events_one_end", "events_one_end is missing"),
        ("DROP VIEW sessions", "sessions is missing"),
        ("DROP VIEW sessions; CREATE VIEW sessions AS SELECT 1", "sessions is not what loop made"),
        (
            "DROP TRIGGER events_no_update;"
            "CREATE TRIGGER events_no_update BEFORE UPDATE ON events BEGIN SELECT 1; END",
            "events_no_update is not what loop made",
        ),
        ("CREATE TRIGGER more AFTER INSERT ON events BEGIN DELETE FROM snapshots; END", "more is not of loop"),
    ],
)
def test_a_store_without_its_guards_is_named(tmp_path: Path, sound: Rows, statement: str, named: str) -> None:
    path = write(tmp_path / "loop.db", sound[:100])
    tamper(path, statement)
    report = report_of(path)
    assert failing(report) == {"triggers": None}
    assert named in detail(report, "triggers")


def test_views_and_tables_of_ones_own_are_welcome(tmp_path: Path, sound: Rows) -> None:
    path = write(tmp_path / "loop.db", sound[:100])
    tamper(path, "CREATE VIEW mine AS SELECT * FROM sessions; CREATE TABLE notes (text)")
    assert failing(report_of(path)) == {}
