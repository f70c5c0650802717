"""The user's systemd, through its commands: argv lists, bounded in time, never raising for what they answer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from events.errors import RefusedError, StoreError
from loop.command import CommandResult, run_bounded
from loop.timer.units import MARKER

SYSTEMCTL = ("systemctl", "--user")
WANTED = "timers.target.wants"
TIMEOUT = 30.0  # seconds; a bus that does not answer
LARGEST = 1 << 16  # bytes of an answer
PROPERTIES = ("ActiveState", "SubState", "UnitFileState", "NextElapseUSecRealtime", "LastTriggerUSec")
NEVER = ("", "n/a", "infinity", "0")  # what systemd says of a timer that will not elapse, or whose service runs


def directory(environ: Mapping[str, str]) -> Path:
    """Where a user's own units are: `$XDG_CONFIG_HOME/systemd/user`, `~/.config/systemd/user` without one."""
    base = environ.get("XDG_CONFIG_HOME", "")  # a relative one is to be ignored, says the specification
    home = Path(os.path.expanduser("~") if "HOME" not in environ else environ["HOME"])
    return (Path(base) if os.path.isabs(base) else home / ".config") / "systemd" / "user"


def installed(path: Path) -> str | None:
    """The text of a unit file of ours, None where there is none. Raises RefusedError for a file of somebody else."""
    try:
        text = path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}", "check its rights: ls -l") from None
    if not text.startswith(MARKER):
        raise RefusedError(
            f"{path} was not written by loop timer install: left as it is", "move it away, then again"
        )
    return text


def write(path: Path, text: str) -> None:
    """Put a unit file in place, whole or not at all. Raises StoreError, and RefusedError as `installed`."""
    installed(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        mend = "check the directory, its space and rights"
        raise StoreError(f"cannot write {path}: {error.strerror or error}", mend) from None


def remove(path: Path) -> bool:
    """Take a unit file of ours away, and the link that enabled it, which stays where systemd could not be told; whether
    there was one. Raises RefusedError as `installed`, StoreError."""
    if installed(path) is None:
        return False
    link = path.parent / WANTED / path.name
    try:
        if link.is_symlink():
            link.unlink()
        path.unlink()
    except OSError as error:
        raise StoreError(f"cannot remove {path}: {error.strerror or error}", "check the directory's rights") from None
    return True


def run(words: Sequence[str], environ: Mapping[str, str]) -> CommandResult:
    """`systemctl --user WORDS`; a machine without it is a failure among others."""
    program = shutil.which(SYSTEMCTL[0], path=environ.get("PATH", os.defpath)) or SYSTEMCTL[0]
    argv = [program, *SYSTEMCTL[1:], *words]
    return run_bounded(argv, cwd=Path("/"), env=environ, timeout=TIMEOUT, limit_bytes=LARGEST)


def properties(unit: str, names: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """What systemd knows of a unit, by property; empty where nobody answers."""
    result = run(["show", unit, f"--property={','.join(names)}"], environ)
    if result.code != 0:
        return {}
    lines = result.stdout.decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines) if name in names}


def following(known: Mapping[str, str]) -> str | None:
    """When a timer with these PROPERTIES elapses next, in systemd's words; None where it does not say."""
    instant = known.get("NextElapseUSecRealtime", "")
    return None if instant in NEVER else instant


def is_firing(known: Mapping[str, str]) -> bool:
    """Whether the service of an active timer runs now: until it is over, systemd knows of no next time."""
    return (known.get("ActiveState"), known.get("SubState")) == ("active", "running")


def said(result: CommandResult) -> str:
    """Why a command failed, in one line."""
    first = result.stderr.decode("utf-8", "replace").strip().splitlines()
    return first[0] if first else result.text
