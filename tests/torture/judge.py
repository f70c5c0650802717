"""What must hold after a torture run, from the observer's accounts, the kernel's locks and the loop's own words."""

from __future__ import annotations

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.torture import observer
from tests.torture.arena import Arena
from tests.torture.monkey import DEEDS
from tests.torture.worker import KINDS

ENDS = ("session.ended", "session.lost", "session.spawn_failed")
SHOWN = 5  # of a list of faults


class Verdict(NamedTuple):
    """A check, whether it held, and on how much, or what was wrong."""

    name: str
    ok: bool
    told: str


def judge(arena: Arena, struck: Mapping[str, int], samples: Path, lingering: Sequence[str]) -> list[Verdict]:
    """Every check, on an arena in which nothing is to live any more."""
    said = observer.lines(arena.seen)
    events = [json.loads(line) for line in arena.ask("log", "--json").stdout.splitlines()]
    return [
        *_worth_it(said, struck),
        *_observed(said, samples),
        _none("leftover processes", lingering, "nobody carries this run's mark"),
        *_ends(said, events),
        *_store(arena, events),
        _none("no command failed by itself", arena.failures(), f"{len(arena.started)} commands"),
    ]


def _none(name: str, faults: Sequence[str], otherwise: str) -> Verdict:
    told = "; ".join(faults[:SHOWN]) + (" …" if len(faults) > SHOWN else "")
    return Verdict(name, not faults, f"{len(faults)}: {told}" if faults else f"0 ({otherwise})")


def _worth_it(said: Sequence[observer.Line], struck: Mapping[str, int]) -> Iterator[Verdict]:
    """A run in which nothing happened shows nothing."""
    told = ", ".join(f"{count} × {deed}" for deed, count in sorted(struck.items()))
    yield Verdict("every deed was done", all(struck.get(deed) for deed in DEEDS), told)
    ran = Counter(line.keys[0] for line in said if line.word == "enter")
    told = ", ".join(f"{count} × {kind}" for kind, count in sorted(ran.items()))
    yield Verdict("every kind of worker ran", ran.keys() == KINDS.keys(), told)


def _observed(said: Sequence[observer.Line], samples: Path) -> Iterator[Verdict]:
    by_key = observer.spans(said)
    at_work = sum(map(len, by_key.values()))
    yield _none("overlaps by the workers' lines", observer.overlaps(by_key), f"{at_work} spans of {len(by_key)} keys")
    *seen, end = samples.read_text().splitlines() or [""]
    word, _, count = end.partition(" ")
    if word != "end" or int(count) == 0:
        seen.append(f"the observer did not come to its end: {end!r}")
    yield _none("overlaps by samples of /proc", seen, f"{count} samples")


def _ends(said: Sequence[observer.Line], events: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    requested = {event["session"] for event in events if event["type"] == "session.requested"}
    ends = Counter(event["session"] for event in events if event["type"] in ENDS)
    odd = [f"{session} has {ends[session]}" for session in sorted(requested | ends.keys()) if ends[session] != 1]
    kinds = Counter(event["type"] for event in events if event["type"] in ENDS)
    told = ", ".join(f"{count} {type}" for type, count in sorted(kinds.items()))
    yield _none("sessions without exactly one end", odd if requested else ["no session at all"], told)
    entered = Counter(line.session for line in said if line.word == "enter")
    twice = [f"{session} {times} times" for session, times in entered.items() if times > 1]
    yield _none("sessions that ran twice", twice, f"{len(entered)} ran")
    failed = {event["session"] for event in events if event["type"] == "session.spawn_failed"}
    worked = {line.session for line in said}
    wrong = [f"{session} was never granted" for session in sorted(worked - requested)]
    wrong += [f"{session} is told as never started" for session in sorted(worked & failed)]
    yield _none("sessions at work against the log", wrong, f"{len(failed)} told as never started")


def _store(arena: Arena, events: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    verify = arena.ask("verify", "--json")
    found = json.loads(verify.stdout)
    checks = found.get("checks", [])
    bad = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
    if verify.returncode != 0 or not checks:
        bad.append(f"exit code {verify.returncode}")
    yield _none("loop verify", bad, f"{len(checks)} checks, {len(events)} events")
    status = json.loads(arena.ask("status", "--json").stdout)
    detected = [f"{event['data']}" for event in events if event["type"] == "violation.detected"]
    if status["violations"]["same_lock"]:
        detected.append(f"status counts {status['violations']['same_lock']} same-lock violations")
    yield _none("violations in the log", detected, f"of {status['violations']['of']} locks")
    held = [f"{lock['key']} by {lock['session']}" for lock in status["locks"]]
    yield _none("locks held in the log", held, "all released")
    paths = sorted((arena.state / "locks").glob("*.lock"))
    kept = [path.name for path in paths if not _is_free(path)]
    yield _none("locks held in the kernel", kept if paths else ["no lock file at all"], f"{len(paths)} lock files")


def _is_free(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
