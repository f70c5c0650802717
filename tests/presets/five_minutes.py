"""The README's section for whoever has agents, to be followed to the letter, with replayed agents or real ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TITLE = "Your agents in five minutes"


def section() -> str:
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(rf"^## {TITLE}\n(.*?)^## ", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"the README has no section {TITLE!r}"
    return found[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(), re.DOTALL)


class Reader:
    """Somebody who does what the section says, in an empty directory."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self.directory = directory / "work"
        self.directory.mkdir()
        command = directory / "bin" / "loop"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "cli.py"} "$@"\n')
        command.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}
        self.env = {**kept, "NO_COLOR": "1", **env}
        self.env["PATH"] = f"{command.parent}:{self.env['PATH']}"

    def sh(self, script: str) -> str:
        """Run lines as they stand; fails at the first that fails."""
        done = subprocess.run(
            ["sh", "-eu", "-c", script], cwd=self.directory, env=self.env, capture_output=True, text=True,
            timeout=110, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout

    def json(self, words: str) -> Any:
        return json.loads(self.sh(f"loop {words} --json"))

    def ends(self, seconds: float) -> list[dict[str, Any]]:
        """The ends of all sessions, once none lives."""
        deadline = time.monotonic() + seconds
        while self.json("status")["sessions"]["live"]:
            assert time.monotonic() < deadline, "sessions did not come to an end"
            time.sleep(0.3)
        lines = self.sh("loop log --json --type session.ended").splitlines()
        return [json.loads(line) for line in lines]
