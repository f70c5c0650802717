"""`import --gptme-locks`: peak and overlaps from times of one second; what the file cannot tell is unknown."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import failing, report_of

from events.envelope import to_text
from events.errors import ImportFailed
from events.store import EventLog
from loop.transfer.gptme import History, Line, import_locks, read_history
from loop.transfer.importing import STORE
from projections import snapshots
from projections.figures import foreign
from tests.audit.test_export import loop
from tests.conftest import FakeClock

BASE = 1_790_000_000


def took(second: int, pid: int, lock: str = "code") -> str:
    return f"{BASE + second}|ACQUIRED|{pid}|{lock}|run.sh|at work | on | it"


def let(second: int, pid: int, lock: str = "code") -> str:
    return f"{BASE + second}|RELEASED|{pid}|{lock}|run.sh|done"


def shown(directory: Path, *lines: str) -> dict[str, Any]:
    history = read_history(io.BytesIO("".join(line + "\n" for line in lines).encode()))
    found = foreign(import_locks(history, "file", directory, FakeClock()))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("lines", "certain", "same_second", "unknown", "peak"),
    [
        ([took(0, 1), let(9, 1), took(10, 2), let(19, 2)], 0, 0, 0, 1),
        ([took(0, 1), took(5, 2), let(9, 1), let(19, 2)], 1, 0, 0, 2),
        ([took(0, 1), let(9, 1), took(9, 2), let(19, 2)], 0, 1, 0, 1),
        ([took(0, 1), took(9, 2), let(9, 1), let(19, 2)], 0, 1, 0, 1),
        ([took(0, 1), took(0, 2), let(0, 2), let(9, 1)], 0, 1, 0, 1),
        ([took(0, 1), took(0, 2), let(5, 2), let(9, 1)], 1, 0, 0, 2),
        ([took(0, 1), took(5, 2), let(9, 2)], 0, 0, 1, 1),  # was 1 killed, or did both run?
        ([took(0, 1), took(5, 1), let(9, 1)], 0, 0, 0, 1),  # nobody overlaps with himself
        ([took(0, 1), took(5, 2), let(6, 2), took(7, 3), let(8, 3), let(9, 1)], 2, 0, 0, 2),
        ([took(0, 1), took(5, 2, "docs"), let(9, 1), let(9, 2, "docs")], 0, 0, 0, 2),
        ([took(0, 1), took(0, 1, "docs"), let(9, 1), let(9, 1, "docs")], 0, 0, 0, 1),  # one process, two locks
        ([took(5, 2), let(9, 2), took(0, 1), let(7, 1)], 1, 0, 0, 2),  # out of order
    ],
)
def test_only_what_the_times_prove_is_certain(
    tmp_path: Path, lines: list[str], certain: int, same_second: int, unknown: int, peak: int
) -> None:
    found = shown(tmp_path / "into", *lines)
    overlaps = found["overlaps"]
    assert (overlaps["certain"], overlaps["same_second"], overlaps["unknown"]) == (certain, same_second, unknown)
    assert found["peak"]["count"] == peak


def test_a_missing_release_and_a_missing_acquire_are_counted(tmp_path: Path) -> None:
    found = shown(tmp_path / "into", let(0, 7), took(1, 1), took(2, 2), let(3, 2), took(4, 3, "docs"))
    assert (found["acquisitions"], found["unreleased"], found["orphan_releases"]) == (3, 2, 1)
    assert found["peak"] == {"count": 1, "at": to_text((BASE + 1) * 1_000_000), "possible": 2}
    assert [(line["key"], line["unreleased"]) for line in found["locks"]] == [("code", 1), ("docs", 1)]


HOLD = st.tuples(st.integers(0, 30), st.integers(0, 8), st.integers(1, 4), st.sampled_from(("a", "b")))


@given(st.lists(HOLD, max_size=12, unique_by=lambda hold: hold[2:]))
def test_certain_overlaps_are_those_of_a_second_computation(
    tmp_path_factory: pytest.TempPathFactory, holds: list[tuple[int, int, int, str]]
) -> None:
    events = [(begin, took(begin, pid, lock)) for begin, _, pid, lock in holds]
    events += [(begin + length, let(begin + length, pid, lock)) for begin, length, pid, lock in holds]
    if not events:
        return
    events.sort(key=lambda item: (item[0], "RELEASED" in item[1]))
    found = shown(tmp_path_factory.mktemp("locks") / "into", *(text for _, text in events))
    pairs = [(a, b) for n, a in enumerate(holds) for b in holds[:n] if a[3] == b[3] and a[2] != b[2]]
    certain = sum(a[0] < b[0] + b[1] and b[0] < a[0] + a[1] for a, b in pairs)
    touching = sum(a[0] <= b[0] + b[1] and b[0] <= a[0] + a[1] for a, b in pairs) - certain
    assert (found["overlaps"]["certain"], found["overlaps"]["same_second"]) == (certain, touching)


def test_garbage_is_counted_and_shown_and_harmless(tmp_path: Path) -> None:
    garbage = [b"", b"garbage", b"x|ACQUIRED|1|code|s|d", b"1|STOLEN|1|code|s|d", b"1|ACQUIRED|1|code", b"\xff\xfe|"]
    garbage += [b"1|ACQUIRED|1||s|d", b"999999999999|ACQUIRED|1|code|s|d", b"y" * 200_000, b"\x1b[31m|red"]
    raw = b"\n".join([took(0, 1).encode(), *garbage, let(4, 1).encode() + b"\xff\r\n"])
    history = read_history(io.BytesIO(raw))
    assert (history.read, history.not_understood, len(history.observed)) == (12, 9, 2)
    assert [number for number, _ in history.examples] == [3, 4, 5, 6, 7]
    with pytest.raises(ImportFailed, match="none of its"):
        import_locks(read_history(io.BytesIO(b"\n".join(garbage))), "file", tmp_path / "into", FakeClock())
    assert not (tmp_path / "into").exists()


def test_a_newcomer_sees_the_last_month_before_switching(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.write_text("\n".join([took(0, 1), took(5, 2), "?", took(6, 3, "docs"), let(9, 1), let(19, 2)]) + "\n")
    done = loop("import", "--gptme-locks", "history", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for text in ("1 not understood", "line 3: ?", "1 same-lock overlaps in 3 locks taken", "3 at once", "unknown"):
        assert text in done.stdout, done.stdout
    into = tmp_path / ".loop-gptme-locks"
    assert loop("import", "--gptme-locks", "history", cwd=tmp_path).returncode == 1, "never over what is there"
    status = json.loads(loop("-C", str(into), "status", "--json", cwd=tmp_path).stdout)
    assert (status["slots"]["peak"], status["slots"]["live"]) == (3, None)
    assert (status["violations"]["same_lock"], status["violations"]["of"]) == (1, 3)
    assert status["noop"]["rate"] is status["noop"]["of"] is status["backends"]["total"] is None
    text = loop("-C", str(into), "status", cwd=tmp_path).stdout
    assert "1 same-lock overlaps" in text
    assert "unknown" in text
    assert loop("-C", str(into), "tick", cwd=tmp_path).returncode == 6
    assert failing(report_of(into / STORE)) == {}
    as_json = json.loads(loop("import", "--gptme-locks", "history", "--into", "b", "--json", cwd=tmp_path).stdout)
    assert (as_json["schema"], as_json["overlaps"]["certain"]) == ("loop.import/1", 1)


def test_beside_a_project_and_never_in_its_log(tmp_path: Path) -> None:
    assert loop("init", cwd=tmp_path).returncode == 0
    before = (tmp_path / ".loop" / "loop.db").read_bytes()
    (tmp_path / "history").write_text(took(0, 1) + "\n")
    assert loop("import", "--gptme-locks", "history", cwd=tmp_path).returncode == 0
    assert (tmp_path / ".loop-gptme-locks" / ".loop" / "loop.db").exists()
    assert (tmp_path / ".loop" / "loop.db").read_bytes() == before


def test_a_long_history_takes_seconds_and_its_state_stays_small(tmp_path: Path) -> None:
    observed = []
    for number in range(10_000):
        observed.append(Line(BASE + number * 60, True, number, f"lock-{number % 400}", "s", "d"))
        if number % 3:
            observed.append(Line(BASE + number * 60 + 59, False, number, f"lock-{number % 400}", "s", "d"))
    begun = time.process_time()
    state = import_locks(History(observed, len(observed), 0, [], 0), "file", tmp_path / "into", FakeClock())
    assert time.process_time() - begun < 15
    assert len(state.dump()) < 200_000
    log = EventLog.read(tmp_path / "into" / STORE)
    assert snapshots.load(log).dump() == state.dump()
    log.close()


def test_what_a_lock_history_cannot_tell_is_missing_to_every_question(tmp_path: Path) -> None:
    (tmp_path / "history").write_text("\n".join([let(0, 9), took(1, 1), took(5, 2), let(9, 1), let(19, 2)]) + "\n")
    assert loop("import", "--gptme-locks", "history", "--into", "h", cwd=tmp_path).returncode == 0

    def when(text: str) -> list[tuple[int, object]]:
        found = json.loads(loop("-C", "h", "when", text, "--json", cwd=tmp_path).stdout)
        return [(interval["opened_by"], interval["to"]) for interval in found["intervals"]]

    for text in ("live == 0", "mode == 'running'", "intent_lost == 0", "noop_rate == 0", "capacity == 0"):
        assert when(text) == [], text
    assert when("live == None and mode == None and intent_lost == None") == [(2, None)], "from the first observation on"
    assert when("violations == 1") == [(4, None)]
    status = json.loads(loop("-C", "h", "status", "--at", "2", "--json", cwd=tmp_path).stdout)
    assert (status["mode"], status["slots"]["live"], status["selection"]["ignored"]) == (None, None, None)
