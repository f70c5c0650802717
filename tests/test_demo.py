"""`loop demo`: its project is sound, its scripts are honest, its figures come from the log, and it cleans up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from events.errors import LoopError, UsageError
from events.store import EventLog
from loop import demo
from loop.config_file import load
from loop.home import Home
from loop.selector import Ranking, parse
from loop.sessions.outcome import Malformed, OutcomeFile, read_outcome_file

CLI = [sys.executable, str(Path(__file__).resolve().parent.parent / "cli.py")]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return demo.prepare(tmp_path / "demo", datetime(2026, 11, 23, 12, 0, tzinfo=UTC))


def environ(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")} | more


def session(home: Home, category: str, task: str = "", backend: str = "large-1") -> OutcomeFile:
    """Run one session by hand and return what it says."""
    outcome = home.root / "outcome.json"
    outcome.unlink(missing_ok=True)
    argv = [sys.executable, "session.py", category, task, backend]
    subprocess.run(argv, cwd=home.root, env=environ(LOOP_OUTCOME=str(outcome)), check=True, capture_output=True)
    found = read_outcome_file(str(outcome))
    assert isinstance(found, OutcomeFile), found if isinstance(found, Malformed) else "no outcome file"
    return found


def answer(home: Home) -> Ranking:
    done = subprocess.run(
        [sys.executable, "selector.py"], cwd=home.root, env=environ(), check=True, capture_output=True
    )
    ranking = parse(done.stdout)
    assert isinstance(ranking, Ranking), ranking
    return ranking


# ── the project ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_config_is_the_fleet_of_the_article(home: Home) -> None:
    config = load(home.config)
    assert config.loop.slots == 6
    assert len(config.categories) == 10
    assert [name for name, category in config.categories.items() if category.parallel is False] == ["cleanup"]
    assert sum(category.target or 0 for category in config.categories.values()) == pytest.approx(1)
    assert list(config.backends) == list(demo.BACKENDS)
    assert len({config.pool_of(name) for name in config.backends}) == 18


def test_it_never_writes_into_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        demo.prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# ── the scripts ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_answer_is_a_task_with_alternatives_for_every_slot(home: Home) -> None:
    ranking = answer(home)
    assert (ranking.tier, ranking.entries[0].rule) == (1, "selected")
    assert ranking.entries[0].task
    assert {entry.rule for entry in ranking.entries[1:]} == {"diversity_alternatives"}
    assert {entry.category for entry in ranking.entries} == set(load(home.config).categories)


def test_without_an_open_task_the_answer_is_a_score_for_every_category(home: Home) -> None:
    for task in (home.root / "tasks").iterdir():
        task.unlink()
    ranking = answer(home)
    assert ranking.tier == 3
    assert {entry.rule for entry in ranking.entries} == {"all_scores"}
    assert len(ranking.entries) == 10
    assert ranking.entries[-1].category == "cleanup"


def test_a_session_reads_notes_and_is_graded_by_what_it_found(home: Home) -> None:
    found = session(home, "content")
    notes = list((home.root / "notes" / "content").iterdir())
    empty = sum(note.read_text() == "nothing\n" for note in notes)
    assert found.outcome == "productive"
    assert found.grade == pytest.approx(1 - empty / len(notes), abs=0.01)


def test_a_task_is_done_first_and_closed(home: Home) -> None:
    path = min((home.root / "tasks").iterdir())
    task = json.loads(path.read_text())
    session(home, task["category"], path.stem)
    assert (home.root / "notes" / task["category"] / f"{task['file']}.txt").exists()
    assert not path.exists()


def test_a_session_that_finds_nothing_says_noop(home: Home) -> None:
    for path in (home.root / "material").iterdir():
        path.write_text("x = 1\n")
    assert session(home, "cleanup").outcome == "noop"


def test_a_changed_file_is_noticed(home: Home) -> None:
    path = min((home.root / "material").iterdir())
    path.write_text("x = 1\n")
    session(home, "monitoring")
    assert "CHANGED" in (home.root / "notes" / "monitoring" / f"{path.name}.txt").read_text()


def test_a_used_up_account_is_said_with_its_reset(home: Home) -> None:
    found = session(home, "code", backend=demo.USED_UP[0])
    assert (found.outcome, found.resets_at) == ("limited", "2026-11-23T18:00:00.000000Z")
    assert not (home.root / "notes").exists()


def test_two_sessions_of_one_category_would_not_go_unnoticed(home: Home) -> None:
    argv = [sys.executable, "session.py", "code", "", "large-1"]
    first = subprocess.Popen(argv, cwd=home.root, env=environ(LOOP_OUTCOME="first.json"), stdout=subprocess.PIPE)
    assert first.stdout is not None
    first.stdout.readline()  # it is at work
    assert session(home, "code").outcome == "failed"
    assert first.wait(30) == 0
    first.stdout.close()


# ── what it shows ─────────────────────────────────────────────────────────────────────────────────────────────────────


def a_report(**more: Any) -> dict[str, Any]:
    items = [
        {"name": name, "state": "limited" if name in demo.USED_UP else "available"} for name in demo.BACKENDS
    ]
    return {
        "slots": {"capacity": 6, "peak": 6},
        "violations": {"same_lock": 0, "of": 41},
        "backends": {"available": 16, "total": 18, "items": items},
        "noop": {"count": 1, "of": 20, "unproven": 2},
        "selection": {"followed": {"count": 30, "of": 31}},
        **more,
    }


def missing(report: Mapping[str, Any], unused: Iterable[str] = ()) -> list[str]:
    return list(demo._missing(report, set(unused)))


def test_when_all_has_happened_nothing_is_missing() -> None:
    assert missing(a_report()) == []


@pytest.mark.parametrize(
    ("report", "unused", "text"),
    [
        (a_report(slots={"capacity": 6, "peak": 5}), set(), "never all in use"),
        (a_report(slots={"capacity": None, "peak": None}), set(), "never all in use"),
        (a_report(), {"large-3"}, "never used: large-3"),
        (a_report(backends={"items": []}), set(), "not known to be used up: medium-6, small-3"),
        (a_report(noop={"of": 19}), set(), "only 19"),
    ],
)
def test_what_did_not_happen_is_said(report: dict[str, Any], unused: set[str], text: str) -> None:
    (said,) = missing(report, unused)
    assert text in said


def test_every_figure_has_the_denominator_of_the_status() -> None:
    told = dict(demo.figures(a_report()))
    assert told["peak concurrency"] == "6 of 6 slots"
    assert told["same-lock violations"] == "0 in 41 locks taken"
    assert told["available backends"] == "16 of 18"
    assert told["NOOP sessions"].startswith("1 of the last 20 assessed, 2 unproven")
    assert told["selector's intent"].startswith("30 of 31 ")


def test_a_controller_that_ends_by_itself_is_an_error_with_its_log(home: Home) -> None:
    controller = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    controller.wait(30)
    with pytest.raises(LoopError, match="exit code 7") as raised:
        demo.watch(home, controller, 30)
    assert "run.log" in raised.value.hint


def test_a_session_cannot_start_a_demo() -> None:
    done = subprocess.run([*CLI, "demo"], env=environ(LOOP_SESSION="sabc"), capture_output=True, text=True, check=False)
    assert done.returncode == 6
    assert "inside session" in done.stderr


# ── the real thing ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_its_controller_and_says_where_things_are(number: int, tmp_path: Path) -> None:
    where = tmp_path / "demo"
    running = subprocess.Popen(
        [*CLI, "demo", "--directory", str(where)],
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not (where / "run.log").exists() or "controller" not in (where / "run.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid, number)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, (out, err)
    assert f"-C {where} status" in out
    log = EventLog.read(where / ".loop" / "loop.db")
    assert any(event.type == "controller.stopped" for event in log.events(0))
    log.close()
    subprocess.run([*CLI, "-C", str(where), "drain", "--wait"], env=environ(), check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_whole_demo_reaches_every_figure(tmp_path: Path) -> None:
    where = tmp_path / "demo"
    done = subprocess.run(
        [*CLI, "demo", "--seconds", "5", "--directory", str(where)],
        env=environ(NO_COLOR="1"),
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    told = done.stdout.partition("what this log says:")[2]
    assert re.search(r"peak concurrency +6 of 6", told)
    assert re.search(r"same-lock violations +0 in \d\d", told)
    assert re.search(r"available backends +16 of 18", told)
    assert re.search(r"NOOP sessions +\d+ of the last 20", told)
    assert "selection: tier 1" in done.stdout
    status = subprocess.run(
        [*CLI, "-C", str(where), "status", "--json"], env=environ(), check=True, capture_output=True, text=True
    )
    report = json.loads(status.stdout)
    assert report["sessions"]["live"] == []
    assert report["mode"] == "running"
