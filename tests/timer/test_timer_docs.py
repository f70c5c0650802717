"""docs/timers.md against the commands and the units that it describes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_units import program_at, verified

from loop.timer.units import Timer
from loop.timer.wakes import wakes

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "timers.md").read_text("utf-8")
UNITS = re.findall(r"```ini\n(.*?)```", PAGE, re.DOTALL)


def test_the_units_of_the_page_are_those_that_are_written() -> None:
    pattern = wakes({"every": 1800, "cron": None, "timezone": None}, 0)
    path = "/home/u/.local/bin:/usr/local/bin:/usr/bin:/bin"
    program = ("/home/u/.local/share/loop/bin/loop",)
    written = "".join(Timer(Path("/home/u/fleet/loop.toml"), program, path, pattern, 120).units().values())
    shown = UNITS[0]
    lines = [line for line in shown.splitlines() if line]
    assert len(lines) > 8
    assert [line for line in lines if line not in written.splitlines()] == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_accepts_the_unit_of_a_controller_and_sessions_outlive_it(tmp_path: Path) -> None:
    program = program_at(tmp_path / "bin")
    text = UNITS[1].replace("/home/u/.local/share/loop/bin/loop", str(program))
    assert verified(tmp_path, {"loop-run.service": text}) == ""
    timer = UNITS[0].splitlines()
    shared = [line for line in text.splitlines() if line.startswith(("KillMode=", "OOMPolicy=", "Environment="))]
    assert len(shared) == 3
    assert [line for line in shared if line not in timer] == []


def test_the_commands_of_the_page_exist_with_their_options() -> None:
    named = set(re.findall(r"loop (timer \w+|doctor)((?: --[\w-]+)*)", PAGE))
    assert len(named) >= 6
    for command, options in sorted(named):
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *command.split(), "--help"],
            capture_output=True, text=True, timeout=30, check=False, env={"COLUMNS": "100", "NO_COLOR": "1"},
        )  # fmt: skip
        assert done.returncode == 0, command
        assert all(option in done.stdout for option in options.split()), (command, options)
