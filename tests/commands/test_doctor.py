"""`loop doctor`: each check goes red when the thing it is about is broken, and only --fix changes anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from events import store
from events.catalog import ControllerStarted, LoopPaused
from events.clock import Clock, SystemClock
from events.errors import ConfigError, StoreError
from events.store import EventLog, Filter
from loop import filesystem, trailer
from loop.commands import doctor, init
from loop.config_file import load
from loop.controller import Loop
from loop.doctor import machine, state_directory
from loop.doctor.check import Check
from loop.home import Home, at
from loop.journal import Journal
from loop.passes import Fire, configure
from loop.sessions import proc

CONFIG = """
[loop]
slots = 1
[selector]
builtin = true
[respawn]
limit = 0
[categories.code]
command = ["true"]
evidence = "exit"
"""
ENVIRON = {"PATH": os.environ["PATH"]}
HOUR = 3_600_000_000


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "loop.toml").write_text(CONFIG)
    home = at(tmp_path / "loop.toml")
    EventLog.open(home.db).close()
    return home


def checks_of(home: Home | None, environ: Mapping[str, str] = ENVIRON, clock: Clock | None = None) -> dict[str, Check]:
    found = doctor.examine(home, None, environ, clock or SystemClock())
    assert len({check.name for check in found.checks}) == len(found.checks)
    return {check.name: check for check in found.checks}


def report(home: Home | None, capsys: pytest.CaptureFixture[str], fix: bool = False) -> tuple[int, dict[str, Any]]:
    code = doctor.run(home, fix=fix, as_json=True, environ=ENVIRON)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return code, answer


def configured(home: Home, more: str) -> dict[str, Check]:
    home.config.write_text(CONFIG + more)
    return checks_of(home)


def tree_of(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Every file with its mode, size and time, but those that SQLite puts beside a store for any reader."""
    files = [path for path in directory.rglob("*") if not path.name.endswith(("-shm", "-wal"))]
    stats = {str(path.relative_to(directory)): path.lstat() for path in files if not path.is_dir()}
    return {name: (stat.st_mode, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


# ── what it prints ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_where_all_is_well_it_says_so(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_of(home.root)
    code, answer = report(home, capsys)
    assert [check for check in answer["checks"] if check["level"] == "fail"] == []
    assert (code, answer["ok"], answer["schema"]) == (0, True, "loop.doctor/1")
    assert answer["as_of"]["position"] == 1
    assert all({"name", "ok", "detail", "fix"} <= check.keys() for check in answer["checks"])
    assert tree_of(home.root) == before


def test_a_store_that_is_not_there_is_not_made(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    for path in sorted(home.state.iterdir()):
        path.unlink()
    home.state.rmdir()
    for fix in (False, True):
        code, answer = report(home, capsys, fix)
        assert (code, answer["as_of"]) == (0, {"position": 0, "at": None})
    assert not home.state.exists()


def test_without_a_project_it_checks_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, answer = report(None, capsys)
    assert code == 1
    failed = [check for check in answer["checks"] if not check["ok"]]
    assert [(check["detail"], check["fix"]) for check in failed] == [("no loop.toml", "run: loop init")]
    assert len(answer["checks"]) > 3


def test_a_reason_why_there_is_no_project_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("loop.toml is not valid TOML", "mend it")
    assert doctor.run(None, fix=False, as_json=False, error=error, environ=ENVIRON) == 1
    assert "loop.toml is not valid TOML" in capsys.readouterr().out


def test_the_table_fits_80_columns_and_nothing_hostile_passes(
    home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    home.config.write_text(CONFIG.replace('["true"]', '["' + "x" * 150 + '\\u001b[2J[red]"]'))
    assert doctor.run(home, fix=False, as_json=False, environ=ENVIRON) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b[2J" not in out
    assert "[red]" in out
    assert "FAIL" in out
    assert "1 of" in out


# ── the machine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_foreign_package_of_our_names_is_found(tmp_path: Path) -> None:
    """`events` or `cli` of another distribution, first on the path, would be imported in place of ours."""
    (tmp_path / "cli.py").write_text("")
    script = "import sys; from loop.doctor import machine; sys.path.insert(0, sys.argv[1]); print(machine.packages())"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=20
    )
    assert "level='fail'" in done.stdout
    assert str(tmp_path / "cli.py") in done.stdout


def test_inside_a_session_it_warns(home: Home) -> None:
    check = checks_of(home, {**ENVIRON, "LOOP_SESSION": "sabc"})["session"]
    assert check.level == "warn"
    assert "sabc" in check.detail


def test_a_wal_under_a_library_with_the_bug_is_a_failure(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks_of(home)["sqlite"].level == "ok"
    monkeypatch.setattr(machine, "wal_is_safe", lambda: False)
    monkeypatch.setattr(store, "wal_is_safe", lambda: False)
    check = checks_of(home)["sqlite"]
    assert check.level == "fail"
    assert check.mend is not None
    check.mend()
    check = checks_of(home)["sqlite"]
    assert (check.level, "journal mode delete" in check.detail) == ("warn", True)


# ── the config ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_invalid_config_is_told_with_every_problem(home: Home) -> None:
    home.config.write_text("[loop]\nslot = 2\n")
    checks = checks_of(home)
    assert checks["config"].level == "fail"
    assert "did you mean slots?" in checks["config"].detail
    assert "commands" not in checks
    assert checks["store"].level == "ok"


def test_warnings_of_the_config_are_passed_on(home: Home) -> None:
    assert "config_warnings" not in checks_of(home)
    checks = configured(home, '[categories.x]\ncommand = ["true", "{prompt}"]\n')
    assert checks["config_warnings"].level == "warn"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[categories.x]\ncommand = ["no-such-program"]\n', "x: no program no-such-program on PATH"),
        ('[categories.x]\ncommand = ["./missing"]\n', "x: no program "),
        ('[categories.x]\ncommand = ["~/bin/agent"]\n', "~ is not expanded"),
        ('[categories.x]\ncommand = ["./loop.toml"]\n', "is not executable"),
        ('[categories.x]\ncommand = ["true"]\ngate = ["./gate"]\n', "x, gate: no program"),
        ('[categories.x]\ncommand = ["true"]\nbefore = ["./hook"]\n', "x, before: no program"),
        ('[backends.a]\ncommand = ["no-such-agent"]\n[categories.x]\n', "x: no program no-such-agent"),
        ('[categories.x]\ncommand = ["tool"]\nenv = { PATH = "/nowhere" }\n', "x: no program tool"),
    ],
)
def test_a_command_that_cannot_start_is_a_failure(home: Home, more: str, says: str) -> None:
    check = configured(home, more)["commands"]
    assert check.level == "fail"
    assert says in check.detail


@pytest.mark.parametrize(
    "more",
    [
        '[categories.x]\ncommand = ["./agent-{category}"]\n',
        '[categories.x]\ncommand = ["./made-by-the-hook"]\ncwd = "work/{session}"\n',
        '[categories.x]\ncommand = ["agent{{1}}"]\nenv = { PATH = "bin" }\n',
    ],
)
def test_what_only_its_session_can_know_is_no_failure(home: Home, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (home.root / "bin").mkdir()
    (home.root / "bin" / "agent{1}").touch(mode=0o755)
    monkeypatch.chdir(home.root)
    checks = configured(home, more)
    assert (checks["commands"].level, checks["cwd"].level) == ("ok", "ok")


def test_a_selector_is_looked_for_beside_the_config(home: Home) -> None:
    home.config.write_text(CONFIG.replace("builtin = true", 'command = ["./sel"]'))
    assert checks_of(home)["selector"].level == "fail"
    (home.root / "sel").touch(mode=0o755)
    assert checks_of(home)["selector"].level == "ok"


def test_a_working_directory_must_be_there(home: Home) -> None:
    check = configured(home, '[categories.x]\ncommand = ["true"]\ncwd = "nowhere"\n')["cwd"]
    assert check.level == "fail"
    assert str(home.root / "nowhere") in check.detail


def test_evidence_of_git_needs_git_and_a_work_tree(home: Home) -> None:
    more = '[categories.x]\ncommand = ["true"]\nevidence = "git"\n'
    assert configured(home, more)["git"].level == "warn"
    assert checks_of(home, {"PATH": "/nowhere"})["git"].level == "fail"
    subprocess.run(["git", "init", "-q", home.root], check=True)
    trailer.install(trailer.hook_of(home.root, ENVIRON))
    assert checks_of(home)["git"].level == "ok"


# ── the state directory ───────────────────────────────────────────────────────────────────────────────────────────────


def test_files_open_to_others_are_closed_by_fix(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.state.chmod(0o755)
    home.db.chmod(0o644)
    code, answer = report(home, capsys)
    assert code == 1
    assert [check["name"] for check in answer["checks"] if not check["ok"]] == ["permissions"]
    assert home.db.stat().st_mode & 0o777 == 0o644
    code, answer = report(home, capsys, fix=True)
    assert (code, len(answer["mended"])) == (0, 1)
    assert (home.state.stat().st_mode & 0o777, home.db.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_stop_file_made_by_touch_is_no_fault_of_rights(home: Home) -> None:
    (home.state / "STOP").touch(0o644)
    assert checks_of(home)["permissions"].level == "ok"


def test_what_cannot_be_mended_is_said(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> str:
        raise PermissionError(1, "not permitted", "/x")

    assert doctor._mended(Check("permissions", "fail", "", mend=refuse)).startswith("permissions: not mended: ")


def test_a_state_that_git_would_commit_is_ignored_by_fix(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert checks_of(home)["gitignore"].level == "ok"
    subprocess.run(["git", "init", "-q", home.root], check=True)
    assert checks_of(home)["gitignore"].level == "warn"
    assert not (home.root / ".gitignore").exists()
    code, _ = report(home, capsys, fix=True)
    assert (code, checks_of(home)["gitignore"].level) == (0, "ok")
    assert (home.root / ".gitignore").read_text() == ".loop/\n"


@pytest.mark.parametrize(
    ("kind", "level"),
    [("ext4", "ok"), ("btrfs", "ok"), ("overlay", "ok"), ("fuseblk", "ok"), ("nfs4", "fail"), ("cifs", "fail"),
     ("fuse.sshfs", "fail"), ("fuse.mine", "warn"), ("fuse.fuse-overlayfs", "ok"), ("tmpfs", "warn")],
)  # fmt: skip
def test_file_systems_of_other_machines_are_refused(
    home: Home, monkeypatch: pytest.MonkeyPatch, kind: str, level: str
) -> None:
    monkeypatch.setattr(state_directory, "mount_of", lambda place: (kind, "/mnt"))
    assert checks_of(home)["filesystem"].level == level


def test_no_store_is_made_on_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "mount_of", lambda place: ("nfs4", "/mnt"))
    (tmp_path / "loop.toml").write_text(CONFIG)
    home = at(tmp_path / "loop.toml")
    with pytest.raises(StoreError, match="is on nfs4"):
        Loop(home, ENVIRON)
    with pytest.raises(StoreError, match="is on nfs4"):
        init.run(tmp_path, selector=None, force=True, as_json=False, environ=ENVIRON)
    assert not home.state.exists()


def test_the_mount_of_a_path_is_the_nearest(tmp_path: Path) -> None:
    assert filesystem.mount_of(Path("/proc/self")) == ("proc", "/proc")
    kind, point = filesystem.mount_of(tmp_path.resolve())
    assert kind
    assert tmp_path.resolve().is_relative_to(point)


def test_a_full_disk_and_a_long_wal_are_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_directory, "DISK_LOW", 1 << 60)
    assert checks_of(home)["disk"].level == "warn"
    monkeypatch.setattr(state_directory, "DISK_OUT", 1 << 60)
    assert checks_of(home)["disk"].level == "fail"
    monkeypatch.setattr(state_directory, "WAL_LIMIT", -1)
    assert checks_of(home)["wal"].level == "warn"


# ── the store and the log ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100, b"SQLite format 3\0" + b"x" * 4080])
def test_a_damaged_store_is_told_and_not_touched(home: Home, content: bytes) -> None:
    (home.state / "locks").mkdir(mode=0o700)
    home.db.write_bytes(content)
    assert checks_of(home)["store"].level == "fail"
    assert home.db.read_bytes() == content


def test_damage_to_any_page_is_found(home: Home) -> None:
    """Of an index, too, which no reading of the log would come upon."""
    whole = home.db.read_bytes()
    for page in range(1, len(whole) // 4096):
        at = page * 4096
        home.db.write_bytes(whole[:at] + b"\xff" * 64 + whole[at + 64 :])
        assert checks_of(home)["store"].level == "fail", page


def test_a_lost_store_is_a_failure(home: Home) -> None:
    (home.state / "locks").mkdir(mode=0o700)
    (home.state / "locks" / "code.lock").touch(mode=0o600)
    home.db.unlink()
    checks = checks_of(home)
    assert checks["store"].level == "fail"
    assert "lost or moved" in checks["store"].detail


def ended_session(home: Home) -> str:
    """One real session, run to its end and followed by its pass."""
    with Loop(home, ENVIRON) as loop:
        session = loop.fire(Fire("manual")).started[0].session
    deadline = time.monotonic() + 30
    while True:
        log = EventLog.read(home.db)
        passes = log.select(Filter(types=("tick.finished",)))
        log.close()
        if len(passes) == 2:
            return session
        assert time.monotonic() < deadline, "no session-end pass"
        time.sleep(0.02)


def test_a_lost_lock_file_is_made_anew_only_when_nothing_of_it_lives(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    session = ended_session(home)
    lock = home.lock_dir / "code.lock"
    assert report(home, capsys)[0] == 0

    with lock.open("rb"):  # somebody has the removed file open, and perhaps its lock
        lock.unlink()
        code, answer = report(home, capsys, fix=True)
        assert (code, "holds the deleted file" in answer["mended"][0]) == (1, True)
        assert not lock.exists()

    with subprocess.Popen(["sleep", "30"], env={**ENVIRON, "LOOP_SESSION": session}) as left_behind:
        code, answer = report(home, capsys, fix=True)
        assert (code, f"process {left_behind.pid}" in answer["mended"][0]) == (1, True)
        assert not lock.exists()
        left_behind.kill()

    code, answer = report(home, capsys)
    assert [check["name"] for check in answer["checks"] if not check["ok"]] == ["lock_files"]
    assert not lock.exists()
    assert report(home, capsys, fix=True)[0] == 0
    assert lock.stat().st_mode & 0o777 == 0o600


def test_a_run_directory_that_the_log_does_not_know_is_told(home: Home) -> None:
    ended_session(home)
    assert checks_of(home)["run_directories"].level == "ok"
    (home.runs_dir / "salien").mkdir(mode=0o700)
    check = checks_of(home)["run_directories"]
    assert (check.level, "salien" in check.detail) == ("warn", True)


# ── the timer ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class SetClock(SystemClock):
    """The machine's clocks, but a wall clock that is set by hand."""

    def __init__(self) -> None:
        self.time = time.time_ns() // 1000 + HOUR  # after the store was made

    def now(self) -> int:
        return self.time


def with_controller(home: Home, clock: Clock, pid: int, *, paused: bool = False) -> None:
    journal = Journal(EventLog.open(home.db, clock=clock))
    with journal.transaction() as entry:
        configure(entry, load(home.config))
        start = proc.start_time(pid) or 1
        entry.append(ControllerStarted(pid=pid, start=start, boot=proc.boot_id(), release=""), actor="run")
        if paused:
            entry.append(LoopPaused(scope="all", reason=None), actor="operator")
    journal.close()


@pytest.mark.parametrize(("hours", "paused", "level"), [(0.9, False, "ok"), (1.1, False, "fail"), (1.1, True, "ok")])
def test_fires_that_never_came_are_missed_after_two_periods(home: Home, hours: float, paused: bool, level: str) -> None:
    clock = SetClock()
    with_controller(home, clock, os.getpid(), paused=paused)
    clock.time += round(hours * HOUR)
    assert checks_of(home, clock=clock)["fires"].level == level


def test_a_controller_that_died_without_a_word_is_told(home: Home) -> None:
    clock = SetClock()
    with subprocess.Popen(["true"]) as gone:
        pass
    with_controller(home, clock, gone.pid)
    check = checks_of(home, clock=clock)["fires"]
    assert (check.level, "ended without a word" in check.detail) == ("fail", True)


def test_what_init_writes_beside_a_selector_passes_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ["sh", "-c", """echo '{"all_scores": {"a.b": 1, "c": -1}}'"""]
    init.run(tmp_path, selector=answer, force=False, as_json=False, environ=ENVIRON)
    capsys.readouterr()
    assert report(at(tmp_path / "loop.toml"), capsys)[0] == 0


# ── agents ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def agent(home: Home, script: str, backend: str = 'preset = "claude"') -> Check:
    """What is found of a backend whose agent is this script."""
    programs = home.config.parent / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "claude").write_text(f"#!/bin/sh\necho \"$*\" >> {programs}/asked\n{script}\n")
    (programs / "claude").chmod(0o755)
    home.config.write_text(CONFIG.replace('command = ["true"]', "") + f"[backends.opus]\n{backend}\n")
    return checks_of(home, {"PATH": f"{programs}:{ENVIRON['PATH']}"})["backend_opus"]


def test_an_agent_is_asked_for_its_version_and_its_login_and_for_nothing_else(home: Home) -> None:
    found = agent(home, "echo claude 9.9", 'preset = "claude"\npool = "max"')
    assert (found.level, found.detail) == ("ok", "claude 9.9, pool max, logged in")
    assert (home.config.parent / "bin" / "asked").read_text().splitlines() == ["--version", "auth status"]


def test_an_agent_where_nobody_is_logged_in_is_told(home: Home) -> None:
    found = agent(home, '[ "$1" = --version ] || { echo "nobody is" >&2; exit 1; }; echo 9.9')
    assert found.level == "warn"
    assert "claude 9.9: claude auth status knows of no login" in found.detail
    assert "nobody is" in found.detail


def test_an_account_is_asked_with_its_own_variables(home: Home) -> None:
    script = 'case "$1" in --version) echo 9.9;; *) [ "$CLAUDE_CONFIG_DIR" = /two ];; esac'
    assert agent(home, script, 'preset = "claude"\nenv = { CLAUDE_CONFIG_DIR = "/two" }').level == "ok"
    assert agent(home, script).level == "warn"


def test_an_agent_that_does_not_start_is_a_failure(home: Home) -> None:
    found = agent(home, "echo wrong libc >&2; exit 127")
    assert found.level == "fail"
    assert "wrong libc" in found.detail


def test_commits_that_would_carry_no_trailer_are_told(home: Home) -> None:
    subprocess.run(["git", "init", "-q", str(home.config.parent)], check=True)
    told = configured(home, "").get("git")
    assert told is None, "nothing rests on commits"
    home.config.write_text(CONFIG.replace('evidence = "exit"', 'evidence = "git"'))
    found = checks_of(home)["git"]
    assert (found.level, found.fix) == ("warn", f"run: loop hook install {home.config.parent}")
    trailer.install(trailer.hook_of(home.config.parent, ENVIRON))
    assert checks_of(home)["git"].level == "ok"
