"""`make torture SECONDS=90`: real processes, killed and stopped at random, and what must hold all the same.

    python -m tests.torture --seconds 60 --seed 7 [--keep DIRECTORY]

The seed decides what is done to whom in which order; what the kernel makes of it is different each time. Afterwards
everything is let come to its end, and then judged: a line `ok` or `FAILED` for each check, `N passed, M failed` last.
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.torture.arena import ROOT, Arena
from tests.torture.judge import Verdict, judge
from tests.torture.monkey import Monkey
from tests.torture.processes import of_run, send

END_SECONDS = 120.0  # for everything to come to its end, once nobody is hurt any more
LINGER_SECONDS = 15.0  # for the passes after the last session's end


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Kill and stop real processes.")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="what is done to whom; drawn and told if not given")
    parser.add_argument("--keep", type=Path, default=None, help="a new directory for the project, which then stays")
    options = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}, {options.seconds:g} seconds", flush=True)
    with tempfile.TemporaryDirectory(prefix="loop-torture-", ignore_cleanup_errors=True) as place:
        if options.keep is not None:
            options.keep.mkdir(parents=True)
        arena = Arena((options.keep or Path(place)).resolve())
        verdicts = torture(arena, random.Random(seed), options.seconds)
    for verdict in verdicts:
        print(f"{'ok    ' if verdict.ok else 'FAILED'} {verdict.name}: {verdict.told}")
    passed = sum(verdict.ok for verdict in verdicts)
    print(f"{passed} passed, {len(verdicts) - passed} failed")
    return 0 if passed == len(verdicts) else 1


def torture(arena: Arena, chance: random.Random, seconds: float) -> list[Verdict]:
    """The whole of one run; whatever comes of it, nothing that it started is left."""
    samples = arena.directory / "samples"
    argv = [sys.executable, "-m", "tests.torture.observer", arena.run, str(samples)]
    observer = subprocess.Popen(argv, cwd=ROOT)  # without the run's mark: it is no part of what it watches
    monkey = Monkey(arena, chance)
    try:
        monkey.rage(seconds)
        ending = come_to_an_end(arena, monkey)
        lingering = linger(arena)
        observer.send_signal(signal.SIGTERM)
        observer.wait()
        return [ending, *judge(arena, monkey.struck, samples, lingering)]
    finally:
        observer.kill()
        observer.wait()
        while left := of_run(arena.run):
            for process in left:
                send(process, signal.SIGKILL)
            time.sleep(0.05)


def come_to_an_end(arena: Arena, monkey: Monkey) -> Verdict:
    """Nothing new starts, what runs ends by its own time limit, `loop run` sees to the rest and leaves when told."""
    begun = time.monotonic()
    name = "everything comes to its end"
    controller = monkey.controller
    if controller is None or controller.ended():
        controller = arena.start("run", "-q")
    for command in arena.started:
        if command is not controller:
            try:
                command.popen.wait(timeout=END_SECONDS)
            except subprocess.TimeoutExpired:
                return Verdict(name, False, f"loop {' '.join(command.words)} still runs")
    try:
        drained = arena.ask("drain", "--wait", seconds=END_SECONDS)
    except subprocess.TimeoutExpired:
        return Verdict(name, False, f"loop drain --wait: still sessions after {END_SECONDS:g} s")
    controller.popen.terminate()
    try:
        code = controller.popen.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        return Verdict(name, False, "loop run does not end at SIGTERM")
    told = f"drain exited with {drained.returncode}, run with {code}, in {time.monotonic() - begun:.1f} s"
    return Verdict(name, drained.returncode == 0 and code == 0, told)


def linger(arena: Arena) -> list[str]:
    """What still lives when the passes after the last end have had their time."""
    until = time.monotonic() + LINGER_SECONDS
    while any(arena.processes().values()) and time.monotonic() < until:
        time.sleep(0.1)
    return [f"{role} {process.pid}" for role, all_of_role in arena.processes().items() for process in all_of_role]


if __name__ == "__main__":
    os.environ.pop("LOOP_SESSION", None)  # the commands would refuse to act inside a session
    sys.exit(main(sys.argv[1:]))
