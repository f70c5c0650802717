"""The kernel locks as a reconciler uses them, and the witness."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from loop.sessions import locks, proc

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lock_dir(tmp_path: Path) -> str:
    for key in ("a", "b", "code#2"):
        assert locks.create(str(tmp_path), key)
    return str(tmp_path)


def test_a_lock_file_is_made_once(lock_dir: str) -> None:
    path = locks.path_of(lock_dir, "a")
    before = os.stat(path).st_ino
    assert not locks.create(lock_dir, "a")
    assert os.stat(path).st_ino == before


@pytest.mark.parametrize("key", ["", "A", "../a", "a/b", "-a", "a" * 65, "a#", "a#x", "a\n", "ä"])
def test_what_is_no_key_reaches_no_path(lock_dir: str, key: str) -> None:
    with pytest.raises(ValueError, match="no lock key"):
        locks.path_of(lock_dir, key)
    with pytest.raises(ValueError, match="no lock key"):
        locks.try_hold(lock_dir, [key])


def test_all_keys_or_none(lock_dir: str) -> None:
    with locks.hold(lock_dir, ["b"], inherit=False):
        assert locks.try_hold(lock_dir, ["a", "b"]) is None
        alone = locks.try_hold(lock_dir, ["code#2", "a"])
        assert alone is not None
        assert alone.keys == ["a", "code#2"]
        alone.release()
        alone.release()
    both = locks.try_hold(lock_dir, ["b", "a", "a"])
    assert both is not None
    both.release()


def test_a_missing_lock_file_is_never_made(lock_dir: str) -> None:
    with pytest.raises(locks.LockRefused) as caught:
        locks.try_hold(lock_dir, ["a", "gone"])
    assert (caught.value.code, caught.value.key) == ("lock_missing", "gone")
    assert not os.path.exists(locks.path_of(lock_dir, "gone"))
    assert locks.try_hold(lock_dir, ["a"]) is not None, "and a is free again"


def test_a_child_that_inherits_keeps_the_key_but_a_reconciler_s_child_does_not(lock_dir: str) -> None:
    for inherit in (True, False):
        with locks.hold(lock_dir, ["a"], inherit=inherit):
            child = subprocess.Popen(["/bin/sleep", "60"], close_fds=False)
        try:
            still = locks.try_hold(lock_dir, ["a"])
            assert (still is None) is inherit
            if still is not None:
                still.release()
        finally:
            child.kill()
            child.wait()


def test_the_inherited_descriptor_cannot_write_into_the_witness(lock_dir: str) -> None:
    write = "import os\nfor fd in range(3, 50):\n  try: os.write(fd, b'x')\n  except OSError: pass"
    with locks.hold(lock_dir, ["a"], inherit=True):
        subprocess.run([sys.executable, "-I", "-S", "-c", write], close_fds=False, check=True)
    assert os.stat(locks.path_of(lock_dir, "a")).st_size == 0


def test_intervals_and_the_token_that_was_seen(lock_dir: str) -> None:
    path = locks.path_of(lock_dir, "a")
    assert locks.intervals(path) == []
    assert locks.last_token(path) is None
    for token in (5, 9):
        with locks.hold(lock_dir, ["a"], inherit=False) as held:
            held.note_acquired(token, f"s{token}")
            if token == 5:
                assert held.note_released() == []
                assert held.note_released() == []
                assert held.spans["a"]["from_ns"] < held.spans["a"]["to_ns"]
    first, second = locks.intervals(path)
    assert (first.token, first.session, first.ended) == (5, "s5", "released")
    assert (second.token, second.to_ns, second.ended) == (9, None, None)
    assert first.to_ns is not None
    assert first.from_ns < first.to_ns < second.from_ns
    assert locks.last_token(path) == 9


def test_a_reconciler_declares_a_holder_lost(lock_dir: str) -> None:
    with locks.hold(lock_dir, ["a"], inherit=False) as held:
        held.note_acquired(5, "s5")
    with locks.hold(lock_dir, ["a"], inherit=False) as held:
        held.note_lost("a", 5, "s5")
        with pytest.raises(AssertionError):
            held.note_lost("b", 5, "s5")
    (found,) = locks.intervals(locks.path_of(lock_dir, "a"))
    assert found.ended == "lost"
    assert found.to_ns is not None


def test_a_later_token_overtakes_before_anything_is_written(lock_dir: str) -> None:
    with locks.hold(lock_dir, ["b"], inherit=False) as held:
        held.note_acquired(7, "s7")
        held.note_released()
    for token in (6, 7):
        with (
            locks.hold(lock_dir, ["a", "b"], inherit=False) as held,
            pytest.raises(locks.LockRefused) as caught,
        ):
            held.note_acquired(token, "late")
        assert (caught.value.code, caught.value.key) == ("stale_token", "b")
    assert locks.intervals(locks.path_of(lock_dir, "a")) == []


def test_a_line_cut_short_counts_as_never_written_and_swallows_nothing(lock_dir: str) -> None:
    path = locks.path_of(lock_dir, "a")
    with open(path, "w") as file:
        file.write("A 3 s3 boot 10 1 1\nR 3 s3 boot 20\nA 4 s4 boo")
    assert locks.last_token(path) == 3
    with locks.hold(lock_dir, ["a"], inherit=False) as held:
        held.note_acquired(4, "s4")
        held.note_released()
    assert [(each.token, each.ended) for each in locks.intervals(path)] == [(3, "released"), (4, "released")]


def test_clocks_of_two_boots_are_not_mixed(lock_dir: str) -> None:
    path = locks.path_of(lock_dir, "a")
    with open(path, "w") as file:
        file.write(
            "A 3 s3 old 9000 1 1\nL 3 s3 new 20\nA 4 s4 new 30 1 1\nA 5 s5 new 40 1 1\nR 4 s4 new 50\nL 8 s8 new 60\n"
        )
    assert locks.intervals(path) == [
        (3, "s3", "old", 9000, None, "lost"),
        (4, "s4", "new", 30, 50, "released"),
        (5, "s5", "new", 40, None, None),
        (8, "s8", "new", 60, 60, "lost"),
    ]


def test_an_old_key_is_read_in_part_for_its_last_token(lock_dir: str) -> None:
    path = locks.path_of(lock_dir, "a")
    with open(path, "w") as file:
        file.writelines(f"A {n} s{n} boot {n} 1 1\nR {n} s{n} boot {n}\n" for n in range(1, 20_000))
    assert os.stat(path).st_size > 10 * locks.WITNESS_TAIL
    assert locks.last_token(path) == 19_999
    assert len(locks.intervals(path)) == 19_999


def test_a_witness_that_cannot_be_written_still_lets_go(lock_dir: str, tmp_path: Path) -> None:
    held = locks.hold(lock_dir, ["a"], inherit=False)
    held.note_acquired(5, "s5")
    os.rename(locks.path_of(lock_dir, "a"), tmp_path / "aside")
    (error,) = held.note_released()
    assert isinstance(error, FileNotFoundError)
    assert held.spans["a"]["boot"] == proc.boot_id()
    held.release()
    assert held.keys == []
