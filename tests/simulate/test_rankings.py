"""The bench of selectors, run small: what docs/selector.md says in words holds, and its tables are the bench's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "selector.md").read_text("utf-8")


def rankings(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "tests/bench/rankings.py", *words],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def fleet() -> dict[str, dict[str, Any]]:
    """Three days of the fleet on one slot: selector -> its one run."""
    done = rankings("fleet", "--days", "3", "--runs", "1", "--slots", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["simulated"] == {"days": 3, "seed": 1, "runs": 1, "slots": 1}
    return {name: run for name, (run,) in found["workloads"]["fleet"].items()}


def test_where_slots_are_scarce_the_built_in_one_is_nearer_to_the_targets(fleet: dict[str, dict[str, Any]]) -> None:
    ours = fleet["built-in"]
    for other in ("uniform", "recorded", "drifting"):
        assert ours["distance"] < fleet[other]["distance"]
        assert ours["worst"] < fleet[other]["worst"]


def test_recorded_rankings_know_nothing_of_the_work_there_is(fleet: dict[str, dict[str, Any]]) -> None:
    assert fleet["recorded"]["noop_rate"] > max(fleet[name]["noop_rate"] for name in fleet if name != "recorded")


def test_the_tables_of_the_page_are_those_that_the_bench_prints() -> None:
    """Their figures take minutes to make again; their workloads, selectors and columns do not."""
    done = rankings("--days", "0.1", "--runs", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    heads = [line for line in lines if line.startswith(("###", "| selector", "|--"))]
    assert len(heads) == 6
    assert set(heads) <= set(PAGE.splitlines())
    names = [line.split("|")[1] for line in lines if line.startswith("| ")]
    tables = PAGE.split("## In simulation")[1]
    printed = [line.split("|")[1] for line in tables[tables.index("###") :].splitlines() if line.startswith("| ")]
    assert printed == 2 * names, "both workloads, with one slot and with their own"


def test_an_unknown_workload_names_the_known_ones() -> None:
    done = rankings("flood")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no workload is named flood; known: fleet, monitoring" in done.stderr
