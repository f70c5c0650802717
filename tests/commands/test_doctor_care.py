"""`loop doctor` on a store that was used: what it finds is brought about for real, and `--fix` mends what is safe."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.catalog import LoopPaused
from events.clock import Clock, SystemClock
from events.sqlite import sqlite3
from events.store import EventLog
from loop.commands import doctor
from loop.doctor import state_directory
from loop.doctor.check import Check
from loop.home import Home, at
from loop.sessions import proc
from tests.e2e.e2e_project import Project, wait_until

ENVIRON = {"PATH": os.environ["PATH"]}
DAY = 86_400_000_000
NOOP = {"SAY": '{"outcome": "noop"}', "NAP": "0"}


class Shifted(SystemClock):
    """The machine's clocks, but a wall clock that is off."""

    def __init__(self, microseconds: int) -> None:
        self.off = microseconds

    def now(self) -> int:
        return super().now() + self.off


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Project(directory)
    yield made
    made.end()


@pytest.fixture
def used(project: Project) -> Project:
    """A project in which one session has run."""
    project.configure("code", slots=1, env=NOOP).loop("tick")
    project.settle()
    return project


def home_of(project: Project) -> Home:
    return at(project.directory / "loop.toml")


def found(project: Project, name: str, clock: Clock | None = None) -> Check:
    checks = doctor.examine(home_of(project), None, ENVIRON, clock or SystemClock()).checks
    return next(check for check in checks if check.name == name)


def mended(project: Project, name: str, clock: Clock | None = None) -> str:
    """What `--fix` says about one check, which has a mend."""
    return doctor._mended(found(project, name, clock))


# ── the store ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("guard", ["TRIGGER events_no_update", "TRIGGER events_no_gap", "INDEX events_one_end"])
def test_a_dropped_guard_is_told_and_made_anew(used: Project, guard: str) -> None:
    assert found(used, "triggers").level == "ok"
    hostile = sqlite3.connect(used.db)
    hostile.execute(f"DROP {guard}")
    hostile.commit()
    check = found(used, "triggers")
    assert (check.level, guard.split()[1] in check.detail) == ("fail", True)
    used.loop("doctor", "--fix")
    assert found(used, "triggers").level == "ok"
    with pytest.raises(sqlite3.DatabaseError, match="append-only"):
        hostile.execute("UPDATE events SET actor = 'me'")
    hostile.close()
    used.json("verify")


def test_a_guard_that_was_changed_is_put_right(used: Project) -> None:
    hostile = sqlite3.connect(used.db)
    hostile.execute("DROP TRIGGER events_no_update")
    hostile.execute("CREATE TRIGGER events_no_update BEFORE UPDATE ON events WHEN 0 BEGIN SELECT 1; END")
    hostile.commit()
    hostile.close()
    assert found(used, "triggers").level == "fail"
    assert "made events_no_update anew" in mended(used, "triggers")
    assert found(used, "triggers").level == "ok"


def test_another_journal_mode_is_told_and_set_right(used: Project) -> None:
    hostile = sqlite3.connect(used.db)
    assert hostile.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    hostile.close()
    check = found(used, "sqlite")
    assert (check.level, "journal mode delete" in check.detail) == ("warn", True)
    mended(used, "sqlite")
    assert found(used, "sqlite").level == "ok"


