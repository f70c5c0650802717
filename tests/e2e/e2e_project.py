"""A real project in a directory of its own, driven by the real commands in subprocesses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loop.sessions import cgroup, proc

ROOT = Path(__file__).resolve().parents[2]
LOOP = [sys.executable, str(ROOT / "cli.py")]

# What a session does: leave a mark that no other may have, wait, say how it went, take the mark away.
AGENT = """#!/bin/sh
mark="$MARKS/live-$LOOP_CATEGORY"
if ! mkdir "$mark"; then echo "$LOOP_SESSION" >> "$MARKS/overlaps"; fi
echo "$LOOP_SESSION $LOOP_CATEGORY $LOOP_TASK" >> "$MARKS/started"
ls -d "$MARKS"/live-* | wc -l >> "$MARKS/concurrency"
sleep "${NAP:-0.2}"
[ -n "$SAY" ] && echo "$SAY" > "$LOOP_OUTCOME"
rmdir "$mark"
exit "${CODE:-0}"
"""

PRODUCTIVE = '{"outcome": "productive", "grade": 0.9}'


def wait_until(holds: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """Poll until `holds` is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


class Project:
    """A directory with a loop.toml, an agent that leaves marks, and the commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marks = directory / "marks"
        self.marks.mkdir()
        self.db = directory / ".loop" / "loop.db"
        self.agent = directory / "agent.sh"
        self.agent.write_text(AGENT)
        self.agent.chmod(0o755)

    def configure(
        self,
        *categories: str,
        slots: int = 3,
        selector: str = "builtin = true",
        loop: str = "",
        category: str = 'command = ["./agent.sh"]',
        env: dict[str, str] | None = None,
        extra: str = "",
    ) -> Project:
        variables = {"MARKS": str(self.marks), "SAY": PRODUCTIVE, **(env or {})}
        lines = ["[loop]", f"slots = {slots}", 'every = "1h"', "max_starts_per_hour = 1000", loop]
        lines += ["[selector]", selector, "[session]", 'timeout = "30s"', 'grace = "1s"']
        lines += ["[session.env]", *(f"{name} = {json.dumps(value)}" for name, value in variables.items())]
        for name in categories:
            lines += [f"[categories.{name}]", category]
        lines.append(extra)
        (self.directory / "loop.toml").write_text("\n".join(lines) + "\n")
        return self

    def edit(self, before: str, after: str) -> str:
        """Replace a piece of loop.toml; returns the new text."""
        path = self.directory / "loop.toml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
        return path.read_text()

    def select(self, payload: object, *, exit_code: int = 0) -> str:
        """The selector lines of a config whose selector prints `payload`."""
        (self.directory / "answer.json").write_text(payload if isinstance(payload, str) else json.dumps(payload))
        script = self.directory / "selector.sh"
        script.write_text(f"#!/bin/sh\ncat answer.json\nexit {exit_code}\n")
        script.chmod(0o755)
        return 'command = ["./selector.sh"]'

    def loop(
        self, *arguments: str, code: int | None = 0, stdin: str = "", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in the project; fails unless it exits with `code` (None: whatever it does)."""
        done = subprocess.run(
            [*LOOP, *arguments],
            cwd=self.directory,
            input=stdin,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "100", **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if code is not None:
            assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and do not wait for it."""
        return subprocess.Popen(
            [*LOOP, *arguments],
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def json(self, *arguments: str, code: int | None = 0) -> Any:
        return json.loads(self.loop(*arguments, "--json", code=code).stdout)

    def events(self, *types: str) -> list[dict[str, Any]]:
        filters = [word for type in types for word in ("--type", type)]
        return [json.loads(line) for line in self.loop("log", "--json", *filters).stdout.splitlines()]

    def status(self) -> Any:
        return self.json("status")

    def settle(self, seconds: float = 30.0) -> Any:
        """Wait until no session lives and the passes after their ends are over; returns the status."""
        deadline = time.monotonic() + seconds
        calm = 0
        while calm < 3:
            assert time.monotonic() < deadline, "sessions did not come to an end"
            time.sleep(0.1)
            busy = self.status()["sessions"]["live"] or self.helpers()
            calm = 0 if busy else calm + 1
        return self.status()

    def end(self) -> None:
        """Leave nothing of it behind: no process, no control group."""
        run_dirs = self.run_dirs()
        marked = [pid for run_dir in run_dirs for pid in proc.marked(str(run_dir))]
        for pid in [*self.helpers(), *proc.of_runs(str(self.db.parent / "runs")), *marked]:
            kill(pid)
        for run_dir in run_dirs:
            with contextlib.suppress(AssertionError):
                wait_until(lambda run_dir=run_dir: not cgroup.members(str(run_dir)), seconds=2)
            cgroup.remove(str(run_dir))

    def helpers(self) -> list[int]:
        """Shims and end passes of this project that still run."""
        needle = str(self.directory / ".loop" / "runs").encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if needle in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def starts(self) -> list[list[str]]:
        """What the sessions themselves say: [session, category, task] for each that ran."""
        path = self.marks / "started"
        return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []

    def run_dirs(self) -> list[Path]:
        runs = self.directory / ".loop" / "runs"
        return sorted(runs.iterdir()) if runs.exists() else []

    def assert_sound(self) -> None:
        """What must hold whatever happened: no overlap, one end per session, every lock released, no process left."""
        assert not (self.marks / "overlaps").exists(), "two sessions of one category ran at once"
        requested = [event["session"] for event in self.events("session.requested")]
        ends = [event["session"] for event in self.events("session.ended", "session.lost", "session.spawn_failed")]
        assert sorted(requested) == sorted(ends)
        ran = [line[0] for line in self.starts()]
        assert len(ran) == len(set(ran)), "a session ran twice"
        status = self.status()
        assert status["locks"] == []
        assert status["violations"]["same_lock"] == 0
        for session in requested:
            assert proc.marked(str(self.directory / ".loop" / "runs" / session)) == []


def kill(pid: int) -> None:
    """SIGKILL, if it still is."""
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass

