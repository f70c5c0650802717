"""What is spent, reserved and unknown over a rolling day; and that unknown is never zero."""

from __future__ import annotations

from typing import Any

import pytest
from given import HOUR, Happening, Story, after, configured, failed, given, granted, lost, over, running

from projections.budgets import DAY, UNBOUNDED, Budget, reached
from projections.spending import KEPT, MOST, cost_of, tokens_of

COST = {"default": {"max_cost_per_day": 2.0}}


def budget(story: Story, scope: str = "pool:default", kind: str = "cost") -> Budget:
    [found] = [each for each in story.view().budgets[scope] if each.kind == kind]
    return found


def told(number: int, dollars: float | None = None, tokens: int | None = None, **changes: Any) -> Happening:
    """A session that ends and tells what it used, or does not."""
    usage = {"cost_usd": dollars, "tokens": tokens}
    known = {name: value for name, value in usage.items() if value is not None} or None
    outcome = changes.pop("outcome", "productive")

    def happen(story: Story) -> None:
        story.happens(running(f"s{number}", **changes), over(f"s{number}", outcome, usage=known))

    return happen


def test_only_what_has_a_budget_is_added_up() -> None:
    config = configured(pools=COST, categories={"code": {"max_runs_per_day": 5, "max_tokens_per_day": 9}, "docs": {}})
    found = given(config).view().budgets
    assert {scope: [each.kind for each in lines] for scope, lines in found.items()} == {
        "category:code": ["runs", "tokens"],
        "pool:default": ["cost"],
    }
    assert given(configured()).view().budgets == {}


def test_what_was_told_is_spent_and_a_live_session_has_its_share_reserved() -> None:
    story = given(configured(pools=COST), told(1, 0.25), told(2, 0.35), running("s3"))
    found = budget(story)
    assert (found.spent, found.each, found.open, found.reserved) == (600_000, 300_000, 1, 300_000)
    assert found.room == 3, "2.00 less 0.60 less 0.30 has room for three of 0.30"
    story.happens(over("s3", usage={"cost_usd": 1.2}))
    found = budget(story)
    assert (found.spent, found.each, found.reserved, found.room) == (1_800_000, 600_000, 0, 0)


def test_a_session_that_did_not_tell_counts_as_one_that_did() -> None:
    found = budget(given(configured(pools=COST), told(1, 0.5), told(2), running("s3"), lost("s3")))
    assert (found.spent, found.unknown, found.reserved, found.room) == (500_000, 2, 1_000_000, 1)


def test_where_nobody_has_told_yet_one_goes_first() -> None:
    story = given(configured(pools=COST))
    assert (budget(story).each, budget(story).room) == (None, 1)
    story.happens(running("s1"))
    assert (budget(story).reserved, budget(story).room) == (None, 0)


def test_a_budget_that_cannot_be_held_stays_shut_until_the_day_is_over() -> None:
    story = given(configured(pools=COST), told(1))
    assert (budget(story).unknown, budget(story).room) == (1, 0)
    assert reached(story.state, story.now) == {"pool:default": budget(story)}
    until = budget(story).until
    assert until is not None
    story.now = until - 1
    assert budget(story).room == 0
    story.now = until
    assert budget(story).room == 1
    assert reached(story.state, story.now) == {}


def test_sessions_known_to_cost_nothing_have_room_without_bound() -> None:
    assert budget(given(configured(pools=COST), told(1, 0.0))).room == UNBOUNDED


def test_runs_are_counted_at_the_grant_and_given_back_where_nothing_ran() -> None:
    config = configured(backends={"default": {"max_runs_per_day": 3}})
    story = given(config, running("s1"), granted("s2", "docs"))
    assert budget(story, "backend:default", "runs").room == 1
    story.happens(failed("s2"))
    assert budget(story, "backend:default", "runs").room == 2


@pytest.mark.parametrize(
    ("outcome", "reason", "category", "backend"),
    [
        ("limited", None, 0, 1),
        ("refused", "unauthorised", 0, 1),
        ("failed", "exit_code", 1, 1),
    ],
)
def test_a_refusal_is_no_run_of_the_category(outcome: str, reason: str | None, category: int, backend: int) -> None:
    limit = {"max_runs_per_day": 9, "max_cost_per_day": 1.0}
    story = given(configured(categories={"code": limit}, backends={"default": limit}), running("s1"))
    story.happens(over("s1", outcome, reason=reason))
    for scope, runs in (("category:code", category), ("backend:default", backend)):
        assert budget(story, scope, "runs").spent == runs
        assert budget(story, scope, "cost").unknown == runs, "what was refused without a word is no unknown of its own"


def test_a_day_is_the_hours_that_the_last_24_touch() -> None:
    story = given(configured(pools=COST), after(minutes=59), told(1, 1.0))
    begun = story.now
    story.now = begun + DAY
    assert budget(story).spent == 1_000_000, "the hour of its start is touched still"
    story.now = begun - begun % HOUR + HOUR + DAY
    assert (budget(story).spent, budget(story).until) == (0, None)


def test_each_scope_has_its_own() -> None:
    limit = {"max_cost_per_day": 1.0}
    config = configured(
        categories={"code": limit, "docs": limit},
        backends={"a": {"pool": "max", **limit}, "b": {"pool": "max", **limit}},
        pools={"max": limit},
    )
    one = told(1, 0.25, category="code", backend="a", pool="max")
    two = told(2, 0.5, category="docs", backend="b", pool="max")
    story = given(config, one, two)
    amounts = {scope: lines[0].spent for scope, lines in story.view().budgets.items()}
    assert amounts == {
        "category:code": 250_000, "category:docs": 500_000,
        "backend:a": 250_000, "backend:b": 500_000, "pool:max": 750_000,
    }  # fmt: skip


def test_it_stays_bounded() -> None:
    story = given(configured(pools=COST))
    for number in range(KEPT + 20):
        story.happens(told(number, 0.01), after(hours=1))
    assert len(story.state.spending["hours"]) == KEPT
    assert story.state.spending["live"] == {}


@pytest.mark.parametrize(
    ("usage", "tokens", "cost"),
    [
        (None, None, None),
        ({}, None, None),
        ({"tokens": 12, "cost_usd": 0.4}, 12, 400_000),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_tokens": 900, "cache_write_tokens": 3}, 10, None),
        ({"input_tokens": 5, "output_tokens": None, "cost_micros": 7}, None, 7),
        ({"tokens": 10**15, "cost_usd": 1e15}, MOST, MOST),
    ],
)
def test_usage_is_what_was_told_and_none_is_unknown(usage: Any, tokens: int | None, cost: int | None) -> None:
    assert (tokens_of(usage), cost_of(usage)) == (tokens, cost)
