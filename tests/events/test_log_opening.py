"""Opening: who may, what a reader is, and one clear error for everything that can be wrong with a file."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from events import store
from events.catalog import LoopPaused, NoticeSent
from events.clock import Clock
from events.errors import LoopError, StoreBusy, StoreError, StoreTooNew
from events.sqlite import sqlite3, sqlite_version, wal_is_safe
from events.store import EventLog, Filter
from migrations import SCHEMA

NOTICE = NoticeSent(kind="test")
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store would be."""
    return tmp_path / ".loop" / "loop.db"


@pytest.fixture
def made(path: Path) -> Path:
    """A closed store with three events."""
    with_events(path, 2)
    return path


def with_events(path: Path, count: int) -> None:
    log = EventLog.open(path)
    with log.transaction() as transaction:
        for _ in range(count):
            transaction.append(NOTICE, actor="test")
    log.close()


def append(log: EventLog, payload: Any = NOTICE) -> None:
    with log.transaction() as transaction:
        transaction.append(payload, actor="test")


def run(script: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """A Python process that finds our modules wherever it runs."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        **options,
    )


# ── readers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_missing_store_reads_as_an_empty_log_and_stays_missing(path: Path) -> None:
    log = EventLog.read(path)
    assert list(log.events()) == []
    assert (log.head().position, log.head().at, log.store_id) == (0, None, "")
    assert not path.parent.exists()


def test_a_file_that_nobody_has_migrated_yet_reads_as_an_empty_log(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert EventLog.read(path).head().position == 0


def test_a_reader_cannot_write(made: Path) -> None:
    reader = EventLog.read(made)
    with pytest.raises(StoreError, match=str(made)):
        append(reader)
    with pytest.raises(StoreError):
        reader.save_snapshot("v", 1, b"x")
    reader._connection.execute("PRAGMA query_only = OFF")
    with pytest.raises(StoreError, match="readonly"):  # by the way it was opened too
        append(reader)
    assert reader.head().position == 3
    assert EventLog.read(made).head().position == 3


def test_a_reader_holds_no_transaction_between_two_pages(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("events.store.PAGE", 2)
    reader = EventLog.read(made)
    reading = reader.events()
    assert next(reading).position == 1
    writer = EventLog.open(made)
    append(writer)
    [busy, _, _] = sqlite3.connect(made).execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0, "the reader pins the write-ahead log"
    assert [event.position for event in reading] == [2, 3, 4]
    writer.close()


def test_a_reader_and_a_writer_do_not_wait_for_each_other(made: Path) -> None:
    writer, reader = EventLog.open(made), EventLog.read(made)
    with writer.transaction() as transaction:
        transaction.append(NOTICE, actor="test")
        assert reader.head().position == 3
    assert reader.head().position == 4
    writer.close()


def test_a_reader_reads_an_older_schema_without_migrating_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = made.read_bytes()
    monkeypatch.setattr(store, "SCHEMA", SCHEMA + 1)
    reader = EventLog.read(made)
    assert reader.head().position == 3
    reader.close()
    assert made.read_bytes() == before


# ── what can be wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["open", "read"])
def opening(request: pytest.FixtureRequest) -> Callable[[Path], EventLog]:
    opening: Callable[[Path], EventLog] = getattr(EventLog, request.param)
    return opening


def test_a_newer_schema_is_refused(made: Path, opening: Callable[[Path], EventLog]) -> None:
    connection = sqlite3.connect(made)
    connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    connection.close()
    with pytest.raises(StoreTooNew, match=f"schema {SCHEMA + 1}") as caught:
        opening(made)
    assert "upgrade" in caught.value.hint


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, opening: Callable[[Path], EventLog]) -> None:
    path.parent.mkdir()
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(StoreError, match=str(path)) as caught:
        opening(path)
    assert "backup" in caught.value.hint
    assert path.read_text().startswith("Dear diary")
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("mark", ["", "PRAGMA application_id = 252006", "PRAGMA user_version = 1"])
def test_a_database_of_another_program_is_refused_and_left_alone(
    path: Path, opening: Callable[[Path], EventLog], mark: str
) -> None:
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.executescript(f"CREATE TABLE theirs (x); {mark}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        opening(path)
    assert path.read_bytes() == before


def test_a_directory_in_the_place_of_the_store_is_one_clear_error(
    path: Path, opening: Callable[[Path], EventLog]
) -> None:
    path.mkdir(parents=True)
    with pytest.raises(StoreError, match=str(path)):
        opening(path)


@pytest.mark.parametrize("trace", ["locks", "runs"])
def test_a_store_missing_beside_its_traces_is_a_loss_and_no_beginning(
    path: Path, opening: Callable[[Path], EventLog], trace: str
) -> None:
    (path.parent / trace).mkdir(parents=True)
    opening(path).close()  # an empty directory is no trace
    path.unlink(missing_ok=True)
    (path.parent / trace / "something").touch()
    with pytest.raises(StoreError, match="missing") as caught:
        opening(path)
    assert "backup" in caught.value.hint
    assert not path.exists()


def test_a_damaged_file_is_an_error_of_the_store_whatever_is_asked(path: Path) -> None:
    log = EventLog.open(path)
    for _ in range(5):
        append(log, LoopPaused(reason="x" * 20_000))
    log.close()
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 32768", "VACUUM"):
        connection.execute(statement)  # now the schema is page 1 and no other
    connection.close()
    size = path.stat().st_size
    with path.open("r+b") as file:  # the schema survives, the tables do not
        file.seek(32_768)
        file.write(b"\xa5" * (size - 32_768))
    reader = EventLog.read(path)
    for ask in (
        reader.head,
        lambda: reader.at(1),
        lambda: reader.position_at("2026"),
        lambda: list(reader.events()),
        lambda: reader.select(Filter()),
        lambda: reader.ids("e"),
        lambda: reader.store_id,
        lambda: reader.worker_pids(["s1"]),
        lambda: reader.load_snapshot("v", 1),
    ):
        with pytest.raises(StoreError, match=str(path)) as caught:
            ask()
        assert "backup" in caught.value.hint


def test_a_position_that_is_not_there_is_named(made: Path) -> None:
    with pytest.raises(StoreError, match="position 4"):
        EventLog.read(made).at(4)


@pytest.mark.parametrize("fate", ["removed", "replaced"])
def test_a_store_that_went_away_under_a_writer_takes_no_more_events(made: Path, tmp_path: Path, fate: str) -> None:
    """The open file would take them, and nobody would ever read them."""
    log = EventLog.open(made)
    append(log)
    if fate == "removed":
        os.rename(made, tmp_path / "away.db")
    else:
        other = tmp_path / "other" / "loop.db"
        with_events(other, 1)
        os.replace(other, made)
    with pytest.raises(StoreError, match="removed or replaced"):
        append(log)
    log.close()


# ── rights ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_only_the_owner_may_look(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        log = EventLog.open(path)
        append(log)
        names = {file.name: mode(file) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert mode(path.parent) == 0o700
    assert names.keys() >= ({"loop.db", "loop.db-wal", "loop.db-shm"} if wal_is_safe() else {"loop.db"})
    assert set(names.values()) == {0o600}
    log.close()


AS_NOBODY = """
    import os, sys
    from pathlib import Path
    from events.catalog import NoticeSent
    from events.errors import LoopError
    from events.store import EventLog
    import migrations.migrations, sqlite_utils.db
    notice = NoticeSent(kind="test")  # everything is imported before the rights are gone
    if os.getuid() == 0:
        os.setgid(65534), os.setuid(65534)
    try:
        log = getattr(EventLog, sys.argv[2])(Path(sys.argv[1]))
        with log.transaction() as transaction:
            transaction.append(notice, actor="test")
    except LoopError as error:
        print(type(error).__name__, error.message, "|", error.hint)
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that everybody may enter, unlike those that pytest makes."""
    import tempfile

    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    for directory in place.rglob("*"):
        if directory.is_dir():
            directory.chmod(0o755)
    shutil.rmtree(place)


@pytest.mark.parametrize("how", ["open", "read"])
@pytest.mark.parametrize("rights", ["directory read-only", "file read-only", "directory closed", "no directory"])
def test_missing_rights_are_one_clear_error(open_place: Path, rights: str, how: str) -> None:
    path = open_place / "state" / "loop.db"
    with_events(path, 1)
    if rights == "no directory":
        shutil.rmtree(path.parent)
        open_place.chmod(0o555)
    else:
        path.chmod(0o444)
        path.parent.chmod(0o000 if rights == "directory closed" else 0o555)
        if rights == "file read-only" and os.getuid() == 0:
            path.parent.chmod(0o777)
    done = run(AS_NOBODY, str(path), how, cwd="/")
    assert done.stderr == ""
    if rights == "no directory" and how == "read":
        return  # an empty log
    assert done.stdout.startswith("StoreError"), done.stdout
    assert str(open_place) in done.stdout
    assert "|" in done.stdout.rstrip("| \n"), "no hint"


# ── waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_writer_that_waits_in_vain_says_so_and_writes_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    log = EventLog.open(made)
    other = sqlite3.connect(made, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match=str(made)) as caught:
        append(log)
    assert "nothing was written" in caught.value.hint
    assert caught.value.exit_code == 5
    assert log.head().position == 3, "readers are not kept out"
    other.execute("ROLLBACK")
    append(log)
    assert log.head().position == 4
    log.close()


def test_a_writer_waits_for_another_to_finish(made: Path, clock: Any) -> None:
    other = sqlite3.connect(made, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sleep = clock.sleep

    def sleep_until_the_other_is_done(seconds: float) -> None:
        sleep(seconds)
        if clock.slept > 1:
            other.execute("ROLLBACK") if other.in_transaction else None

    clock.sleep = sleep_until_the_other_is_done
    log = EventLog.open(made, clock=clock)
    append(log)
    assert 1 < clock.slept < 2
    log.close()


def test_a_store_is_not_used_across_a_fork(made: Path) -> None:
    log = EventLog.open(made)
    pid = os.fork()
    if pid == 0:
        try:
            append(log)
        except RuntimeError as error:
            os._exit(0 if "fork" in str(error) else 1)
        except BaseException:
            os._exit(2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    append(log)
    assert log.head().position == 4
    log.close()


# ── the race for a new store ──────────────────────────────────────────────────────────────────────────────────────────


class Interrupted(sqlite3.Connection):  # type: ignore[misc]
    """A connection in front of which something else happens before its k-th statement."""

    before: dict[int, Callable[[], object]]
    statements: int

    def execute(self, *arguments: Any) -> Any:
        cls = type(self)
        cls.statements += 1
        if happen := cls.before.pop(cls.statements, None):
            happen()
        return super().execute(*arguments)


@pytest.mark.parametrize("reading", [True, False], ids=["reader", "writer"])
def test_a_store_may_be_created_by_another_at_any_instant_of_an_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: bool
) -> None:
    """Between any two statements: the opener sees no store yet or the whole of it, and never half."""
    connect = sqlite3.connect
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.02)
    k = 0
    while True:
        k += 1
        path = tmp_path / str(k) / "loop.db"
        path.parent.mkdir()
        path.touch()

        def create(path: Path = path) -> None:
            monkeypatch.setattr(sqlite3, "connect", connect)
            EventLog.open(path).close()

        Interrupted.statements, Interrupted.before = 0, {k: create}
        monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Interrupted, **options))
        try:
            log = EventLog.read(path) if reading else EventLog.open(path)
        except StoreBusy:
            assert not reading
            break
        finally:
            monkeypatch.setattr(sqlite3, "connect", connect)
        if Interrupted.before:
            break
        seen = [event.type for event in log.events()]
        assert seen in ([["store.migrated"], []] if reading else [["store.migrated"]])
        log.close()
    assert k > 3, "nothing was interrupted"


# ── the library ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ("3.7.0", False),
        ("3.40.1", False),
        ("3.44.5", False),
        ("3.44.6", True),
        ("3.45.0", False),
        ("3.49.9", False),
        ("3.50.6", False),
        ("3.50.7", True),
        ("3.51.0", False),
        ("3.51.2", False),
        ("3.51.3", True),
        ("3.52.0", True),
        ("4.0.0", True),
    ],
)
def test_which_libraries_have_the_wal_reset_fix(version: str, safe: bool) -> None:
    assert wal_is_safe(version) is safe


@pytest.mark.parametrize("safe", [True, False])
def test_an_affected_library_keeps_no_write_ahead_log(path: Path, monkeypatch: pytest.MonkeyPatch, safe: bool) -> None:
    monkeypatch.setattr(store, "wal_is_safe", lambda: safe)
    with_events(path, 1)
    [mode] = sqlite3.connect(path).execute("PRAGMA journal_mode").fetchone()
    assert mode == ("wal" if safe else "delete")
    assert sqlite_version()


def test_every_commit_is_synced(made: Path) -> None:
    log = EventLog.open(made)
    [level] = log._connection.execute("PRAGMA synchronous").fetchone()
    assert level == 2  # FULL
    log.close()


def test_errors_carry_what_a_script_needs() -> None:
    def all_errors(error: type[LoopError]) -> list[type[LoopError]]:
        return [error, *(each for child in error.__subclasses__() for each in all_errors(child))]

    ours = [error for error in all_errors(LoopError) if error.__module__ == "events.errors"]
    assert {error.exit_code for error in ours} == {1, 2, 3, 5, 6}
    assert len({error.code for error in ours}) == len(ours)


def test_a_clock_is_passed_in(clock: Clock) -> None:
    log = EventLog.in_memory(clock=clock)
    assert next(log.events()).at.startswith("2026-09-21")
