"""`loop timer`: prints before it writes, touches nobody else's files, and says what systemd was told.

systemctl is a stand-in here that keeps what it is told; `tests/timer/test_real_systemd.py` has the real one.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from events.clock import SystemClock
from events.store import EventLog
from loop.doctor import timer as checks
from loop.home import at
from loop.status import status
from loop.timer import linger
from loop.timer.units import MARKER, name_of
from projections import snapshots

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[loop]
every = "30m"
[selector]
command = ["./selector"]
[categories.code]
command = ["my-agent"]
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$TOLD"
[ -n "$NO_BUS" ] && { echo "Failed to connect to bus: No medium found" >&2; exit 1; }
[ "$2" = show ] || exit 0
echo "ActiveState=${STATE-active}"
echo "SubState=${SUB-waiting}"
echo "NextElapseUSecRealtime=${NEXT-Mon 2026-11-23 14:30:00 UTC}"
echo "KillMode=${KILL-process}"
"""
HOUR = 3_600_000_000


class Machine:
    """A project, a home directory and a PATH with a stand-in for systemctl."""

    def __init__(self, directory: Path) -> None:
        self.project, self.home = directory / "my fleet", directory / "home"
        self.project.mkdir()
        self.home.mkdir()
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name, text in (("systemctl", SYSTEMCTL), ("my-agent", "#!/bin/sh\n")):
            self.program(self.bin / name, text)
        self.program(self.project / "selector", """#!/bin/sh\necho '{"selected": {"category": "code"}}'\n""")
        (self.project / "loop.toml").write_text(CONFIG)
        self.told = directory / "told"
        self.path = f"{self.bin}:/usr/bin:/bin"
        self.units = self.home / ".config" / "systemd" / "user"

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    @property
    def name(self) -> str:
        return name_of(self.project / "loop.toml")

    def env(self, **more: str) -> dict[str, str]:
        return {"PATH": self.path, "HOME": str(self.home), "TOLD": str(self.told), "NO_COLOR": "1", "TZ": "UTC", **more}

    def loop(self, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *words],
            cwd=self.project,
            env=self.env(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def json(self, *words: str, code: int = 0, **more: str) -> Any:
        return json.loads(self.loop(*words, "--json", code=code, **more).stdout)

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.units.iterdir()} if self.units.exists() else {}

    def commands(self) -> list[str]:
        """What systemctl was told to do, questions left out."""
        lines = self.told.read_text().splitlines() if self.told.exists() else []
        return [line.removeprefix("--user ") for line in lines if " show " not in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ── install ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_print_only_prints(machine: Machine) -> None:
    out = machine.loop("timer", "install", "--print").stdout
    assert out.startswith(f"# {machine.units}/{machine.name}.service\n{MARKER}\n")
    assert "OnCalendar=*-*-* *:00/30:00 UTC\n" in out
    assert (machine.files(), machine.commands(), (machine.project / ".loop").exists()) == ({}, [], False)
    assert machine.json("timer", "install", "--print")["units"][0]["installed"] is None


def test_install_writes_what_it_printed_and_has_systemd_start_it(machine: Machine) -> None:
    printed = machine.loop("timer", "install", "--print").stdout
    out = machine.loop("timer", "install", "--yes").stdout
    assert out.startswith(printed)
    assert "next fire: Mon 2026-11-23 14:30:00 UTC" in out
    assert sorted(machine.files()) == [f"{machine.name}.service", f"{machine.name}.timer"]
    assert all(text in printed for text in machine.files().values())
    assert machine.commands() == ["daemon-reload", f"enable --now {machine.name}.timer"]
    assert f'Environment="PATH={machine.path}"' in machine.files()[f"{machine.name}.service"]


def test_installed_anew_a_running_timer_takes_the_new_calendar(machine: Machine) -> None:
    machine.loop("timer", "install", "--yes")
    (machine.project / "loop.toml").write_text(CONFIG.replace("30m", "1h"))
    machine.told.unlink()
    machine.loop("timer", "install", "--yes")
    assert machine.commands()[-1] == f"restart {machine.name}.timer"
    assert "*:00:00 UTC" in machine.files()[f"{machine.name}.timer"]


def test_without_a_terminal_or_yes_nobody_is_asked_and_nothing_written(machine: Machine) -> None:
    assert "--yes" in machine.loop("timer", "install", code=6).stderr
    assert machine.json("timer", "install", code=6)["error"]["code"] == "refused"
    assert (machine.files(), machine.commands()) == ({}, [])


@pytest.mark.parametrize(("answer", "written"), [("y\n", 2), ("\n", 0), ("no\n", 0)])
def test_on_a_terminal_it_asks(machine: Machine, answer: str, written: int) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, str(ROOT / "cli.py"), "timer", "install"],
        cwd=machine.project,
        env=machine.env(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, answer.encode())
        out, error = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert "[y/N]" in error
    assert "OnCalendar=" in out
    assert (process.returncode, len(machine.files())) == (0, written)


