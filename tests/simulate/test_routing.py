"""The bench of policies, run small: what docs/routing.md says in words holds, and its tables are the bench's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bench.contenders import lottery, stride
from tests.bench.decide import seen

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "routing.md").read_text("utf-8")
BENCH = "tests/bench/routing.py"
CAPPED = ("intent, cap 1.75", "fair, cap 1.75")


def routing(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, BENCH, *words], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.fixture(scope="module")
def flat() -> dict[str, dict[str, Any]]:
    """Two days of the profile that is feasible: policy -> its one run, with the goals that it missed."""
    done = routing("flat", "--days", "2", "--runs", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["simulated"] == {"days": 2, "seed": 1, "runs": 1}
    (profile,) = found["profiles"]
    assert profile["least_worst"] == pytest.approx(1)
    return {row["policy"]: {**row["runs"][0], "missed": row["missed"]} for row in profile["rows"]}


def test_the_allowlists_order_leaves_out_categories_that_have_work(flat: dict[str, dict[str, Any]]) -> None:
    assert flat["first n"]["left_out"] >= 1
    assert flat["first n"]["worst"] > 3
    assert flat["first n"]["missed"] == ["worst", "left out"]


def test_fair_is_under_twice_every_target_and_leaves_nobody_out(flat: dict[str, dict[str, Any]]) -> None:
    assert flat["fair"]["missed"] == []
    assert (flat["fair"]["worst"] < 1.5, flat["fair"]["left_out"]) == (True, 0)
    assert flat["fair"]["deviation"] < min(flat[other]["deviation"] for other in ("first n", "lottery", "intent"))


def test_the_cap_brings_the_selectors_order_under_twice_every_target_and_keeps_the_slots_busy(
    flat: dict[str, dict[str, Any]],
) -> None:
    assert flat["intent"]["worst"] > 2
    for name in CAPPED:
        assert flat[name]["missed"] == []
        assert flat[name]["busy"] > 0.95


def test_the_tables_of_the_page_are_those_that_the_bench_prints() -> None:
    """Their figures take a quarter of an hour to make again; their profiles, policies and columns do not."""
    done = routing("flat", "skew", "--days", "0.1", "--runs", "1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    heads = [line for line in lines if line.startswith(("###", "| policy", "|--"))]
    assert len(heads) == 6
    assert set(heads) <= set(PAGE.splitlines())
    tables = PAGE.split("## The tables")[1]
    rows = Counter(line.split("|")[1] for line in tables.splitlines() if line.startswith("| "))
    printed = Counter(line.split("|")[1] for line in lines if line.startswith("| "))
    assert {name: rows[name] for name in printed} == {name: 2 * count for name, count in printed.items()}


def test_an_unknown_profile_names_the_known_ones() -> None:
    done = routing("steep")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no profile is named steep; known: flat, fleet, skew, skew-lanes" in done.stderr


@dataclass(frozen=True)
class Named:
    """A candidate as policies see it."""

    name: str
    rank: int | None = 1
    rule: str | None = "all_scores"
    score: int | None = None
    claim: int = 0
    last_started: int | None = None


def test_the_lottery_draws_by_the_targets() -> None:
    view = seen("intent", 3, 2)  # targets 1 : 2 : 3
    asked = [Named(name) for name in view.categories]
    first = Counter(lottery(view._replace(position=number), asked)[0].name for number in range(3_000))
    assert [first[each.name] / 3_000 for each in asked] == pytest.approx([1 / 6, 2 / 6, 3 / 6], abs=0.03)
    assert lottery(view, asked) == lottery(view, asked[::-1])


def test_the_least_stride_comes_first() -> None:
    view, order = seen("intent", 3, 2), []
    view = view._replace(categories={n: each._replace(requested=0, started=0) for n, each in view.categories.items()})
    for _ in range(6):
        first = stride(view, [Named(name) for name in view.categories])[0].name
        order.append(first)
        each = view.categories[first]
        view = view._replace(categories={**view.categories, first: each._replace(started=each.started + 1)})
    assert order == ["c0002", "c0001", "c0002", "c0000", "c0001", "c0002"], "passes 2, 3, 4, and three times 6"
