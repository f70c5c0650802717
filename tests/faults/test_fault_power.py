"""Power loss: the write-ahead log ends at a random byte. What is left is a prefix, whole, with all that was durable."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from events.catalog import LoopPaused, NoticeSent
from events.chain import GENESIS, link
from events.place import wal_bytes
from events.sqlite import wal_is_safe
from events.store import EventLog, Filter
from tests.audit.stores import failing, report_of

pytestmark = pytest.mark.skipif(not wal_is_safe(), reason="this SQLite keeps no write-ahead log")

COMMITS = 60


class Recorded:
    """A log with the length of its write-ahead log after each commit; everything up to there was synced by then."""

    def __init__(self, path: Path, randomness: random.Random) -> None:
        self.path = path
        log = EventLog.open(path)
        log._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        log._connection.execute("PRAGMA wal_autocheckpoint = 0")
        self.durable = [(0, 1)]  # (bytes of the write-ahead log, the head that they hold)
        for number in range(COMMITS):
            with log.transaction() as transaction:
                for _ in range(randomness.randint(1, 4)):
                    transaction.append(LoopPaused(reason="x" * randomness.randint(0, 6_000)), actor="test")
                last = transaction.append(NoticeSent(kind="end", about=number), actor="test")
            self.durable.append((wal_bytes(path), last.position))
        self.rows = log.select(Filter())
        self.base, self.wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
        log.close()

    def after_a_cut(self, path: Path, kept: bytes) -> Path:
        path.write_bytes(self.base)
        Path(f"{path}-wal").write_bytes(kept)
        Path(f"{path}-shm").unlink(missing_ok=True)
        return path


@pytest.mark.parametrize("seed", range(3))
def test_a_write_ahead_log_cut_at_any_byte_leaves_a_prefix_with_everything_durable(tmp_path: Path, seed: int) -> None:
    randomness = random.Random(seed)
    recorded = Recorded(tmp_path / "loop.db", randomness)
    ends = {head for _, head in recorded.durable}
    heads = set()
    for attempt in range(60):
        cut = randomness.randint(0, len(recorded.wal))
        kept = recorded.wal[:cut]
        if attempt % 3 == 1:  # what was not synced may be anything
            kept += randomness.randbytes(randomness.randint(1, 9_000))
        elif attempt % 3 == 2:
            kept += bytes(len(recorded.wal) - cut)
        path = recorded.after_a_cut(tmp_path / "cut.db", kept)
        log = EventLog.open(path)
        rows = log.select(Filter())
        durable = max(head for size, head in recorded.durable if size <= cut)
        assert rows == recorded.rows[: len(rows)], "no prefix"
        assert len(rows) == durable, "lost what was synced, or came by what was not"
        assert len(rows) in ends, "half a transaction"
        previous = GENESIS
        for row in rows:
            assert link(previous, row) == row.hash
            previous = row.hash
        with log.transaction() as transaction:
            assert transaction.append(NoticeSent(kind="on"), actor="test").position == len(rows) + 1
        log.close()
        heads.add(len(rows))
        if attempt % 10 == 0:
            assert failing(report_of(path)) == {}
    assert len(heads) > 20, "the cuts were hardly any different"


def test_a_copy_taken_at_any_moment_between_two_commits_is_whole(tmp_path: Path) -> None:
    """As a snapshot of the disk would take it: store and write-ahead log together, with a checkpoint now and then."""
    randomness = random.Random(9)
    path = tmp_path / "loop.db"
    log = EventLog.open(path)
    for number in range(60):
        with log.transaction() as transaction:
            last = transaction.append(LoopPaused(reason="x" * 3_000), actor="test").position
        if number % 13 == 12:
            log._connection.execute(f"PRAGMA wal_checkpoint({randomness.choice(['PASSIVE', 'TRUNCATE'])})").fetchall()
        if randomness.random() < 0.5:
            copy = tmp_path / f"{number}.db"
            shutil.copyfile(path, copy)
            shutil.copyfile(f"{path}-wal", f"{copy}-wal")
            assert EventLog.open(copy).head().position == last
            assert failing(report_of(copy)) == {}
    log.close()