def test_where_no_user_bus_is_it_says_what_is_written_and_what_to_run(machine: Machine) -> None:
    done = machine.loop("timer", "install", "--yes", code=1, NO_BUS="1")
    assert len(machine.files()) == 2
    assert f"wrote {machine.units}/{machine.name}.service" in done.stdout
    assert "the timer is not running: Failed to connect to bus: No medium found" in done.stderr
    assert f"→ systemctl --user enable --now {machine.name}.timer" in done.stderr
    answer = machine.json("timer", "install", "--yes", code=1, NO_BUS="1")
    assert answer["left"][0] == ["systemctl", "--user", "daemon-reload"]


def test_where_there_is_no_systemctl_it_says_so_too(machine: Machine) -> None:
    (machine.bin / "systemctl").unlink()
    done = machine.loop("timer", "install", "--yes", code=1, PATH=str(machine.bin))
    assert "the timer is not running: " in done.stderr
    assert "systemctl" in done.stderr


@pytest.mark.parametrize("following", ["", "n/a", "infinity"])
def test_a_timer_that_will_never_elapse_is_no_success(machine: Machine, following: str) -> None:
    assert "does not say when" in machine.loop("timer", "install", "--yes", code=1, NEXT=following).stderr


def test_a_timer_whose_fire_runs_now_is_well(machine: Machine) -> None:
    """Until the service is over systemd knows of no next time, and a pass may take a while."""
    firing = {"SUB": "running", "NEXT": ""}
    done = machine.loop("timer", "install", "--yes", **firing)
    assert "next fire: once the fire that runs now is over" in done.stdout
    assert findings(machine, **firing)["timer"]["level"] == "ok"
    shown = machine.json("timer", "show", **firing)
    assert (shown["firing"], shown["next"]) == (True, None)
    assert "next wake: once the fire that runs now is over" in machine.loop("timer", "show", **firing).stdout


def test_files_of_somebody_else_are_left_alone(machine: Machine) -> None:
    machine.units.mkdir(parents=True)
    alien = machine.units / f"{machine.name}.timer"
    alien.write_text("[Timer]\nOnCalendar=daily\n")
    for words in (("install", "--yes"), ("remove",)):
        assert "not written by loop" in machine.loop("timer", *words, code=6).stderr
    assert machine.files() == {alien.name: "[Timer]\nOnCalendar=daily\n"}
    assert machine.commands() == []


def test_a_session_may_not_touch_the_timer_of_its_loop(machine: Machine) -> None:
    for words in (("install", "--yes"), ("remove",)):
        machine.loop("timer", *words, code=6, LOOP_SESSION="sabc")
    assert machine.files() == {}


def test_xdg_config_home_is_respected_where_it_is_absolute(machine: Machine, tmp_path: Path) -> None:
    answer = machine.json("timer", "show", XDG_CONFIG_HOME=str(tmp_path / "xdg"))
    assert answer["units"][0]["path"].startswith(f"{tmp_path}/xdg/systemd/user/")
    assert machine.json("timer", "show", XDG_CONFIG_HOME="xdg")["units"][0]["path"].startswith(str(machine.units))


