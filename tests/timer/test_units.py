"""The unit files, pinned; their escaping, by systemd itself where it is there; the crontab line, by a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.timer.units import (
    MARKER,
    Timer,
    TimerPathError,
    argv_of,
    name_of,
    path_of,
    pinned_path,
    quoted,
    unquoted,
)
from loop.timer.wakes import Wakes, wakes

HALF_HOURLY = wakes({"every": 1800, "cron": None, "timezone": None}, 0)
AWKWARD = ["my fleet", "100%", "%h %i", "$HOME", "${HOME}", 'say "hi"', "it's", "back\\slash", "ends\\", "a;b", "# no"]


def timer(
    config: str = "/home/u/fleet/loop.toml",
    program: str = "/opt/loop/bin/loop",
    path: str = "/opt/bin:/usr/bin",
    pattern: Wakes = HALF_HOURLY,
    jitter: float = 0,
) -> Timer:
    return Timer(Path(config), (program,), path, pattern, jitter)


SERVICE = f"""{MARKER}

[Unit]
Description=one fire of loop, for /home/u/fleet/loop.toml
# A timer that wakes often is no crash loop.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=:"/opt/loop/bin/loop" "--config" "/home/u/fleet/loop.toml" "tick" "--timer"
Environment="PATH=/opt/bin:/usr/bin"
# The sessions of a fire outlive it, and stopping this unit is not to stop them.
KillMode=process
# One session that runs out of memory takes down neither the pass nor the other sessions.
OOMPolicy=continue
# 5: another pass observes, or the store is busy; 6: refused. The next fire makes it good.
SuccessExitStatus=5 6
"""

TIMER = f"""{MARKER}

[Unit]
Description=the schedule of loop, for /home/u/fleet/loop.toml

[Timer]
OnCalendar=*-*-* *:00/30:00 UTC
# What the machine slept through is one fire as soon as it wakes.
Persistent=true
AccuracySec=1s
RandomizedDelaySec=120s

[Install]
WantedBy=timers.target
"""


def test_the_units_are_these_to_the_letter() -> None:
    units = timer(jitter=120).units()
    name = name_of(Path("/home/u/fleet/loop.toml"))
    assert units == {f"{name}.service": SERVICE, f"{name}.timer": TIMER}


def test_a_pattern_that_wakes_too_often_says_why_in_the_unit() -> None:
    odd = timer(pattern=wakes({"every": 420, "cron": None, "timezone": None}, 0))
    (text,) = [text for name, text in odd.units().items() if name.endswith(".timer")]
    assert "# every 420 s fits no minute, hour or day evenly, so it wakes every 60 s; a fire is used once.\n" in text
    assert "OnCalendar=*-*-* *:*:00 UTC\n" in text
    assert "RandomizedDelaySec" not in text


def test_two_projects_of_one_name_have_two_timers(tmp_path: Path) -> None:
    one, other = tmp_path / "a" / "My Fleet", tmp_path / "b" / "My Fleet"
    names = {name_of(place / "loop.toml") for place in (one, other)} | {name_of(one / "other.toml")}
    assert len(names) == 3
    assert all(name.startswith("loop-my-fleet-") for name in names)
    one.mkdir(parents=True)
    (tmp_path / "link").symlink_to(one)
    assert name_of(tmp_path / "link" / "loop.toml") == name_of(one / "loop.toml")
    assert name_of(Path("/%$ /loop.toml")).count("-") == 1, "of a name without letters only the hash is left"


@given(st.text(st.characters(min_codepoint=32, exclude_categories=("Cs",), exclude_characters="\x7f"), max_size=60))
def test_what_a_unit_quotes_is_read_back(text: str) -> None:
    assert unquoted(quoted(text)) == text
    service = next(iter(timer(config=f"/x/{text}/loop.toml", path=f"/p/{text}").units().values()))
    assert argv_of(service) == ["/opt/loop/bin/loop", "--config", str(Path(f"/x/{text}/loop.toml")), "tick", "--timer"]
    assert path_of(service) == f"/p/{text}"


@pytest.mark.parametrize("name", ["new\nline", "tab\t", "\udcff"])
def test_what_no_unit_can_name_is_an_error(name: str) -> None:
    for make in (timer(config=f"/{name}/loop.toml").units, lambda: timer(path=f"/{name}").crontab(0)):
        with pytest.raises(TimerPathError):
            make()


def test_the_pinned_path_has_only_absolute_directories_each_once() -> None:
    assert pinned_path({"PATH": "/b::.:/a:bin:/b:"}) == "/b:/a"
    assert pinned_path({}) == pinned_path({"PATH": ""}) == os.defpath


def program_at(directory: Path) -> Path:
    """A program that writes its arguments and its PATH to the file `said` beside it."""
    directory.mkdir(parents=True)
    program = directory / "loop"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$PATH" "$@" > "${0%/*}/said"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("name", AWKWARD)
def test_a_crontab_line_runs_the_command_as_it_is_meant(tmp_path: Path, name: str) -> None:
    program = program_at(tmp_path / name)
    line = timer(config=f"/{name}/loop.toml", program=str(program), path=f"/usr/bin:/bin:/{name}").crontab(0)
    fields, _, command = line.partition("  ")
    assert fields == "*/30 * * * *"
    assert "%" not in command.replace("\\%", ""), "cron ends a command at a bare %"
    subprocess.run(["sh", "-c", command.replace("\\%", "%")], check=True, timeout=20, env={})
    said = (program.parent / "said").read_text().splitlines()
    assert said == [f"/usr/bin:/bin:/{name}", "--config", f"/{name}/loop.toml", "tick", "--timer"]


def verified(directory: Path, units: dict[str, str]) -> str:
    """What `systemd-analyze verify` has to say; nothing where all is well."""
    for name, text in units.items():
        (directory / name).write_text(text)
    runtime = directory / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *(str(directory / name) for name in units)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode or done.stderr else ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize("name", ["plain", *AWKWARD])
def test_systemd_accepts_the_units_and_finds_the_program(tmp_path: Path, name: str) -> None:
    """It looks for the program of ExecStart, so that a wrong escape is an error."""
    program = program_at(tmp_path / name)
    units = timer(config=f"/{name}/loop.toml", program=str(program), path=f"/{name}", jitter=1.5).units()
    assert verified(tmp_path, units) == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
@pytest.mark.parametrize(
    ("before", "after"), [("KillMode=", "KillModus="), ("%%h", "%h"), ("oneshot", "once"), ("*:00/30", "*:61")]
)
def test_systemd_would_say_what_is_wrong(tmp_path: Path, before: str, after: str) -> None:
    program = program_at(tmp_path / "%h")
    units = timer(program=str(program)).units()
    assert verified(tmp_path, {name: text.replace(before, after) for name, text in units.items()}) != ""
