"""`loop run`: the controller in the foreground, a line for what it does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from loop.alarm import alarmed
from loop.commands.passes import refuse_inside, say_stopped
from loop.controller import Loop
from loop.home import Home
from loop.output import message
from loop.run import run as control


def run(home: Home, environ: Mapping[str, str], *, quiet: bool) -> int:
    """Run until SIGTERM or SIGINT; then 0."""
    refuse_inside(environ, "run")
    say_stopped(home)

    def report(text: str) -> None:
        if not quiet:
            message(f"{datetime.now().astimezone():%H:%M:%S} {text}")

    with alarmed(home, environ), Loop(home, environ) as loop:
        control(loop, report)
    return 0