def test_an_invalid_config_installs_nothing(machine: Machine) -> None:
    (machine.project / "loop.toml").write_text("[loop]\nevery = 5\ncron = 1\n")
    machine.loop("timer", "install", "--yes", code=3)
    assert machine.files() == {}


# ── show and remove ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_says_whether_it_is_installed_and_what_differs(machine: Machine) -> None:
    assert "not installed" in machine.loop("timer", "show").stdout
    machine.loop("timer", "install", "--yes")
    out = machine.loop("timer", "show").stdout
    assert "installed, and up to date" in out
    assert "next wake: Mon 2026-11-23 14:30:00 UTC" in out
    (machine.project / "loop.toml").write_text(CONFIG.replace("30m", "7m"))
    out = machine.loop("timer", "show").stdout
    assert "not what would be installed now" in out
    assert "-OnCalendar=*-*-* *:00/30:00 UTC" in out
    assert "+OnCalendar=*-*-* *:*:00 UTC" in out
    answer = machine.json("timer", "show")
    assert (answer["installed"], answer["differs"], answer["exact"]) == (True, True, False)
    assert "fits no minute" in answer["why"]
    unheard = machine.json("timer", "show", NO_BUS="1")
    assert (unheard["installed"], unheard["active"], unheard["next"]) == (True, None, None)


def test_the_cron_line_is_one_that_a_shell_can_run(machine: Machine) -> None:
    line = machine.loop("timer", "show", "--cron").stdout.removesuffix("\n")
    fields, _, command = line.partition("  ")
    assert fields == "*/30 * * * *"
    machine.program(machine.project / "selector", "#!/bin/sh\necho '{\"all_scores\": {}}'\n")
    subprocess.run(["sh", "-c", command.replace("\\%", "%")], check=True, cwd="/", env={"HOME": "/"}, timeout=60)
    log = EventLog.read(machine.project / ".loop" / "loop.db")
    fires = [event.data["trigger"] for event in log.events() if event.type == "tick.started"]
    log.close()
    assert fires == ["timer"]


def test_remove_is_the_inverse_of_install(machine: Machine) -> None:
    machine.loop("timer", "install", "--yes")
    wants = machine.units / "timers.target.wants"
    wants.mkdir()
    (wants / f"{machine.name}.timer").symlink_to(machine.units / f"{machine.name}.timer")
    machine.told.unlink()
    (machine.project / "loop.toml").write_text("no longer valid")
    machine.loop("timer", "remove")
    assert machine.commands() == [f"disable --now {machine.name}.timer", "daemon-reload"]
    assert list(wants.iterdir()) == []
    wants.rmdir()
    assert machine.files() == {}
    assert "not installed" in machine.loop("timer", "remove").stdout
    assert machine.json("timer", "remove")["removed"] == []


# ── what status and doctor make of it ─────────────────────────────────────────────────────────────────────────────────


def problems(machine: Machine, hours: float) -> list[str]:
    log = EventLog.read(machine.project / ".loop" / "loop.db")
    seen = status(snapshots.load(log), SystemClock().now() + round(hours * HOUR))
    log.close()
    return [problem["code"] for problem in seen["problems"]]


def test_a_timer_that_never_fired_is_a_problem_until_it_is_removed(machine: Machine) -> None:
    machine.loop("timer", "install", "--yes")
    assert problems(machine, 0.9) == []
    assert problems(machine, 1.1) == ["fire_missed"]
    machine.loop("timer", "remove")
    assert problems(machine, 1.1) == []


def findings(machine: Machine, **more: str) -> dict[str, dict[str, Any]]:
    code = int(more.pop("code", "0"))
    return {check["name"]: check for check in machine.json("doctor", "--as-timer", code=code, **more)["checks"]}


