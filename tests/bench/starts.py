"""Six sessions from the start step of a pass until the last of their workers runs, against six bare shims.

Ours makes lock files and run directories, writes each spec durably, spawns the shim, notes it and hands it its
environment. The peer finds all that prepared, and only spawns the same shims on it. The end is the time of a file that
each worker makes first, which the kernel notes with a precision of some milliseconds.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from loop import home
from loop.config import Config
from loop.controller import Loop, Result
from loop.passes import Decided, Facts, Fire
from loop.sessions import rundir
from tests.bench import processes
from tests.bench.measure import Line, paired, wait_until

ROUNDS = 9


class Stamped(Loop):
    """A loop that notes when its start step began (nanoseconds since the epoch)."""

    begun: int = 0

    def _start(self, decided: Decided, config: Config, observed: Facts) -> Result:
        self.begun = time.time_ns()
        return super()._start(decided, config, observed)


def bench(directory: Path) -> Iterator[Line]:
    number = itertools.count()

    def ours() -> float:
        place = directory / f"starts-ours-{next(number)}"
        place.mkdir()
        (place / home.CONFIG_NAME).write_text(config())
        loop = Stamped(home.at(place / home.CONFIG_NAME), os.environ)
        with loop:
            result = loop.fire(Fire("manual"))
            sessions = [started.session for started in result.started]
            assert len(sessions) == processes.SESSIONS, sessions
            run_dirs = [rundir.path_of(str(loop.home.state), session) for session in sessions]
            taken = processes.last_exec(run_dirs) - loop.begun
            processes.end(run_dirs)
            wait_until("the session-end passes", partial(_all_served, loop, sessions))
        time.sleep(0.5)  # for the last of them to be gone
        return taken / 1e6

    def peer() -> float:
        run_dirs = processes.prepare(directory / f"starts-peer-{next(number)}")
        begun = time.time_ns()
        shims = [processes.spawn(run_dir, dict(os.environ)) for run_dir in run_dirs]
        taken = processes.last_exec(run_dirs) - begun
        processes.end(run_dirs)
        for shim in shims:
            shim.wait()
        return taken / 1e6

    yield paired("start six sessions, until they run", "ms", ROUNDS, ours, peer)


def _all_served(loop: Loop, sessions: list[str]) -> bool:
    return set(sessions) <= set(loop.journal.refresh().control["served"])


def config(count: int = processes.SESSIONS) -> str:
    """So many categories with a slot each, whose sessions only wait."""
    command = ", ".join(f"'{word}'" for word in processes.WORKER)
    categories = [f"[categories.work-{number}]\ncommand = [{command}]" for number in range(count)]
    head = ["[loop]", f"slots = {count}", "max_starts_per_hour = 1000", "[selector]", "builtin = true"]
    return "\n".join([*head, *categories]) + "\n"
