"""The observer: whether two sessions ever were at work under one key, from what the product does not write.

Two accounts, neither of which can count an overlap that was none:

- the workers' own lines: a session was at work from its first line to its last one, of whichever of its processes;
- samples: a process of this file looks at /proc again and again, and counts two sessions of a key only where one was
  seen alive both before and after the other was.

    python -m tests.torture.observer RUN SAMPLES      # samples until SIGTERM; a line for each overlap, `end N` last
"""

from __future__ import annotations

import itertools
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.torture.processes import KEYS_VARIABLE, RUN_VARIABLE, Process, environment, everybody, lives

PAUSE = 0.05  # seconds between two samples


class Line(NamedTuple):
    """What a worker said: boot time in nanoseconds, its keys, its session, `enter`, `here` or `leave`."""

    ns: int
    keys: tuple[str, ...]
    session: str
    pid: int
    word: str


class Span(NamedTuple):
    """A session certainly was at work from one time to the other (ns)."""

    first: int
    last: int
    session: str


def lines(path: Path) -> list[Line]:
    """The observer's file; raises ValueError for a line that no worker writes."""
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        ns, keys, session, pid, word = text.split(" ")
        found.append(Line(int(ns), tuple(keys.split(",")), session, int(pid), word))
    return found


def spans(said: Iterable[Line]) -> dict[str, list[Span]]:
    """By key, who was at work and when, the earliest first."""
    found: dict[tuple[str, str], Span] = {}
    for line in said:
        for key in line.keys:
            span = found.get((key, line.session), Span(line.ns, line.ns, line.session))
            found[key, line.session] = Span(min(span.first, line.ns), max(span.last, line.ns), line.session)
    by_key: dict[str, list[Span]] = {}
    for (key, _), span in sorted(found.items(), key=lambda item: item[1]):
        by_key.setdefault(key, []).append(span)
    return by_key


def overlaps(by_key: dict[str, list[Span]]) -> list[str]:
    """Each pair of sessions that were at work under one key at the same time."""
    found = []
    for key, all_of_key in by_key.items():
        for at, span in enumerate(all_of_key):
            for later in all_of_key[at + 1 :]:
                if later.first > span.last:
                    break  # and so are all the others, which begin no earlier
                both = (min(span.last, later.last) - later.first) / 1e9
                found.append(f"{key}: {span.session} and {later.session} for at least {both:.3f} s")
    return found


def at_once(seen: dict[Process, tuple[str, str]]) -> Iterator[str]:
    """Pairs of sessions of one key, of each of which a process lives now; `seen` has (keys, session) of each."""
    for (one, (keys, session)), (other, (other_keys, other_session)) in itertools.combinations(seen.items(), 2):
        shared = set(keys.split(",")) & set(other_keys.split(","))
        if session != other_session and shared and lives(one) and lives(other) and lives(one):
            yield f"{','.join(sorted(shared))}: {session} (pid {one.pid}) and {other_session} (pid {other.pid})"


class Sampler:
    """Looks at /proc for the processes of one run."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.known: dict[Process, tuple[str, str]] = {}

    def look(self) -> set[str]:
        """The overlaps of this moment. What a process is marked with stays, so that it is read only once."""
        now: dict[Process, tuple[str, str]] = {}
        for process in everybody():
            if (marks := self.known.get(process)) is None:
                env = environment(process)
                if env.get(RUN_VARIABLE) != self.run or "LOOP_SESSION" not in env:
                    continue
                marks = (env[KEYS_VARIABLE], env["LOOP_SESSION"])
            now[process] = marks
        self.known = now
        one_each = {marks: process for process, marks in now.items()}  # a bomb's forty are one session
        return set(at_once({process: marks for marks, process in one_each.items()}))


def main(run: str, samples: Path) -> None:
    going = True

    def stop(number: int, frame: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    sampler, count, told = Sampler(run), 0, set[str]()
    with samples.open("w", buffering=1) as file:
        while going:
            for overlap in sampler.look() - told:
                told.add(overlap)
                file.write(overlap + "\n")
            count += 1
            time.sleep(PAUSE)
        file.write(f"end {count}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
