"""`loop status` as a whole process, against a process that only imports sqlite3 and rich's table."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from tests.bench.history import store
from tests.bench.measure import Goal, Line, environment, paired

SIZES = (3_000, 100_000)
ROUNDS = 15
LOOP = (sys.executable, "-c", "from loop.__main__ import main; main()")
PEER = (sys.executable, "-c", "import sqlite3, rich.table")


def bench(directory: Path) -> Iterator[Line]:
    env = environment(directory)

    def milliseconds(argv: Sequence[str]) -> float:
        begun = perf_counter()
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL)
        return (perf_counter() - begun) * 1e3

    for events in SIZES:
        argv = (*LOOP, "-C", str(store(directory, events).root), "status")
        yield paired(
            f"loop status, {events:,} events",
            "ms",
            ROUNDS,
            partial(milliseconds, argv),
            partial(milliseconds, PEER),
            Goal("ratio", "<", 3),
        )
