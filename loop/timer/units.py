"""The systemd user units that fire a project, as text: a pure function of its places, its schedule and a PATH.

The text is escaped as systemd.syntax(7), systemd.service(5) and systemd.unit(5) say: values are quoted, `%` is doubled,
and the `:` before a command switches off what `$` would mean.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from events.errors import LoopError
from loop.text import visible
from loop.timer.wakes import Wakes

MARKER = "# Written by `loop timer install`, which overwrites and removes only files that begin with this line."
LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
UNSAFE = frozenset("\"'\\")  # what systemd refuses in the path of a program, however it is quoted
SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')  # which takes it as an argument
NAME_KEPT = 24  # letters of the directory's name in the name of its units


class TimerPathError(LoopError):
    """A path cannot stand in a unit file or a crontab: it is not UTF-8, or holds control characters."""

    code: ClassVar[str] = "timer_path"


@dataclass(frozen=True, slots=True)
class Timer:
    """What a project's timer is made of. `program` is how loop itself is called, `path` the PATH that it gets."""

    config: Path
    program: tuple[str, ...]
    path: str
    wakes: Wakes
    jitter: float
    """Seconds."""

    @property
    def name(self) -> str:
        return name_of(self.config)

    @property
    def argv(self) -> list[str]:
        return [*self.program, "--config", str(self.config), "tick", "--timer"]

    def units(self) -> dict[str, str]:
        """File name -> text: the service and its timer. Raises TimerPathError."""
        return {f"{self.name}.service": self._service(), f"{self.name}.timer": self._timer()}

    def crontab(self, offset: int) -> str:
        """The line of a crontab that does the same, on a machine `offset` minutes ahead of UTC. Raises TimerPathError.

        What goes well is not mailed; errors are.
        """
        words = [f"PATH={shlex.quote(_sound(self.path))}", *(shlex.quote(_sound(word)) for word in self.argv)]
        command = " ".join([*words, ">/dev/null"])
        return f"{self.wakes.crontab(offset)}  {command.replace('%', chr(92) + '%')}"  # % ends a crontab's command

    def _service(self) -> str:
        through = SHELL if UNSAFE & set(self.program[0]) else ()
        return f"""{MARKER}

[Unit]
Description={_described(f"one fire of loop, for {self.config}")}
# A timer that wakes often is no crash loop.
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart=:{" ".join(map(quoted, [*through, *self.argv]))}
Environment={quoted(f"PATH={self.path}")}
# The sessions of a fire outlive it, and stopping this unit is not to stop them.
KillMode=process
# One session that runs out of memory takes down neither the pass nor the other sessions.
OOMPolicy=continue
# 5: another pass observes, or the store is busy; 6: refused. The next fire makes it good.
SuccessExitStatus=5 6
"""

    def _timer(self) -> str:
        note = "" if self.wakes.why is None else f"# {_described(self.wakes.why)}; a fire is used once.\n"
        jitter = f"RandomizedDelaySec={self.jitter:g}s\n" if self.jitter else ""
        return f"""{MARKER}

[Unit]
Description={_described(f"the schedule of loop, for {self.config}")}

[Timer]
{note}OnCalendar={self.wakes.calendar()}
# What the machine slept through is one fire as soon as it wakes.
Persistent=true
AccuracySec=1s
{jitter}
[Install]
WantedBy=timers.target
"""


def name_of(config: Path) -> str:
    """The units' name without suffix: the directory's, and a hash, since two projects may be called the same."""
    place = os.path.join(os.path.realpath(config.parent), config.name)
    digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).digest()
    slug = re.sub(r"[^a-z0-9]+", "-", os.path.basename(os.path.dirname(place)).lower())[:NAME_KEPT].strip("-")
    return "-".join(["loop", *([slug] if slug else []), "".join(LETTERS[byte & 31] for byte in digest[:8])])


def quoted(value: str) -> str:
    """One word of a unit file. Raises TimerPathError."""
    text = _sound(value).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'


def unquoted(word: str) -> str:
    """What `quoted` was given."""
    return re.sub(r"\\(.)|%(%)", lambda match: match[1] or match[2], word[1:-1])


def pinned_path(environ: Mapping[str, str]) -> str:
    """The PATH of whoever installs, without what is no absolute directory: units and cron begin with a shorter one."""
    found = dict.fromkeys(place for place in environ.get("PATH", os.defpath).split(":") if os.path.isabs(place))
    return ":".join(found) or os.defpath


def path_of(service: str) -> str | None:
    """The PATH that a service of ours pins; None where the text has none."""
    match = re.search(r'^Environment=("PATH=.*")$', service, re.MULTILINE)
    return None if match is None else unquoted(match[1]).removeprefix("PATH=")


def argv_of(service: str) -> Sequence[str]:
    """The command of a service of ours; empty where the text has none."""
    match = re.search(r"^ExecStart=:(.*)$", service, re.MULTILINE)
    return [] if match is None else [unquoted(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"', match[1])]


def _described(text: str) -> str:
    """Text for a comment or a Description=, which ends neither with a space nor in a continued line."""
    return visible(text).replace("%", "%%").replace("\\", "/").strip()


def _sound(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TimerPathError(f"{visible(value)} is not UTF-8, and no unit file or crontab can name it", MEND) from None
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise TimerPathError(f"{visible(value)!r} holds control characters, which no crontab can name", MEND)
    return value


MEND = "rename it; or run: loop run"
