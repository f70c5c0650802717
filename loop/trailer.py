"""The git hook that adds a session's trailer to its commits, so that `evidence = "git"` can tell whose they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from events.errors import RefusedError, StoreError, UsageError
from loop.command import run_bounded

MARK = "# Written by `loop hook install`."
TRAILER = "Loop-Session"
LINES = f"""\
if [ -n "$LOOP_SESSION" ]; then
    git interpret-trailers --in-place --if-exists doNothing --trailer "{TRAILER}: $LOOP_SESSION" "$1" || exit 1
fi
"""
"""Not by a commit-msg hook, which --no-verify leaves out. A commit that names a session stays that one's."""
HOOK = f"""\
#!/bin/sh
{MARK} Commits that a session of loop makes carry its id; others stay as they are.
{LINES}"""
NAME = "prepare-commit-msg"
SECONDS = 10.0

State = Literal["installed", "missing", "foreign"]


def hook_of(directory: Path, environ: Mapping[str, str]) -> Path:
    """Where git looks for that hook, from a directory of a work tree. Raises UsageError where there is none."""
    result = run_bounded(
        ["git", "rev-parse", "--path-format=absolute", "--git-path", "hooks"],
        cwd=directory,
        env={name: value for name, value in environ.items() if not name.startswith("GIT_")},
        timeout=SECONDS,
        limit_bytes=64 << 10,
    )
    if not result.ok:
        raise UsageError(f"{directory} is in no git repository: {result.text}", "name one: loop hook install DIR")
    return Path(os.fsdecode(result.stdout.removesuffix(b"\n"))) / NAME


def state_of(hook: Path) -> State:
    """Whether it is there: ours, or that of another which adds the trailer; `foreign` is one that does not."""
    try:
        text = hook.read_text("utf-8", "replace")
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        raise StoreError(f"cannot read {hook}: {error.strerror}", "check its rights: ls -l") from None
    runs = os.access(hook, os.X_OK)
    return "installed" if runs and TRAILER in text else "missing" if MARK in text else "foreign"


def install(hook: Path) -> None:
    """Write it, whole or not at all. Raises RefusedError where another hook has the name, StoreError."""
    if state_of(hook) == "foreign":
        raise RefusedError(
            f"{hook} exists and is not loop's; it was left as it is",
            "add the last three lines that this prints to it, and make it executable: loop hook show",
        )
    draft = hook.with_name(f".{hook.name}.{os.getpid()}.tmp")
    try:
        hook.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(HOOK, "utf-8")
            draft.chmod(0o755)
            os.replace(draft, hook)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {hook}: {error.strerror or error}", "check the directory's rights") from None


def remove(hook: Path) -> bool:
    """Take ours away; False where there is none. Raises RefusedError for another's, StoreError."""
    try:
        if MARK not in hook.read_text("utf-8", "replace"):
            raise RefusedError(f"{hook} is not loop's; it was left as it is", "take the lines out of it by hand")
        hook.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"cannot remove {hook}: {error.strerror}", "check the directory's rights") from None
    return True
