"""The project that is tortured, and the real commands run in it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.processes import FILE_VARIABLE, KEYS_VARIABLE, RUN_VARIABLE, Process, of_run, words
from tests.torture.worker import KINDS

ROOT = Path(__file__).resolve().parents[2]
LOOP = [sys.executable, str(ROOT / "cli.py")]
WORKER = Path(__file__).with_name("worker.py")
SHIM = "shim.py"
SHARED = "shared"  # a key that two categories both need
SHARING = ("fd_closer", "double_forker")
SLOTS = 5
SERVED, BUSY = 0, 5  # what a command may exit with while others are at it


@dataclass(slots=True)
class Command:
    """A command that was started; `killed` once we signalled it."""

    words: tuple[str, ...]
    popen: subprocess.Popen[str]
    killed: bool = False

    def ended(self) -> bool:
        return self.popen.poll() is not None


@dataclass(slots=True)
class Arena:
    """A directory with a loop.toml of one category for each kind of worker."""

    directory: Path
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    started: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        head = f"""[loop]
slots = {SLOTS}
every = "2s"
max_starts_per_hour = 10000
max_starts_per_day = 10000
[selector]
builtin = true
[session]
timeout = "4s"
grace = "500ms"
"""
        (self.directory / "loop.toml").write_text(head + "".join(map(self._category, KINDS)))

    def _category(self, name: str) -> str:
        locks = [SHARED] if name in SHARING else []
        argv = [sys.executable, "-I", "-S", str(WORKER), name]
        return f"""[categories.{name}]
command = {json.dumps(argv)}
locks = {json.dumps(locks)}
cooldown = "0s"
env = {{ {KEYS_VARIABLE} = {json.dumps(",".join([name, *locks]))} }}
"""

    @property
    def seen(self) -> Path:
        """The observer's file."""
        return self.directory / "seen"

    @property
    def state(self) -> Path:
        return self.directory / ".loop"

    def start(self, *arguments: str) -> Command:
        """Start a command and do not wait for it; what it says on stderr goes to a file beside."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}
        with (self.directory / "stderr").open("a") as errors:
            popen = subprocess.Popen(
                [*LOOP, "-C", str(self.directory), *arguments],
                env={**kept, RUN_VARIABLE: self.run, FILE_VARIABLE: str(self.seen), "NO_COLOR": "1"},
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
                start_new_session=True,  # an interrupt of the run is not theirs
            )
        command = Command(arguments, popen)
        self.started.append(command)
        return command

    def ask(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return what it said. Raises subprocess.TimeoutExpired."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}
        argv = [*LOOP, "-C", str(self.directory), *arguments]
        return subprocess.run(argv, env=kept, capture_output=True, text=True, timeout=seconds, check=False)

    def processes(self) -> dict[str, list[Process]]:
        """Everybody who lives, by role: `controller` (loop run), `pass` (ticks, session ends), `shim`, `worker`."""
        found: dict[str, list[Process]] = {"controller": [], "pass": [], "shim": [], "worker": []}
        for process in of_run(self.run):
            found[role(words(process))].append(process)
        return found

    def failures(self) -> list[str]:
        """Commands that went wrong by themselves."""
        return [
            f"loop {' '.join(command.words)} exited with {command.popen.returncode}"
            for command in self.started
            if command.ended() and not command.killed and command.popen.returncode not in (SERVED, BUSY)
        ]


def role(argv: Sequence[str]) -> str:
    if str(WORKER) in argv:
        return "worker"
    if any(word.endswith(SHIM) for word in argv):
        return "shim"
    return "controller" if "run" in argv else "pass"
