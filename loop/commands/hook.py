"""`loop hook`: the git hook with which commits of a session carry its trailer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from loop import trailer
from loop.output import clean, message, print_json

Action = Literal["install", "show", "remove"]


def run(action: Action, directory: Path, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Install, show or remove it in the repository of `directory`. Returns 0.

    Raises UsageError where that is in none, RefusedError where the hook that is there is another's, StoreError.
    """
    hook = trailer.hook_of(directory, environ)
    before = trailer.state_of(hook)
    if action == "install":
        trailer.install(hook)
    elif action == "remove":
        trailer.remove(hook)
    state = trailer.state_of(hook)
    if as_json:
        print_json({"schema": "loop.hook/1", "hook": str(hook), "state": state, "changed": state != before})
    elif action == "show":
        message(f"{clean(hook)}: {'no hook of loop' if state == 'missing' else state}; loop hook install writes:")
        print(trailer.HOOK, end="")
    else:
        done = {"install": "there already", "remove": "there was none"}[action]
        print(f"{clean(hook)}: {done if state == before else {'installed': 'written', 'missing': 'removed'}[state]}")
    return 0
