"""`loop backup`: a whole copy while others write, never half of one, and a project goes on from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from events import audit
from events.catalog import NoticeSent
from events.envelope import to_text
from events.errors import StoreError, UsageError
from events.sqlite import sqlite3
from events.store import EventLog
from loop.audit.verify import verify
from loop.commands import backup
from tests.e2e.e2e_project import LOOP, Project, kill

NOTICE = NoticeSent(kind="x" * 500)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / ".loop" / "loop.db"
    appended(path, 300)
    return path


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    directory = tmp_path / "project"
    directory.mkdir()
    made = Project(directory)
    yield made
    for pid in made.helpers():
        kill(pid)


def appended(path: Path, count: int) -> None:
    log = EventLog.open(path)
    for _ in range(count // 10):
        with log.transaction() as transaction:
            for _ in range(10):
                transaction.append(NOTICE, actor="test")
    log.close()


def made(db: Path, file: Path, capsys: pytest.CaptureFixture[str], *, force: bool = False) -> dict[str, Any]:
    capsys.readouterr()
    assert backup.run(db, file, force=force, as_json=True) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_the_copy_is_an_ordinary_store_with_the_same_events(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "copy.db"
    answer = made(db, file, capsys)
    assert (answer["schema"], answer["as_of"]["position"], answer["file"]) == ("loop.backup/1", 301, str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    assert answer["bytes"] == file.stat().st_size
    theirs, ours = EventLog.read(db), EventLog.read(file)
    assert list(ours.events()) == list(theirs.events())
    report = verify(ours)
    assert report.ok
    assert answer["anchor"] == report.anchor
    assert (ours.store_id, ours.journal_mode()) == (answer["store"], "delete")
    theirs.close()
    ours.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".loop", "copy.db"]


def test_a_copy_taken_while_others_write_is_that_of_one_instant(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    @contextmanager
    def writing(word: str) -> Iterator[Callable[[int, int], None]]:
        """Others append between the first pages of the copy."""

        def hear(done: int, total: int) -> None:
            nonlocal calls
            calls += 1
            if calls <= 3:
                appended(db, 10)

        yield hear

    monkeypatch.setattr("events.store.COPY_PAGES", 1)
    monkeypatch.setattr(backup, "progress", writing)
    assert made(db, tmp_path / "copy.db", capsys)["as_of"]["position"] == 301
    assert calls > 3
    copy, log = EventLog.read(tmp_path / "copy.db"), EventLog.read(db)
    assert (verify(copy).ok, copy.head().position, log.head().position) == (True, 301, 331)
    copy.close()
    log.close()


def test_what_is_there_is_replaced_only_by_force(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "copy.db"
    file.write_text("dear")
    with pytest.raises(UsageError, match="is there already"):
        made(db, file, capsys)
    assert file.read_text() == "dear"
    made(db, file, capsys, force=True)
    assert EventLog.read(file).head().position == 301


@pytest.mark.parametrize("place", ["nowhere/copy.db", "directory", ".loop/loop.db", "other/loop.db"])
def test_a_place_that_is_none_is_refused_even_by_force(
    db: Path, tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "directory").mkdir()
    used = EventLog.open(tmp_path / "other" / "loop.db")
    before = (db.read_bytes(), (tmp_path / "other" / "loop.db").read_bytes())
    with pytest.raises(UsageError):
        made(db, tmp_path / place, capsys, force=True)
    assert (db.read_bytes(), (tmp_path / "other" / "loop.db").read_bytes()) == before
    used.close()


def test_without_a_store_there_is_nothing_to_back_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="no store"):
        made(tmp_path / ".loop" / "loop.db", tmp_path / "copy.db", capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_store_gives_no_backup_and_leaves_the_old_one(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "copy.db"
    made(db, file, capsys)
    kept = file.read_bytes()
    hostile = sqlite3.connect(db)
    hostile.execute("DROP TRIGGER events_no_update")
    hostile.execute("UPDATE events SET at = ? WHERE position = 7", (to_text(7),))
    hostile.commit()
    hostile.close()
    with pytest.raises(StoreError, match=r"not sound.*7 was changed"):
        made(db, file, capsys, force=True)
    assert file.read_bytes() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == [".loop", "copy.db"]


def test_a_copy_that_lacks_a_row_is_no_backup(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = EventLog.copy_to

    def lossy(log: EventLog, draft: Path, progress: object = None) -> None:
        real(log, draft)
        copy = sqlite3.connect(draft)
        copy.execute("DROP TRIGGER events_no_delete")
        copy.execute("DELETE FROM events WHERE position = 301")
        copy.commit()
        copy.close()

    monkeypatch.setattr(EventLog, "copy_to", lossy)
    with pytest.raises(StoreError, match="it ends at 300, not at 301"):
        made(db, tmp_path / "copy.db", capsys)
    assert [path.name for path in tmp_path.iterdir()] == [".loop"]


def test_a_disk_without_room_is_one_clear_error_and_leaves_the_old_backup(db: Path, tmp_path: Path) -> None:
    (tmp_path / "loop.toml").write_text('[selector]\nbuiltin = true\n[categories.code]\ncommand = ["true"]\n')
    file = tmp_path / "copy.db"
    file.write_text("the last good one")
    limited = (
        "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *LOOP, "backup", str(file), "--force"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "space" in done.stderr
    assert file.read_text() == "the last good one"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".copy")] == []


def test_a_project_goes_on_from_a_restored_backup(project: Project, tmp_path: Path) -> None:
    """As the docs say: end what runs, put the copy in the place of the store and what belongs to it, look, go on."""
    copy = tmp_path / "fleet.db"
    project.configure("code", slots=1, env={"SAY": '{"outcome": "noop"}', "NAP": "0"})
    project.loop("tick")
    project.settle()
    told = project.json("backup", str(copy))
    kept = project.events()
    for name in ("loop.db", "loop.db-wal", "loop.db-shm"):
        (project.db.parent / name).unlink(missing_ok=True)
    assert "was lost or moved" in project.loop("status", code=1).stderr
    shutil.copy(copy, project.db)
    assert project.events() == kept
    assert project.json("verify", "--anchor", told["anchor"])["ok"]
    project.loop("start", "code")
    project.settle()
    assert len(project.events("session.ended")) == 2
    assert project.events()[: len(kept)] == kept
    project.assert_sound()
    project.json("verify")


def test_an_interrupted_backup_leaves_the_file_as_it_was(
    db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "copy.db"
    file.write_text("the last good one")
    monkeypatch.setattr(audit, "damage", lambda log: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        made(db, file, capsys, force=True)
    assert file.read_text() == "the last good one"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".loop", "copy.db"]