def test_doctor_resolves_commands_with_the_path_of_the_unit(machine: Machine, tmp_path: Path) -> None:
    """The PATH of a shell that finds the agent is no help to a unit that has another."""
    machine.loop("timer", "install", "--yes", PATH=f"{tmp_path}/other:/usr/bin:/bin", code=1)
    found = findings(machine, code="1")
    assert (found["commands"]["level"], found["selector"]["level"]) == ("fail", "ok")
    assert "no program my-agent on PATH" in found["commands"]["detail"]
    machine.loop("timer", "install", "--yes")
    found = findings(machine, PATH=f"{machine.bin}:/bin")
    assert found["commands"]["level"] == "ok"
    assert machine.path in found["timer_program"]["detail"]
    assert "timer" not in {check["name"] for check in machine.json("doctor")["checks"]}


def test_doctor_finds_a_loop_that_the_unit_cannot_run(machine: Machine) -> None:
    machine.loop("timer", "install", "--yes")
    assert findings(machine)["timer_program"]["level"] == "ok"
    unit = machine.units / f"{machine.name}.service"
    unit.write_text(unit.read_text().replace('ExecStart=:"', 'ExecStart=:"/gone'))
    assert findings(machine, code="1")["timer_program"]["level"] == "fail"


def test_doctor_says_how_the_timer_stands(machine: Machine) -> None:
    assert findings(machine)["timer"]["level"] == "warn"
    machine.loop("timer", "install", "--yes")
    assert findings(machine)["timer"]["level"] == "ok"
    assert findings(machine, PATH=f"{machine.path}:/sbin")["timer"]["level"] == "ok", "a shell's PATH is not the unit's"
    for broken in ({"STATE": "inactive"}, {"NEXT": ""}, {"NO_BUS": "1"}):
        assert findings(machine, code="1", **broken)["timer"]["level"] == "fail"
    (machine.project / "loop.toml").write_text(CONFIG.replace("30m", "1h"))
    assert findings(machine)["timer"]["level"] == "warn"


@pytest.mark.parametrize(("there", "level"), [(None, "warn"), (False, "warn"), (True, "ok")])
def test_doctor_says_whether_the_user_lingers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool | None, level: str
) -> None:
    monkeypatch.setattr(linger, "BOOTED", tmp_path if there is not None else tmp_path / "nowhere")
    monkeypatch.setattr(linger, "KEPT", tmp_path)
    if there:
        (tmp_path / linger.user()).touch()
    assert linger.lingers() is there
    assert checks._linger().level == level


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/loop-fleet-abcdefgh.service", None),
        ("/", None),
        ("/user.slice/user-1000.slice/session-4.scope", "login"),
        ("/system.slice/cron.service", "cron.service"),
        ("/user.slice/user-1000.slice/user@1000.service/tmux-spawn-1.scope", "tmux-spawn-1.scope"),
    ],
)
def test_a_cgroup_tells_what_may_end_a_session(place: str, words: str | None) -> None:
    said = checks.risk(place)
    assert said is None if words is None else words in (said or "")


def test_doctor_looks_at_the_cgroup_of_a_session_that_lives(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program(machine.bin / "my-agent", "#!/bin/sh\nsleep 20\n")
    config = CONFIG.replace('command = ["./selector"]', "builtin = true").replace("[loop]", "[loop]\nslots = 1")
    (machine.project / "loop.toml").write_text(config)
    assert findings(machine)["cgroup"]["level"] == "warn", "nobody was looked at"
    machine.loop("tick")
    home = at(machine.project / "loop.toml")
    log = EventLog.read(home.db)
    state = snapshots.load(log)
    log.close()
    (session,) = state.sessions["live"]
    ours = f"/user.slice/app.slice/{machine.name}.service"
    try:
        assert session in findings(machine)["cgroup"]["detail"]
        login = "/user.slice/session-4.scope"
        for place, kill, level in (
            (ours, "process", "ok"),
            (ours, "control-group", "fail"),
            (login, "process", "warn"),
        ):
            monkeypatch.setattr(checks, "cgroup_of", lambda pid, place=place: place if pid else None)
            assert checks._cgroup(home, machine.env(KILL=kill), state).level == level, place
    finally:
        machine.loop("stop", "--kill")
