"""A session that behaves in one of the ways that break supervisors: python worker.py KIND

Every process of it appends lines to the observer's file, outside the product: `boottime_ns keys session pid word`. The
first says `enter`, the others `here`, and the last of a process that ends by itself `leave`. Standard library only.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time

BOMB = 40  # processes of a fork bomb, at most
BEAT = 0.03  # seconds between two lines
ESCAPEE_SECONDS = 30.0  # of what is left behind, unless somebody ends it
CHANCE = random.Random()


def say(word: str) -> None:
    """One line, whole: a short write to a file opened for appending is not torn. Opened anew, for closers of files."""
    fields = (time.clock_gettime_ns(time.CLOCK_BOOTTIME), os.environ["TORTURE_KEYS"], os.environ["LOOP_SESSION"])
    fd = os.open(os.environ["TORTURE_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, (" ".join(map(str, (*fields, os.getpid(), word))) + "\n").encode())
    os.close(fd)


def beat(seconds: float, pause: float = BEAT) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        say("here")
        time.sleep(pause)


def leave_behind() -> None:
    """A grandchild in a session of its own, which the process group does not reach."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            say("here")
            beat(ESCAPEE_SECONDS)
        os._exit(0)
    os.wait()


def sleeper() -> None:
    beat(CHANCE.uniform(0.05, 2))


def double_forker() -> None:
    leave_behind()
    beat(CHANCE.uniform(0, 0.5))


def term_ignorer() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    leave_behind()
    beat(ESCAPEE_SECONDS)


def fd_closer() -> None:
    """Lets go of the inherited locks, and leaves somebody behind who holds none either."""
    os.closerange(0, 1024)
    leave_behind()
    beat(CHANCE.uniform(0, 1))


def flood() -> None:
    block = b"x" * 65_535 + b"\n"
    for _ in range(CHANCE.randint(100, 800)):
        os.write(CHANCE.choice((1, 2)), block)
    say("here")


def fork_bomb() -> None:
    """Each process gives half of what it may still fork to a child, until everybody's share is spent."""
    share = BOMB
    while share > 1:
        half = share // 2
        if os.fork() == 0:
            if CHANCE.random() < 0.5:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            share = half
        else:
            share -= half
    beat(CHANCE.uniform(0.2, 2), pause=0.2)


KINDS = {each.__name__: each for each in (sleeper, double_forker, term_ignorer, fd_closer, flood, fork_bomb)}


def main(kind: str) -> None:
    CHANCE.seed(os.environ["LOOP_SESSION"])
    say("enter")
    if CHANCE.random() < 0.5:
        with open(os.environ["LOOP_OUTCOME"], "w") as file:
            json.dump({"outcome": "productive", "grade": 0.9}, file)
    KINDS[kind]()
    say("leave")


if __name__ == "__main__":
    main(sys.argv[1])
