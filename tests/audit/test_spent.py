"""What budgets rest on, computed a second time: the SQL agrees with the fold, and says where it does not."""

from __future__ import annotations

from typing import Any

import pytest
from given import after, configured, failed, given, granted, lost, over, running, started
from histories import history
from written import written

from loop.audit.checks import Tally
from loop.audit.spent import compare
from loop.audit.usage import total, usage
from projections.spending import COST, RUNS, TOKENS
from projections.state import State

USAGES: list[Any] = [
    None,
    {},
    {"tokens": 12, "cost_usd": 0.0000005},
    {"input_tokens": 5.7, "output_tokens": 2.7, "cache_write_tokens": None, "cost_micros": 7.9},
    {"input_tokens": 5, "output_tokens": None},
    {"tokens": 10**15, "cost_usd": 1e15},
]


def checked(log: Any, state: State) -> Tally:
    tally = Tally("test")
    compare(log, state, False, tally)
    return tally


@pytest.mark.parametrize("seed", range(6))
def test_the_log_says_what_the_fold_has(seed: int) -> None:
    log = written(history(seed, 150).events)
    tally = checked(log, State().fold(log.events()))
    assert (tally.faults, tally.checked > 0) == (0, True), tally


def test_it_reads_whatever_usage_a_session_tells_as_the_fold_does() -> None:
    story = given(configured())
    for number, told in enumerate(USAGES):
        for outcome, reason in (("noop", None), ("limited", None), ("refused", "unauthorised")):
            id = f"s{number}-{outcome}"
            story.happens(running(id), over(id, outcome, reason=reason, usage=told), after(minutes=25))
    story.happens(granted("gone"), failed("gone", "command_not_found"), granted("lost"), started("lost"), lost("lost"))
    story.happens(granted("live", "docs"))
    log = written(story.events)
    tally = checked(log, State().fold(log.events()))
    assert tally.faults == 0, tally
    lines = usage(log, "category", 0, len(story.events))
    assert total(lines)["sessions"] == 3 * len(USAGES) + 3
    assert {line["name"]: (line["live"], line["turned_away"]) for line in lines} == {
        "code": (0, 2 * len(USAGES) + 1), "docs": (1, 0),
    }  # fmt: skip


@pytest.mark.parametrize("place", [RUNS, TOKENS, COST])
def test_a_cell_that_is_not_what_the_log_says_is_found(place: int) -> None:
    story = given(configured(), running("s1"), over("s1", usage={"tokens": 12, "cost_usd": 0.5}))
    log = written(story.events)
    state = State().fold(log.events())
    [cells] = state.spending["hours"].values()
    cells["pool:default"][place] += 1
    tally = checked(log, state)
    assert tally.faults == 1
    assert "pool:default" in str(tally.text)
