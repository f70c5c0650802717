"""The state directory taken away, or its store replaced, while `loop run` works: it stops, starts nothing and
keeps the log; later commands refuse until somebody has put it back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from events.catalog import NoticeSent
from events.errors import StoreError, StoreGone
from events.place import mark_of
from events.sqlite import sqlite3
from events.store import EventLog
from tests.e2e.e2e_project import Project, wait_until

NOTICE = NoticeSent(kind="test")


def other_store(directory: Path) -> Path:
    """The sound log of another project."""
    log = EventLog.open(directory / "other" / "loop.db")
    for _ in range(3):
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="other")
    log.close()
    return directory / "other" / "loop.db"


def remove(project: Project) -> None:
    shutil.rmtree(project.db.parent)


def remove_the_file(project: Project) -> None:
    project.db.unlink()


def replace(project: Project) -> None:
    os.replace(other_store(project.directory), project.db)


FATES = [remove, remove_the_file, replace]


def settle(project: Project) -> None:
    """Passes by hand until the two sessions of `controller` have come to their recorded ends."""
    project.loop("pause")

    def ended() -> bool:
        project.loop("tick")
        return not project.status()["sessions"]["live"]

    wait_until(ended, what="the ends of the sessions")


@pytest.fixture
def controller(project: Project) -> Iterator[subprocess.Popen[str]]:
    """`loop run` with two sessions that it started and that go on; its next fire is an hour away."""
    project.configure("code", "news", slots=2, env={"NAP": "3"})
    running = project.spawn("run")
    wait_until(lambda: len(project.starts()) == 2, what="the first fire")
    wait_until(lambda: project.events("tick.finished"), what="the end of the first pass")
    yield running
    running.kill()
    running.communicate()


@pytest.mark.parametrize("fate", FATES)
def test_run_stops_and_keeps_every_acknowledged_event(
    project: Project, controller: subprocess.Popen[str], fate: object
) -> None:
    assert callable(fate)
    controller.send_signal(signal.SIGSTOP)  # so that what is acknowledged is known
    acknowledged = project.events()
    fate(project)
    controller.send_signal(signal.SIGCONT)
    _, errors = controller.communicate(timeout=20)
    assert controller.returncode == 1
    assert "removed or replaced while it was open" in errors
    assert "Traceback" not in errors
    [rescued] = project.db.parent.glob("rescued-*.db")
    assert str(rescued) in errors
    assert rescued.stat().st_mode & 0o777 == 0o600

    for command in (["status"], ["log"], ["plan"], ["tick"], ["run"], ["verify"]):
        refused = project.loop(*command, code=1)
        assert str(rescued) in refused.stderr, command
    assert project.loop("doctor", code=1)
    assert len(project.starts()) == 2, "nothing was started on no log"

    for left in project.db.parent.glob("loop.db-*"):
        left.unlink()
    os.replace(rescued, project.db)
    assert project.events()[: len(acknowledged)] == acknowledged
    settle(project)
    project.json("verify")


def test_a_session_whose_run_directory_went_too_is_lost_once_it_is_over_and_never_doubled(
    project: Project, controller: subprocess.Popen[str]
) -> None:
    remove(project)
    controller.communicate(timeout=20)
    [rescued] = project.db.parent.glob("rescued-*.db")
    os.replace(rescued, project.db)
    settle(project)
    lost = {event["session"]: event["data"]["why"] for event in project.events("session.lost")}
    assert lost == {line[0]: "run_directory_missing" for line in project.starts()[:2]}
    project.assert_sound()


def test_a_new_log_is_not_begun_while_sessions_of_the_old_one_run(project: Project) -> None:
    """Without `loop run` nobody has the log open; what still runs is the only trace of it."""
    project.configure("code", slots=1, env={"NAP": "30"}).loop("tick")
    wait_until(lambda: len(project.starts()) == 1)
    remove(project)
    for command in (["tick"], ["start", "code"]):
        error = project.json(*command, code=1)["error"]
        assert "of a session that it had started" in error["message"]
    assert not project.db.exists()
    assert len(project.starts()) == 1


# ── the log itself ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_whose_file_was_overwritten_says_so(tmp_path: Path) -> None:
    """`cp other.db loop.db`: the same file by name and inode, and a connection that still remembers the old pages."""
    path = tmp_path / "loop.db"
    log = EventLog.open(path)
    for _ in range(50):
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
    log._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with log.transaction():
        pass
    shutil.copyfile(other_store(tmp_path), path)
    with pytest.raises(StoreGone, match="overwritten") as caught, log.transaction() as transaction:
        transaction.append(NOTICE, actor="test")
    assert "backup" in caught.value.hint
    with pytest.raises(StoreGone, match="overwritten"):
        log.check_in_place()
    log.close()
    with pytest.raises(StoreError, match="the log was replaced"):
        EventLog.open(path)


def test_checkpoints_by_others_are_no_overwriting(tmp_path: Path) -> None:
    log = EventLog.open(tmp_path / "loop.db")
    for _ in range(5):
        with log.transaction() as transaction:
            transaction.append(NOTICE, actor="test")
        other = sqlite3.connect(tmp_path / "loop.db")
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        other.close()
        log.check_in_place()
    assert log.head().position == 6
    log.close()


@pytest.mark.parametrize("opening", [EventLog.open, EventLog.read])
def test_another_store_in_the_place_of_this_one_is_refused_until_it_is_meant(tmp_path: Path, opening: object) -> None:
    assert callable(opening)
    path = tmp_path / "loop.db"
    EventLog.open(path).close()
    os.replace(other_store(tmp_path), path)
    with pytest.raises(StoreError, match="belongs there: the log was replaced") as caught:
        opening(path)
    assert str(mark_of(path)) in caught.value.hint
    mark_of(path).unlink()
    opening(path).close()


@pytest.mark.parametrize("opening", [EventLog.open, EventLog.read])
def test_a_store_cut_to_nothing_is_a_loss_and_no_beginning(tmp_path: Path, opening: object) -> None:
    assert callable(opening)
    path = tmp_path / "loop.db"
    EventLog.open(path).close()
    os.truncate(path, 0)
    for _ in range(2):
        with pytest.raises(StoreError, match="is empty"):
            opening(path)
