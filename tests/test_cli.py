"""The command line as a whole: help, completion, errors, and what a past time means."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest
from freezegun import freeze_time

from events import lifecycle
from events.catalog import LoopPaused, NoticeSent
from events.clock import SystemClock
from events.store import EventLog
from loop.__main__ import plain_status
from loop.moment import ahead, past, resolve

ROOT = Path(__file__).resolve().parents[1]
LOOP = [sys.executable, "-m", "loop"]
COMMANDS = [
    *("status", "plan", "why", "why-not", "sessions", "tail", "log", "show", "backends", "report"),
    *("verify", "replay", "diff", "when", "step", "export", "import"),
    *("run", "tick", "start", "pause", "resume", "drain", "stop"),
    *("init", "doctor", "backup", "demo", "config check", "config show"),
    *("select", "new-selector"),
    *("timer install", "timer show", "timer remove", "backends probe", "usage"),
]


def loop(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [*LOOP, *arguments],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_groups_the_commands_and_names_the_exit_codes() -> None:
    text = loop("--help").stdout
    for word in ("Daily", "Control", "Setup", "10 with plan --exit-code", "130 interrupted"):
        assert word in " ".join(text.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    done = loop(*command.split(), "--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout
    assert "loop " in done.stdout.split("Example:")[1]


def test_the_shell_completes_commands() -> None:
    done = loop(_LOOP_COMPLETE="complete_bash", COMP_WORDS="loop st", COMP_CWORD="1")
    assert done.stdout.split() == ["status", "start", "stop", "step"]


def test_places_may_stand_before_or_after_the_command(tmp_path: Path) -> None:
    before = loop("-C", str(tmp_path), "status", "--json")
    after = loop("status", "--json", "-C", str(tmp_path))
    assert before.returncode == after.returncode == 3
    assert before.stdout == after.stdout
    assert str(tmp_path) in before.stdout


@pytest.mark.parametrize("words", ["-2h", "-2h -1m", "--all -2h", "-2h --all -C {}", "-C {} 0 -1s", "-- -2h", "-2h 0"])
def test_a_span_before_now_is_a_moment_for_diff_and_not_the_option_h(tmp_path: Path, words: str) -> None:
    loop("init", "-C", str(tmp_path))
    done = loop("diff", "--json", *words.format(tmp_path).split(), LOOP_CONFIG=str(tmp_path / "loop.toml"))
    assert '"loop.diff/1"' in done.stdout
    assert "Usage:" in loop("diff", "-h").stdout
    assert "No such option: --nonsense" in loop("diff", "-2h", "--nonsense").stderr


@pytest.mark.parametrize("words", ["", "--json", "--check --json", "--json --at 1", "--at -5m", "--at", "--nonsense"])
def test_a_plain_status_answers_as_the_app_does(tmp_path: Path, words: str) -> None:
    """`loop status` without Typer, beside the same command through Typer (the option `-n 2` is not plain)."""
    with closing(EventLog.open(tmp_path / ".loop" / "loop.db")) as log, log.transaction() as entry:
        entry.append(LoopPaused(reason="a store to look at"), actor="test")
    place = ["-C", str(tmp_path), "status", *words.split()]
    plain, through = loop(*place), loop(*place[:3], "-n", "2", *place[3:])
    assert (plain_status([*place, "-n", "2"]), plain_status(place) is None) == (None, words in ("--at", "--nonsense"))
    assert plain.returncode == through.returncode
    assert plain.stderr == through.stderr
    if "--json" in words or plain.returncode:
        assert _timeless(plain.stdout) == _timeless(through.stdout)


def _timeless(text: str) -> str:
    return re.sub(r"\d\d:\d\d:\d\d\.\d+", "TIME", text)


def test_a_plain_status_needs_no_typer(tmp_path: Path) -> None:
    EventLog.open(tmp_path / ".loop" / "loop.db").close()
    code = "import sys, atexit; atexit.register(lambda: print('typer' in sys.modules))"
    code += "; from loop.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "status", "-C", str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_users_mistake_is_no_traceback_but_under_debug_it_is() -> None:
    quiet, loud = loop("status", "-C", "/nowhere/at/all"), loop("status", "-C", "/nowhere/at/all", LOOP_DEBUG="1")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert quiet.returncode == loud.returncode == 2


def test_the_state_diagrams_in_the_docs_are_the_tables() -> None:
    assert lifecycle.document() in (ROOT / "docs" / "lifecycle.md").read_text()


def test_a_time_of_day_is_today_and_a_span_is_before_now(tmp_path: Path) -> None:
    path = tmp_path / "s" / "loop.db"
    with freeze_time("2026-11-23T14:00:00Z") as frozen:
        log = EventLog.open(path)
        for minute in (0, 5, 10):
            frozen.move_to(f"2026-11-23T14:{minute:02d}:00Z")
            with log.transaction() as transaction:
                transaction.append(LoopPaused(reason=None), actor="operator")
        frozen.move_to("2026-11-23T14:12:00Z")
        local = datetime.fromtimestamp(SystemClock().now() / 1e6).astimezone().replace(hour=0, minute=0)
        offset = local.utcoffset()
        assert offset is not None
        hour = int(14 + offset.total_seconds() // 3600) % 24
        assert resolve(log, f"{hour}:07").position == 3
        assert resolve(log, "-5m").position == 3
        assert resolve(log, "2026-11-23T14:05:00Z").position == 3
        assert resolve(log, "2026-11-23").position == 0
        assert resolve(log, None).position == 4
        now = SystemClock().now()
        assert past("2h", now) == past("-2h", now) == now - 7_200_000_000
        assert ahead("2h", now) == now + 7_200_000_000
        log.close()


@pytest.mark.parametrize("words", [["log"], ["log", "--json"], ["log", "--json", "-f"], ["log", "-f"]])
def test_a_reader_that_leaves_early_ends_a_command_quietly(tmp_path: Path, words: list[str]) -> None:
    """`loop log | head`: far more than a pipe holds, of which one line is read."""
    log = EventLog.open(tmp_path / ".loop" / "loop.db")
    with log.transaction() as transaction:
        for number in range(2_000):
            transaction.append(NoticeSent(kind="test", about=number), actor="test")
    command = [*LOOP, *words, "-n", "2000"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline()
    process.stdout.close()
    if "-f" in words:  # it notices when there is something to say
        time.sleep(0.5)
        with log.transaction() as transaction:
            transaction.append(NoticeSent(kind="more"), actor="test")
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    log.close()


@pytest.mark.parametrize("words", ["status", "status --json", "log --json", "config show", "--help"])
def test_output_on_a_full_device_is_said_to_be_the_trouble(tmp_path: Path, words: str) -> None:
    loop("init", "-C", str(tmp_path))
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*LOOP, *words.split()], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "loop: nothing more can be written: No space left on device",
        "  → make room where its output goes, or where the state directory is: loop doctor",
    ]


def test_a_command_may_be_started_with_its_output_closed(tmp_path: Path) -> None:
    argv = ["sh", "-c", 'exec "$@" >&-', "sh", *LOOP, "status"]
    EventLog.open(tmp_path / ".loop" / "loop.db").close()
    done = subprocess.run(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("words", ["pause --category a --category b", "status --at 1 --at 2", "sessions -n 1 -n 2"])
def test_an_option_that_counts_once_is_refused_twice(tmp_path: Path, words: str) -> None:
    EventLog.open(tmp_path / ".loop" / "loop.db").close()
    done = loop("-C", str(tmp_path), *words.split())
    assert done.returncode == 2
    assert "is given 2 times, and counts once" in done.stderr
    many = loop("-C", str(tmp_path), "log", "--json", "--json", "--type", "tick.*", "--type", "lock.*")
    assert (many.returncode, many.stderr) == (0, "")


def test_commands_to_go_on_with_say_where_and_are_never_broken(tmp_path: Path) -> None:
    place = tmp_path / "a project with a long name of its own, and with spaces"
    with closing(EventLog.open(place / ".loop" / "loop.db")) as log, log.transaction() as entry:
        entry.append(LoopPaused(reason="a store to look at"), actor="test")
    for words in ("status", "sessions", "diff 1 2", "show 2"):
        done = loop("-C", str(place), *words.split(), COLUMNS="40")
        for line in done.stdout.splitlines():
            if line.startswith("→ ") and " step " not in line:  # which wants a terminal
                again = loop(*shlex.split(line.removeprefix("→ loop ")))
                assert again.returncode == 0, again.stderr
    assert f"→ loop -C '{place}' status --at " in loop("-C", str(place), "status").stdout
