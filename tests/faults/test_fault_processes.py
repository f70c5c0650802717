"""Real processes on one store: creating it at once, appending at once, dying at any instant."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from events.catalog import NoticeSent
from events.chain import GENESIS, link
from events.sqlite import sqlite3
from events.store import EventLog, Filter

ROOT = Path(__file__).resolve().parent.parent.parent

# Appends transactions of two events with private parts and says the last position of each once it is durable.
APPENDER = """
import sys
from pathlib import Path
from events.catalog import LoopPaused, NoticeSent
from events.store import EventLog
path, name, wait, rounds = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "wait", int(sys.argv[4])
LoopPaused(), NoticeSent(kind="")
import migrations.migrations
print("ready", flush=True)
if wait:
    sys.stdin.readline()
log = EventLog.open(path)
for number in range(rounds):
    with log.transaction() as transaction:
        transaction.append(LoopPaused(reason=name), actor=name)
        last = transaction.append(NoticeSent(kind=name, about=number), actor=name)
    print(last.position, number, flush=True)
"""


def appender(path: Path, name: str, *, wait: bool, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPENDER, str(path), name, "wait" if wait else "go", str(rounds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


KILLING_SECONDS = 8.0


def all_at_once(path: Path, count: int, rounds: int) -> dict[str, list[tuple[int, int]]]:
    """Processes that wait for each other and then append; name -> what each was acknowledged: (position, number)."""
    processes = {f"p{index}": appender(path, f"p{index}", wait=True, rounds=rounds) for index in range(count)}
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    acknowledged = {}
    for name, process in processes.items():
        output, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        acknowledged[name] = [(int(position), int(number)) for position, number in map(str.split, output.splitlines())]
    return acknowledged


def check(path: Path, acknowledged: dict[str, list[tuple[int, int]]]) -> int:
    """Nothing acknowledged is lost or moved, no position is missing, the chain holds; returns the head."""
    log = EventLog.read(path)
    rows = log.select(Filter())
    assert [row.position for row in rows] == list(range(1, len(rows) + 1))
    previous = GENESIS
    for row in rows:
        assert link(previous, row) == row.hash, row.position
        previous = row.hash
    found = {}
    for event in log.events():
        if event.type == "notice.sent":
            found[event.position] = (event.data["kind"], event.data["about"])
    for name, acks in acknowledged.items():
        for position, number in acks:
            assert found[position] == (name, number)
    types = [row.type for row in rows]
    assert types.count("loop.paused") == types.count("notice.sent"), "half a transaction"
    assert types.count("store.migrated") == 1
    [intact] = sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone()
    assert intact == "ok"
    log.close()
    return len(rows)


@pytest.mark.parametrize("attempt", range(3))
def test_four_processes_may_open_a_new_store_at_once(tmp_path: Path, attempt: int) -> None:
    path = tmp_path / ".loop" / "loop.db"
    acknowledged = all_at_once(path, 4, 1)
    assert check(path, acknowledged) == 1 + 4 * 2


def test_32_writers_at_once_leave_no_gap_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".loop" / "loop.db"
    acknowledged = all_at_once(path, 32, 12)
    assert {name: len(acks) for name, acks in acknowledged.items()} == {f"p{index}": 12 for index in range(32)}
    assert check(path, acknowledged) == 1 + 32 * 12 * 2
    order = [
        name for _, name in sorted((position, name) for name, acks in acknowledged.items() for position, _ in acks)
    ]
    changes = sum(before != after for before, after in pairwise(order))
    assert changes >= 32, "they took turns, so nothing was concurrent"


def test_a_process_killed_at_any_instant_loses_no_acknowledged_event(tmp_path: Path) -> None:
    path = tmp_path / ".loop" / "loop.db"
    acknowledged: dict[str, list[tuple[int, int]]] = {}
    randomness = random.Random(20261123)
    attempt = 0
    until = time.monotonic() + KILLING_SECONDS
    while attempt < 9 or time.monotonic() < until:
        process = appender(path, f"p{attempt}", wait=False, rounds=1_000_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if attempt:  # the first is killed while it creates the store
            assert process.stdout.readline()
        time.sleep(randomness.uniform(0, 0.06))
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate(timeout=30)
        assert errors == ""
        lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
        acknowledged[f"p{attempt}"] = [(int(position), int(number)) for position, number in lines]
        if attempt:
            check(path, acknowledged)
        attempt += 1
    assert sum(map(len, acknowledged.values())) > attempt, "hardly anything was appended before the kills"


def test_a_reader_follows_a_writer_that_was_killed_and_one_that_goes_on(tmp_path: Path) -> None:
    """What a crash left in the write-ahead log is there for a reader that may not write."""
    path = tmp_path / "loop.db"
    process = appender(path, "dead", wait=False, rounds=5)
    process.communicate(timeout=30)
    process = appender(path, "killed", wait=False, rounds=1_000_000)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.kill()
    process.communicate(timeout=30)
    last = int(lines[-1].split()[0])
    reader = EventLog.read(path)
    assert reader.head().position >= last
    writer = EventLog.open(path)
    with writer.transaction() as transaction:
        new = transaction.append(NoticeSent(kind="new"), actor="test")
    assert reader.head().position == new.position
    writer.close()
    reader.close()