def test_a_long_write_ahead_log_is_written_back_once_its_reader_has_gone(
    used: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_directory, "WAL_LIMIT", 0)
    reader = sqlite3.connect(used.db, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    log = EventLog.open(used.db)
    with log.transaction() as transaction:
        transaction.append(LoopPaused(), actor="test")
    assert found(used, "wal").level == "warn"
    monkeypatch.setattr("events.store.BUSY_SECONDS", 0.1)
    assert "a reader still keeps it" in mended(used, "wal")
    reader.close()
    assert mended(used, "wal") == "wal: written back"
    assert found(used, "wal").level == "ok"
    log.close()


def test_a_clock_behind_the_log_is_told(used: Project) -> None:
    assert found(used, "clock").level == "ok"
    check = found(used, "clock", Shifted(-DAY))
    assert (check.level, "behind the newest event" in check.detail) == ("fail", True)
    assert "cannot be" in found(used, "clock", Shifted(-20_000 * DAY)).detail


def test_a_clock_that_was_set_back_today_is_told(used: Project) -> None:
    log = EventLog.open(used.db, clock=Shifted(-DAY // 24))
    with log.transaction() as transaction:
        transaction.append(LoopPaused(), actor="test")
    log.close()
    check = found(used, "clock")
    assert (check.level, "set back 1 times" in check.detail) == ("warn", True)


# ── locks and sessions ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_lock_held_by_a_stranger_is_told_with_its_process(used: Project) -> None:
    assert found(used, "held_locks").level == "ok"
    lock = used.db.parent / "locks" / "code.lock"
    script = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, 2); print(1, flush=True); time.sleep(60)"
    argv = [sys.executable, "-c", script, str(lock)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as stranger:
        assert stranger.stdout is not None
        stranger.stdout.readline()
        check = found(used, "held_locks")
        assert (check.level, check.fix) == ("fail", f"see what it is, then end it: kill {stranger.pid}")
        assert "code by process" in check.detail
        stranger.kill()
    assert found(used, "held_locks").level == "ok"


def test_a_live_session_holds_its_lock_by_right(project: Project) -> None:
    project.configure("code", slots=1, env={"NAP": "30"}).loop("tick")
    wait_until(lambda: project.starts())
    assert found(project, "held_locks").detail == "1 held, each by a session that lives"
    assert found(project, "live_sessions").level == "ok"


def test_a_session_that_died_with_its_shim_is_told_and_buried(project: Project) -> None:
    project.configure("code", slots=1, env={"NAP": "30"}).loop("tick")
    wait_until(lambda: project.starts())
    [session] = project.status()["sessions"]["live"]
    for pid in [*project.helpers(), *proc.marked(str(project.db.parent / "runs" / session["id"]))]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not project.helpers() and not proc.marked(str(project.db.parent / "runs" / session["id"])))
    check = found(project, "live_sessions")
    assert (check.level, session["id"] in check.detail) == ("warn", True)
    project.loop("doctor", "--fix")
    assert found(project, "live_sessions").detail == "none lives"
    assert [event["session"] for event in project.events("session.lost")] == [session["id"]]


def test_a_store_restored_from_an_older_copy_is_told_and_set_going(used: Project, tmp_path: Path) -> None:
    """The locks have seen tokens that the log does not have, and session ids will come again."""
    copy = tmp_path / "copy.db"
    used.loop("backup", str(copy))
    used.loop("start", "code")
    used.settle()
    for end in ("", "-wal", "-shm"):
        Path(f"{used.db}{end}").unlink(missing_ok=True)
    shutil.copy(copy, used.db)
    assert found(used, "witnesses").level == "fail"
    assert found(used, "run_directories").level == "warn"
    used.loop("start", "code", code=None)
    assert len(used.starts()) == 2, "the key is refused to a token that it has seen"
    used.settle()
    used.loop("doctor", "--fix")
    assert (found(used, "witnesses").level, found(used, "run_directories").level) == ("ok", "ok")
    used.loop("start", "code")
    used.settle()
    assert len(used.starts()) == 3
    used.json("verify")


def test_a_lock_file_is_not_renewed_while_a_session_runs(used: Project) -> None:
    lock = used.db.parent / "locks" / "code.lock"
    with lock.open("a") as file:
        file.write("A 99999 sfuture boot 1 1 1\n")
    before = lock.stat().st_ino
    environ = {**ENVIRON, "LOOP_RUN_DIR": str(used.db.parent / "runs" / "sfuture")}
    with subprocess.Popen(["sleep", "60"], env=environ) as session:
        assert f"left alone: process {session.pid}" in mended(used, "witnesses")
        assert lock.stat().st_ino == before
        session.kill()
    mended(used, "witnesses")
    assert lock.stat().st_ino != before


# ── what sessions left ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_directory_that_nobody_knows_is_moved_aside_unless_somebody_is_about_it(used: Project) -> None:
    stranger = used.db.parent / "runs" / "sstranger"
    stranger.mkdir(mode=0o700)
    (stranger / "out.log").write_text("dear")
    with subprocess.Popen(["sleep", "60"], env={**ENVIRON, "LOOP_SESSION": "sstranger"}) as session:
        assert f"process {session.pid} is about it" in mended(used, "run_directories")
        session.kill()
    used.loop("doctor", "--fix")
    assert found(used, "run_directories").level == "ok"
    assert (used.db.parent / "orphaned" / "sstranger" / "out.log").read_text() == "dear"


def test_output_beyond_its_time_is_told_and_removed(used: Project) -> None:
    [run_dir] = used.run_dirs()
    assert found(used, "retention").level == "ok"
    later = Shifted(31 * DAY)
    check = found(used, "retention", later)
    assert (check.level, "1 of them are to be removed" in check.detail) == ("warn", True)
    assert "removed the output of 1 sessions" in mended(used, "retention", later)
    assert not run_dir.exists()
    assert found(used, "retention", later).level == "ok"


# ── the config, tried ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_selector_must_answer_and_is_told_that_nothing_comes_of_it(project: Project) -> None:
    project.configure("code", selector=project.select('{"all_scores": {"code": 1}}'))
    script = project.directory / "selector.sh"
    script.write_text('#!/bin/sh\n[ "$LOOP_DRY_RUN" = 1 ] && cat answer.json\n')
    check = found(project, "selector_answer")
    assert (check.level, check.detail.startswith("ranks code in ")) == ("ok", True)
    assert not project.db.exists()


@pytest.mark.parametrize(
    ("payload", "level", "says"),
    [("no JSON at all", "fail", "not_json"), ('{"all_scores": 3}', "fail", "all_scores"), ("", "fail", "rejected"),
     ('{"all_scores": {"strange": 1}}', "warn", "none of them"), ('{"all_scores": {}}', "ok", "ranks nothing")],
)  # fmt: skip
def test_what_a_selector_answers_is_judged_as_by_a_pass(project: Project, payload: str, level: str, says: str) -> None:
    project.configure("code", selector=project.select(payload))
    check = found(project, "selector_answer")
    assert (check.level, says in check.detail) == (level, True), check


def test_a_selector_that_hangs_is_a_failure(project: Project) -> None:
    project.configure("code", selector=project.select("{}") + '\ntimeout = "200ms"')
    (project.directory / "selector.sh").write_text("#!/bin/sh\nsleep 30\n")
    begun = time.monotonic()
    check = found(project, "selector_answer")
    assert (check.level, "timeout" in check.detail) == ("fail", True)
    assert time.monotonic() - begun < 10


def test_targets_that_cannot_be_met_are_told(project: Project) -> None:
    project.configure("code", "news", slots=2)
    assert found(project, "feasible").level == "ok"
    project.edit("[categories.code]", "[categories.code]\ntarget = 0.9")
    project.edit("[categories.news]", "[categories.news]\ntarget = 0.1")
    check = found(project, "feasible")
    assert (check.level, "code" in check.detail) == ("warn", True)


def test_sessions_that_share_a_work_tree_are_told(project: Project) -> None:
    project.configure("code", "news", slots=2)
    assert found(project, "work_trees").level == "ok", "there is no git"
    subprocess.run(["git", "init", "-q", project.directory], check=True)
    check = found(project, "work_trees")
    assert (check.level, f"code and news in {project.directory}" in check.detail) == ("warn", True)
    place = found(project, "state_place")
    assert (place.level, "git clean" in place.detail) == ("warn", True)


@pytest.mark.parametrize(
    ("code", "news"),
    [('locks = ["tree"]', 'locks = ["tree"]'), ('parallel = "alone"', ""), ('cwd = "work/{session}"', ""),
     ('cwd = "work/{category}"', "")],
)  # fmt: skip
def test_those_that_keep_apart_are_not(project: Project, code: str, news: str) -> None:
    project.configure("code", "news", slots=2)
    project.edit("[categories.code]", f"[categories.code]\n{code}")
    project.edit("[categories.news]", f"[categories.news]\n{news}")
    subprocess.run(["git", "init", "-q", project.directory], check=True)
    (project.directory / "work" / "code").mkdir(parents=True)
    subprocess.run(["git", "init", "-q", project.directory / "work" / "code"], check=True)
    assert found(project, "work_trees").level == "ok"


def test_lanes_of_one_category_share_its_work_tree(project: Project) -> None:
    project.configure("code", slots=2, category='command = ["./agent.sh"]\nlanes = 2')
    subprocess.run(["git", "init", "-q", project.directory], check=True)
    assert "the lanes of code" in found(project, "work_trees").detail
