"""A hundred sessions at once: their start, what they and `loop run` cost while they live, and its recovery.

The start is measured as in `starts`, in one round, against as many bare shims. Then `loop run` comes up beside the
living sessions, is watched, killed by SIGKILL and started again; it has recovered when it has adopted them all.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from events.store import EventLog
from loop import home
from loop.passes import Fire
from loop.sessions import handshake, rundir
from tests.bench import processes
from tests.bench.idle import cpu
from tests.bench.measure import Goal, Line, environment, progress, wait_until
from tests.bench.shim import memory
from tests.bench.starts import Stamped, config
from tests.bench.status import LOOP

COUNT = 100
SECONDS = 20.0
SETTLE = 5.0


def bench(directory: Path) -> Iterator[Line]:
    peer = _peer(directory / "hundred-peer")
    place = directory / "hundred"
    place.mkdir()
    (place / home.CONFIG_NAME).write_text(config(COUNT) + '[session]\ntimeout = "10m"\n')
    here = home.at(place / home.CONFIG_NAME)
    try:
        with Stamped(here, os.environ) as loop:
            loop.fire(Fire("manual"))
            run_dirs = [str(each) for each in here.runs_dir.iterdir()]
            assert len(run_dirs) == COUNT, len(run_dirs)
            ours = (processes.last_exec(run_dirs) - loop.begun) / 1e6
        yield Line(f"start {COUNT} sessions, until they run", "ms", ours, peer, ours / peer, goal=Goal("ratio", "<", 2))
        yield from _while_they_live(here, environment(directory), run_dirs)
    finally:
        for run_dir in here.runs_dir.iterdir():
            handshake.stop(str(run_dir), kill=True, by="bench")
        wait_until("the shims and the passes after them", lambda: not _busy(here), seconds=300)


def _peer(place: Path) -> float:
    """Milliseconds from the first bare spawn until the last worker runs."""
    run_dirs = processes.prepare(place, COUNT)
    begun = time.time_ns()
    shims = [processes.spawn(run_dir, dict(os.environ)) for run_dir in run_dirs]
    taken = processes.last_exec(run_dirs) - begun
    processes.end(run_dirs)
    for shim in shims:
        shim.wait()
    return taken / 1e6


def _while_they_live(here: home.Home, env: dict[str, str], run_dirs: list[str]) -> Iterator[Line]:
    claims = [claim for run_dir in run_dirs if (claim := rundir.read_claim(run_dir)) is not None]
    progress("hundred: loop run beside them")
    controller, _ = _run(here, env)
    try:
        time.sleep(SETTLE)
        before, begun = cpu(controller.pid), time.monotonic()
        time.sleep(SECONDS)
        share = 100 * (cpu(controller.pid) - before) / (time.monotonic() - begun)
        own = memory(controller.pid)["Pss"]
        shims = statistics.median(memory(claim["pid"])["Pss"] for claim in claims)
        controller.send_signal(signal.SIGKILL)
        controller.wait()
        controller, seconds = _run(here, env)
    finally:
        controller.terminate()
        controller.wait()
    yield Line(f"memory of a waiting shim, one of {COUNT} (PSS)", "MiB", shims, goal=Goal("ours", "<", 12))
    yield Line(f"loop run beside {COUNT} sessions: CPU", "% of a core", share, goal=Goal("ours", "<", 1))
    yield Line(f"loop run beside {COUNT} sessions: memory (PSS)", "MiB", own, goal=Goal("ours", "<", 80))
    yield Line(f"loop run, killed, adopts {COUNT} sessions", "s", seconds, goal=Goal("ours", "<", 1))


def _run(here: home.Home, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], float]:
    """`loop run`, and the seconds until every living session is adopted."""
    before = _adopted(here)
    begun = time.monotonic()
    controller = subprocess.Popen([*LOOP, "-C", str(here.root), "run", "--quiet"], env=env)
    wait_until("adoption", lambda: _adopted(here) >= before + COUNT)
    return controller, time.monotonic() - begun


def _busy(here: home.Home) -> bool:
    """Whether a shim or a session-end pass of this project still runs."""
    needle = os.fsencode(here.runs_dir)
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and needle in (entry / "cmdline").read_bytes():
                return True
    return False


def _adopted(here: home.Home) -> int:
    with closing(EventLog.read(here.db)) as log:
        return sum(1 for _ in log.events_of({"session.adopted"}))
