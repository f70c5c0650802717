"""The observer counts what overlaps and nothing else: a torture run is worth what its observer is."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.observer import Line, Sampler, lines, overlaps, spans
from tests.torture.processes import KEYS_VARIABLE, RUN_VARIABLE, living, of_run, send

WAIT = [sys.executable, "-I", "-S", "-c", "import sys; print(flush=True); sys.stdin.read()"]


def said(*each: tuple[int, str, str]) -> list[str]:
    return overlaps(spans(Line(ns, tuple(keys.split(",")), session, 1, "here") for ns, keys, session in each))


def test_one_after_the_other_is_no_overlap() -> None:
    assert said((1, "a", "s1"), (5, "a", "s1"), (6, "a", "s2"), (9, "a", "s2")) == []


def test_two_at_once_under_one_key_are_counted_with_the_key_and_both_sessions() -> None:
    (found,) = said((1, "a", "s1"), (7, "a", "s1"), (6, "a", "s2"), (9, "a", "s2"))
    assert found.startswith("a: s1 and s2")


def test_a_late_line_of_an_escapee_counts_for_its_session() -> None:
    """One long session over two short ones overlaps both."""
    assert len(said((1, "a", "s1"), (2, "a", "s2"), (3, "a", "s2"), (4, "a", "s3"), (9, "a", "s1"))) == 2


def test_two_categories_overlap_only_in_the_key_they_share() -> None:
    (found,) = said((1, "a,shared", "s1"), (9, "a,shared", "s1"), (5, "b,shared", "s2"), (6, "c", "s3"))
    assert found.startswith("shared: ")


def test_a_line_that_no_worker_writes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("12 a s1 77 enter\ntorn")
    with pytest.raises(ValueError):
        lines(tmp_path / "seen")


@pytest.fixture
def run() -> Iterator[str]:
    word = secrets.token_hex(8)
    yield word
    assert of_run(word) == []


def worker(run: str, keys: str, session: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, RUN_VARIABLE: run, KEYS_VARIABLE: keys, "LOOP_SESSION": session}
    process = subprocess.Popen(WAIT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_sample_sees_two_living_sessions_of_one_key_and_forgets_the_dead(run: str) -> None:
    sampler = Sampler(run)
    with worker(run, "a", "s1") as one, worker(run, "a,b", "s2") as other, worker(run, "c", "s3") as third:
        (found,) = sampler.look()
        assert found.startswith("a: ")
        other.communicate()
        assert sampler.look() == set()
        one.communicate()
        third.communicate()


def test_a_sample_does_not_see_two_processes_of_one_session_nor_another_run(run: str) -> None:
    with worker(run, "a", "s1") as one, worker(run, "a", "s1") as other, worker(run + "x", "a", "s2") as stranger:
        assert Sampler(run).look() == set()
        for process in (one, other, stranger):
            process.communicate()


def test_a_signal_is_for_the_process_that_was_seen_and_not_for_the_next_of_its_pid(run: str) -> None:
    with worker(run, "a", "s1") as process:
        (found,) = of_run(run)
        assert found == living(process.pid)
        assert not send(found._replace(start=found.start - 1), signal.SIGKILL)
        assert send(found, signal.SIGKILL)
        assert process.wait() == -9
