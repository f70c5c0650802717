"""Which backend a session gets, and what the decision says of every other that it considered."""

from __future__ import annotations

from typing import Any

import pytest
from given import Happening, after, by_hand, configured, given, limited, over, ranking, restrained, running, tick

from loop.decider import BACKENDS, Candidate, Decision, decide
from loop.words import BACKEND_WORDS, VERDICTS

SHARED = {"one": {"pool": "max"}, "two": {"pool": "max"}, "own": {"pool": "own"}}


def decision(*happenings: Happening, ranked: tuple[str, ...] = ("code", "docs", "research"), **config: Any) -> Decision:
    return decide(given(configured(**config), *happenings, tick(), ranking(*ranked)).view())


def candidate(found: Decision, name: str) -> Candidate:
    [one] = [each for each in found.candidates if each.category == name]
    return one


def chosen(found: Decision) -> dict[str, str]:
    return {choice.category: choice.backend for choice in found.chosen}


def test_a_half_open_pool_gets_one_probe_and_the_rest_of_the_fleet_goes_elsewhere() -> None:
    found = decision(limited("max", minutes=30), after(minutes=30), backends=SHARED)
    assert chosen(found) == {"code": "one", "docs": "own", "research": "own"}
    assert candidate(found, "code").backends == {"one": "probe", "two": "later", "own": "later"}
    assert candidate(found, "docs").backends == {"one": "probing", "two": "probing", "own": "only_one"}


def test_six_siblings_of_one_account_make_one_probe_and_no_stampede() -> None:
    backends = {f"b{number}": {"pool": "max"} for number in range(6)}
    names = tuple(f"c{number}" for number in range(6))
    happened = (limited("max", minutes=30), after(minutes=30))
    found = decision(*happened, ranked=names, categories=names, backends=backends, slots=6)
    assert chosen(found) == {"c0": "b0"}
    assert {each.verdict for each in found.candidates[1:]} == {"no_backend"}
    story = given(configured(categories=names, backends=backends, slots=6), *happened, tick(), ranking(*names))
    story.happens(running("s1", "c0", backend="b0", pool="max"), after(minutes=1), tick(), ranking(*names))
    assert chosen(decide(story.view())) == {}, "nor does the next pass while the probe is under way"


def test_a_pool_has_so_many_sessions_at_once_whichever_backend_they_run_on() -> None:
    pools = {"max": {"concurrency": 2}}
    found = decision(running("s1", "x", backend="one", pool="max"), backends=SHARED, pools=pools, slots=9)
    assert chosen(found) == {"code": "two", "docs": "own", "research": "own"}
    assert candidate(found, "docs").backends == {"one": "pool_full", "two": "pool_full", "own": "only_one"}


@pytest.mark.parametrize(
    ("happened", "config", "word"),
    [
        ([limited("max", minutes=9)], {}, "limited"),
        ([limited("max")], {}, "unknown"),
        ([restrained("paused", "backend", "one")], {}, "paused"),
        ([running("s1", "x", backend="one", pool="max")], {"one": {"pool": "max", "concurrency": 1}}, "full"),
        ([running("s1", "x", backend="one", pool="max")], {"one": {"pool": "max", "max_runs_per_day": 1}}, "budget"),
    ],
)
def test_each_obstacle_is_named_and_the_category_runs_on_another(
    happened: list[Happening], config: dict[str, Any], word: str
) -> None:
    found = decision(
        *happened, backends={**SHARED, **config}, categories={"code": {"backends": ["one", "own"]}}, ranked=("code",)
    )
    assert candidate(found, "code").backends == {"one": word, "own": "next_named"}


def test_a_backend_without_a_command_is_none_for_a_category_without_one() -> None:
    backends = {"one": {"command": False}, "two": {}}
    found = decision(backends=backends, categories={"code": {"own_command": False}}, ranked=("code",))
    assert candidate(found, "code").backends == {"one": "no_command", "two": "only_one"}


def test_a_category_that_spent_its_budget_waits_and_the_others_go_on() -> None:
    categories = {"code": {"max_runs_per_day": 1}, "docs": {}}
    found = decision(running("s1"), over("s1"), categories=categories, ranked=("code", "docs"))
    assert chosen(found) == {"docs": "default"}
    skipped = candidate(found, "code")
    assert (skipped.verdict, skipped.also) == ("budget_spent", ())
    assert skipped.detail["scope"] == "category:code"
    assert (skipped.detail["kind"], skipped.detail["limit"], skipped.detail["spent"]) == ("runs", 1, 1)
    assert skipped.detail["until"] == "2026-11-24T15:00:00.000000Z"
    assert "1 runs a day, of which 1 runs spent" in VERDICTS["budget_spent"](skipped.detail)


def test_one_decision_does_not_grant_more_than_a_budget_has_room_for() -> None:
    found = decision(pools={"default": {"max_runs_per_day": 2}})
    assert chosen(found) == {"code": "default", "docs": "default"}
    assert candidate(found, "research").verdict == "budget_spent"


def test_siblings_of_one_pass_each_reserve_their_share_of_the_money() -> None:
    """Counting only what is spent would grant all three of what is enough for two."""
    usage = {"cost_usd": 1.0}
    found = decision(running("s1"), over("s1", usage=usage), pools={"default": {"max_cost_per_day": 3.0}})
    assert len(chosen(found)) == 2


def test_by_hand_a_budget_holds_all_the_same() -> None:
    config = configured(categories={"code": {"max_runs_per_day": 1}})
    found = decide(given(config, running("s1"), over("s1"), by_hand("code")).view())
    assert candidate(found, "code").verdict == "budget_spent"


def test_every_word_on_a_backend_has_its_sentence() -> None:
    assert set(BACKEND_WORDS) == set(BACKENDS)
