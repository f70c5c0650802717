"""The units under a real `systemd --user`, in namespaces of its own: it fires, and what it starts outlives its service.

It takes root, a systemd that does not run the machine (as in a container) and a cgroup hierarchy that can be written;
elsewhere it is skipped. The bus is systemd's own private socket, and the home directory a temporary one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loop.timer.linger import booted
from loop.timer.units import name_of

ROOT = Path(__file__).resolve().parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
SETUP = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system /run/user/0 && chmod 700 /run/user/0 || exit 77
export XDG_RUNTIME_DIR=/run/user/0
%s --user >systemd.log 2>&1 &
for try in 1 2 3 4 5 6 7 8 9 10; do
  systemctl --user is-system-running >/dev/null 2>&1 && break
  sleep 0.3
done
systemctl --user is-system-running >/dev/null 2>&1 || exit 77
""" % SYSTEMD  # noqa: UP031 - a shell script is full of braces
SCRIPT = """
loop() { "$PYTHON" "$CLI" "$@"; }
sleepers() { pgrep -f "sleep 4[2]" | wc -l; }
loop timer install --yes >installed || exit 1
systemctl --user show "$UNIT" -p KillMode -p OOMPolicy -p SuccessExitStatus >properties
for try in $(seq 40); do
  [ "$(loop log --json --type tick.started | wc -l)" -ge 2 ] && break
  sleep 0.5
done
loop log --json --type 'tick.*' >ticks
loop timer show --json >shown
firing() { [ "$(systemctl --user show "${UNIT%.service}.timer" -p SubState --value)" = running ]; }
loop doctor --as-timer --json >doctor
while firing; do sleep 0.1; done
main() { systemctl --user show "$UNIT" -p MainPID --value; }
until pid=$(main) && [ "$pid" != 0 ] && kill -STOP "$pid" && firing; do sleep 0.1; done
loop doctor --as-timer --json >doctor_while_it_fires
kill -CONT "$pid"
systemctl --user stop "$UNIT" 2>/dev/null
sleep 0.3
sleepers >after_stop
loop timer remove >/dev/null || exit 1
sleepers >after_remove
systemctl --user list-unit-files 'loop-*' --no-legend >left
kill %1
"""


def skipped() -> str | None:
    """Why a real systemd cannot be had here, or must not: one that runs the machine has its cgroups for itself."""
    if booted():
        return "systemd runs this machine; try it there: loop timer install"
    if os.geteuid() != 0 or not SYSTEMD.exists() or not all(map(shutil.which, ("unshare", "systemctl", "pgrep"))):
        return "no root, systemd or unshare here"
    done = subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=20, check=False)
    return None if done.returncode == 0 else "no namespaces here"


@pytest.mark.skipif(bool(skipped()), reason=str(skipped()))
def test_a_real_systemd_fires_and_its_sessions_outlive_the_service(tmp_path: Path) -> None:
    project = tmp_path / "50% of $HOME"
    project.mkdir()
    for name, script in (
        ("agent.sh", "exec sleep 420"),
        ("selector.sh", """echo '{"selected": {"category": "code"}}'"""),
    ):
        (project / name).write_text(f"#!/bin/sh\n{script}\n")
        (project / name).chmod(0o755)
    (project / "loop.toml").write_text(
        '[loop]\nslots = 1\nevery = "4s"\n[selector]\ncommand = ["./selector.sh"]\n'
        '[categories.code]\ncommand = ["./agent.sh"]\n'
    )
    unit = f"{name_of(project / 'loop.toml')}.service"
    home = tmp_path / "home"
    home.mkdir()
    known = {name: value for name, value in os.environ.items() if not name.startswith(("LOOP_", "XDG_", "DBUS_"))}
    own = {"HOME": str(home), "UNIT": unit, "PYTHON": sys.executable, "CLI": str(ROOT / "cli.py"), "TZ": "UTC"}
    try:
        done = subprocess.run(
            [*NAMESPACES, "bash", "-c", SETUP + SCRIPT],
            cwd=project, env=known | own, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
    finally:
        _sweep()
    if done.returncode == 77:
        pytest.skip("systemd --user does not start here")
    assert "the timer runs; next fire: " in (project / "installed").read_text(), done.stderr
    properties = (project / "properties").read_text()
    for line in ("KillMode=process", "OOMPolicy=continue", "SuccessExitStatus=5 6"):
        assert line in properties.splitlines()
    ticks = [json.loads(line) for line in (project / "ticks").read_text().splitlines()]
    fires = [tick["data"]["nominal"] for tick in ticks if tick["type"] == "tick.started"]
    assert len(fires) >= 2
    assert fires == sorted(set(fires))
    assert {tick["data"]["trigger"] for tick in ticks if tick["type"] == "tick.started"} == {"timer"}
    shown = json.loads((project / "shown").read_text())
    assert (shown["installed"], shown["differs"], shown["active"]) == (True, False, "active")
    assert shown["firing"] or shown["next"] is not None
    for moment in ("doctor", "doctor_while_it_fires"):
        checks = {check["name"]: check for check in json.loads((project / moment).read_text())["checks"]}
        assert {name: checks[name]["level"] for name in ("timer", "timer_program", "cgroup")} == {
            "timer": "ok", "timer_program": "ok", "cgroup": "ok",
        }, checks  # fmt: skip
    assert "once the fire that runs now is over" in checks["timer"]["detail"]
    assert (project / "after_stop").read_text().split() == ["1"], "the session was stopped with the service"
    assert (project / "after_remove").read_text().split() == ["1"]
    assert (project / "left").read_text() == ""


def _sweep() -> None:
    """Take away the cgroups that a systemd of a namespace leaves behind, which are empty by now."""
    for hierarchy in Path("/sys/fs/cgroup").glob("*"):
        for top in (hierarchy / "app.slice", hierarchy / "init.scope"):
            for place, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):  # others' are not empty, and stay
                    os.rmdir(place)
