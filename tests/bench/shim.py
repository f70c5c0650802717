"""What a waiting shim costs: the memory of six at once, beside six interpreters that do nothing but wait.

PSS is a process's own memory and its part of what it shares, so more processes of one interpreter make each cheaper;
what is private to one shim does not depend on its neighbours.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import processes
from tests.bench.measure import Goal, Line

MIB = 1024  # KiB
SETTLE = 3.0  # seconds
WAITING = "import signal; signal.pause()"


def bench(directory: Path) -> Iterator[Line]:
    run_dirs = processes.prepare(directory / "shim")
    shims = [processes.spawn(run_dir, dict(os.environ)) for run_dir in run_dirs]
    processes.last_exec(run_dirs)
    time.sleep(SETTLE)
    ours = [memory(shim.pid) for shim in shims]
    processes.end(run_dirs)
    for shim in shims:
        shim.wait()
    bare = [subprocess.Popen([sys.executable, "-I", "-S", "-c", WAITING]) for _ in shims]
    time.sleep(SETTLE)
    peers = [memory(process.pid) for process in bare]
    for process in bare:
        process.terminate()
        process.wait()
    yield _line("memory of a waiting shim (PSS)", "Pss", ours, peers, Goal("ours", "<", 12))
    yield _line("of that, private to it", "Private", ours, peers, None)


def memory(pid: int) -> dict[str, float]:
    """MiB by kind, of one process; `Private` is clean and dirty together."""
    found: dict[str, float] = {}
    for name, kib in re.findall(r"(?m)^(\w+): +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text()):
        found[name] = int(kib) / MIB
    found["Private"] = found["Private_Clean"] + found["Private_Dirty"]
    return found


def _line(
    name: str, kind: str, ours: Sequence[dict[str, float]], peers: Sequence[dict[str, float]], goal: Goal | None
) -> Line:
    mine, theirs = (statistics.median(each[kind] for each in side) for side in (ours, peers))
    return Line(name, "MiB", mine, theirs, mine / theirs, goal=goal)
