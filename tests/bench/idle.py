"""What `loop run` costs between fires, beside an interpreter that wakes as often and does nothing.

The project's first fire is served and its session over before anything is measured; the next is months away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from events.store import EventLog
from loop import home
from loop.run import POLL_SECONDS
from projections import snapshots
from tests.bench.measure import Goal, Line, environment, progress, wait_until
from tests.bench.shim import memory
from tests.bench.status import LOOP

SECONDS = 20.0
SETTLE = 5.0
PEER = f"import time\nwhile True: time.sleep({POLL_SECONDS})"


def bench(directory: Path) -> Iterator[Line]:
    place, env = directory / "idle", environment(directory)
    place.mkdir()
    days = int(time.time()) // 86_400
    every = next(every for every in range(3_650, 0, -1) if days % every < every - 100)  # days; anchored at the epoch
    (place / home.CONFIG_NAME).write_text(
        f'[loop]\nslots = 1\nevery = "{every}d"\n[selector]\nbuiltin = true\n[categories.work]\ncommand = ["true"]\n'
    )
    peer = subprocess.Popen([sys.executable, "-c", PEER], env=env)
    ours = subprocess.Popen([*LOOP, "-C", str(place), "run", "--quiet"], env=env)
    try:
        wait_until("the first session's end", lambda: _served(home.at(place / home.CONFIG_NAME).db))
        time.sleep(SETTLE)
        progress(f"idle: measuring for {SECONDS:.0f} s")
        before, begun = (cpu(ours.pid), cpu(peer.pid)), time.monotonic()
        time.sleep(SECONDS)
        elapsed = time.monotonic() - begun
        spent = [cpu(process.pid) - used for process, used in zip((ours, peer), before, strict=True)]
        shares = [100 * each / elapsed for each in spent]
        sizes = [memory(process.pid) for process in (ours, peer)]
    finally:
        for process in (ours, peer):
            process.terminate()
            process.wait()
    yield Line("loop run, idle: CPU", "% of a core", shares[0], shares[1], goal=Goal("ours", "<", 0.5))
    for kind, name in (("Pss", "memory (PSS)"), ("Rss", "memory (RSS)")):
        mine, theirs = (size[kind] for size in sizes)
        yield Line(f"loop run, idle: {name}", "MiB", mine, theirs, mine / theirs, goal=Goal("ours", "<", 80))


def _served(db: Path) -> bool:
    with closing(EventLog.read(db)) as log:
        state = snapshots.load(log)
        return bool(state.control["served"]) and not state.sessions["live"]


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
