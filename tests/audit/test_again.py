"""What `verify` makes a second time: decisions, snapshots, and the figures at head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import Rows, at, changed, detail, failing, folded, replaced, report_of, snapshot, tamper, write

from events.store import EventLog
from loop.audit import projected
from loop.audit.checks import Tally
from loop.decider import DECIDER


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {"policy": "luck"},
        lambda data: {"basis": data["basis"] - 1},
        lambda data: {"now": "2026-11-23T00:00:00.000000Z"},
        lambda data: {"candidates": data["candidates"][:-1]},
        lambda data: {"extra": None},
    ],
)
def test_an_altered_decision(tmp_path: Path, sound: Rows, change: Callable[[Any], Any]) -> None:
    bad = at(sound, "fanout.decided", policy="intent")
    rows = replaced(sound, bad, lambda row: changed(row, **change(json.loads(row.data))))
    assert failing(report_of(write(tmp_path / "loop.db", rows))) == {"decisions": bad}


def test_a_decision_is_compared_byte_for_byte(tmp_path: Path, sound: Rows) -> None:
    bad = at(sound, "fanout.decided")
    rows = replaced(sound, bad, lambda row: row._replace(data=row.data.replace('"policy":', '"policy": ')))
    assert failing(report_of(write(tmp_path / "loop.db", rows))) == {"decisions": bad}


def test_a_decision_by_another_version_of_the_rules_is_counted_and_not_compared(tmp_path: Path, sound: Rows) -> None:
    other = at(sound, "fanout.decided")
    rows = replaced(sound, other, lambda row: changed(row, decider=DECIDER + 1, policy="of old"))
    report = report_of(write(tmp_path / "loop.db", rows))
    assert failing(report) == {}
    assert detail(report, "decisions").startswith("1 by another version")


def test_an_altered_snapshot(tmp_path: Path, sound: Rows) -> None:
    path = write(tmp_path / "loop.db", sound, keep_snapshots=(300, 600))
    wrong = snapshot(sound, 599)
    tamper(path, f"UPDATE snapshots SET state = x'{wrong.hex()}' WHERE position = 600")
    assert failing(report_of(path)) == {"snapshots": 600}
    tamper(path, "UPDATE snapshots SET state = x'00' WHERE position = 300")
    assert failing(report_of(path)) == {"snapshots": 300}


def test_snapshots_that_nobody_reads_are_counted(tmp_path: Path, sound: Rows) -> None:
    path = write(tmp_path / "loop.db", sound, keep_snapshots=(300, 600))
    tamper(path, "UPDATE snapshots SET version = 'old', state = x'00' WHERE position = 300")
    report = report_of(path)
    assert failing(report) == {}
    assert detail(report, "snapshots").startswith("1 of another version")


def _first(values: Any) -> Any:
    return next(iter(values))


FIGURES: dict[str, Callable[[Any], object]] = {
    "live sessions": lambda state: state.sessions["live"].pop(_first(state.sessions["live"])),
    "ended sessions": lambda state: state.sessions.update(ended=state.sessions["ended"] + 1),
    "unproven sessions": lambda state: state.outcomes.update(unproven=99),
    "the last assessed": lambda state: state.outcomes["assessed"][3].update(outcome="stalled?"),
    "sessions spawned": lambda state: state.allocation.update(total=1),
    "decisions of the last fires": lambda state: _first(state.selection["fires"].values()).update(
        at="2026-11-23T14:00:00.000001Z"
    ),
    "held locks": lambda state: state.locks["held"].clear(),
    "the fold that SQL does not find": lambda state: state.locks["items"].append(
        {"key": "k", "token": 9, "kind": "intervals_overlap"}
    ),
    "started (count, seconds)": lambda state: _first(
        _first(state.allocation["hours"].values()).values()
    ).__setitem__(1, 500_000),
    "ends lost in hour 2026-11-23T14": lambda state: (
        state.outcomes["counts"].setdefault("2026-11-23T14", {}).update(lost=50)
    ),
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_fold_that_differs_from_sql(tmp_path: Path, sound: Rows, figure: str) -> None:
    upto = next(row.position for row in sound if row.position > 500 and folded(sound[: row.position]).locks["held"])
    log = EventLog.read(write(tmp_path / "loop.db", sound[:upto]))
    state = folded(sound[:upto])
    tally = Tally("projections")
    projected.compare(log, state, [], False, tally)
    assert tally.check().ok
    FIGURES[figure](state)
    projected.compare(log, state, [], False, tally)
    assert not tally.check().ok
    assert figure in tally.check().detail
    log.close()
