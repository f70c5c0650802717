"""From a log and lanes to an answer: which tier, who first, who is left out and why; the same whatever the names."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    Happening,
    Story,
    after,
    configured,
    ended,
    gate,
    given,
    over,
    requested,
    running,
    started,
    tick,
)
from hypothesis import given as whenever
from hypothesis import settings
from hypothesis import strategies as st

from events.catalog import SelectionMade
from events.envelope import to_json
from loop.cascade.payload import derived, kept, payload
from loop.cascade.tasks import Files, Lane, Task
from loop.cascade.tiers import SAMPLE, WINDOWS, Answer, answer, is_saturated, withheld
from loop.selector import Ranking, parse
from projections.lessons import EVERY

QUARTER = {"target": 0.25}


def answered(story: Story, lanes: dict[str, Lane] | None = None, *, learn: bool = False, **weights: float) -> Answer:
    return answer(story.view(), lanes or {}, weights, learn=learn)


def order(found: Answer) -> list[str]:
    return [each.category for each in found.ranked]


def session(category: str, **end: Any) -> Happening:
    """One that is productive and over; nobody looks at its name."""

    def happen(story: Story) -> None:
        name = f"s{len(story.category)}"
        story.happens(running(name, category), over(name, **end), after(minutes=2))

    return happen


def had(*categories: str) -> list[Happening]:
    """One session after the other of these categories."""
    return [session(category) for category in categories]


def test_an_active_task_comes_first() -> None:
    found = answered(given(configured()), {"code": Lane(backlog="a", ready=3), "docs": Lane(active="b", ready=1)})
    assert (found.tier, found.ranked[0].category, found.ranked[0].task) == (1, "docs", "b")
    assert order(found) == ["docs", "code", "research"], "behind it the order is by score"


def test_without_one_it_is_the_best_scored_of_those_with_backlog() -> None:
    lanes = {"docs": Lane(backlog="a", ready=1), "research": Lane(backlog="b", ready=5)}
    found = answered(given(configured()), lanes)
    assert (found.tier, found.ranked[0].category, found.ranked[0].task) == (2, "research", "b")


def test_without_any_task_the_scores_alone_speak() -> None:
    found = answered(given(configured(), *had("code")))
    assert (found.tier, order(found)) == (3, ["docs", "research", "code"])


def test_whoever_is_owed_three_starts_and_scores_best_goes_before_a_task_at_hand() -> None:
    targets = {"code": QUARTER, "docs": QUARTER, "research": {"target": 0.5}}
    lanes = {"code": Lane(active="a", ready=1)}
    first = answered(given(configured(categories=targets), *had(*["code"] * 5)), lanes)
    assert first.ranked[0].category == "code"
    later = answered(given(configured(categories=targets), *had(*["code"] * 6)), lanes)
    assert (later.tier, later.ranked[0].category) == (3, "research")


def test_the_older_last_start_and_then_the_name_settle_equal_scores() -> None:
    weights = {"recency": 0.0, "gap": 0.0, "neglect": 0.0}
    assert order(answered(given(configured(), *had("code", "docs")), **weights)) == ["research", "code", "docs"]


# ── who is not offered ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_that_a_live_session_holds_is_withheld() -> None:
    story = given(configured(), requested("s1", task="a"))
    assert withheld(story.view()) == {"a"}
    story.happens(started("s1"), ended("s1"))
    assert withheld(story.view()) == set()


def test_a_task_found_blocked_is_withheld_for_eight_periods_also_behind_another() -> None:
    story = given(configured(), running("s1", task="a"), over("s1", "blocked"), after(minutes=30))
    story.happens(running("s2", task="b"), over("s2", "blocked"))
    assert withheld(story.view()) == {"a", "b"}, "or the two would be offered in turns"
    story.happens(after(minutes=7 * 30))
    assert withheld(story.view()) == {"b"}
    story.happens(after(minutes=30))
    assert withheld(story.view()) == set()


def test_a_blocked_task_is_offered_again_once_a_session_was_productive_on_it() -> None:
    story = given(configured(), running("s1", task="a"), over("s1", "blocked"))
    story.happens(running("s2", task="b"), over("s2"))
    assert withheld(story.view()) == {"a"}, "another task's success says nothing of it"
    story.happens(running("s3", task="c"), over("s3", done_task="a"))
    assert withheld(story.view()) == set()


def test_an_empty_lane_is_left_out_and_reported() -> None:
    story = given(configured(categories={"code": {"gate": True}, "docs": {}, "research": {}, "news": {}}))
    story.happens(tick(), gate("code", "no_work"), running("s1", "news"), over("s1", "blocked"))
    story.happens(configured(categories={"code": {"gate": True}, "docs": {}, "research": {}, "news": {}, "ops": {}}))
    found = answered(story, {"docs": Lane(held=2), "ops": Lane(over=3)})
    assert order(found) == ["research"], "of which nobody knows whether it has work"
    assert found.empty == {
        "code": "its gate has no work",
        "docs": "none of its open tasks is ready (of 2)",
        "ops": "all of its tasks are over (of 3)",
        "news": "its last session found it blocked, and no other task is ready",
    }


def test_a_gate_speaks_for_a_lane_whose_tasks_wait_or_are_over() -> None:
    story = given(configured(categories={"code": {"gate": True}}))
    for lane in (Lane(held=2), Lane(over=1)):
        assert order(answered(story, {"code": lane})) == ["code"], "it is asked in the same pass"
        for said, offered in (("work", ["code"]), ("error", ["code"]), ("no_work", [])):
            told = given(configured(categories={"code": {"gate": True}}), tick(), gate("code", said))
            assert order(answered(told, {"code": lane})) == offered


def test_a_category_that_only_starts_by_hand_is_not_offered() -> None:
    assert order(answered(given(configured(categories={"code": {"parallel": False}, "docs": {}})))) == ["docs"]


# ── the plateau ───────────────────────────────────────────────────────────────────────────────────────────────────────

FOUR = dict.fromkeys(("code", "docs", "research", "news"), QUARTER)


def crowd(starts: int) -> list[Happening]:
    """`code` has two starts of three, `docs` the third."""
    return had(*["code", "code", "docs"] * (starts // 3), *["code"] * (starts % 3))


def points(found: Answer, term: str) -> dict[str, float]:
    return {each.category: next(line.value for line in each.terms if line.name == term) for each in found.ranked}


def test_one_above_forty_percent_beside_one_under_five_is_a_plateau() -> None:
    found = answered(given(configured(categories=FOUR), *crowd(SAMPLE)), {"code": Lane(active="a", ready=1)})
    assert found.plateau == "code"
    assert points(found, "plateau") == {"code": -1, "docs": 0, "research": 1, "news": 1}
    assert (found.tier, found.ranked[0].category) == (3, "news"), "nor does its task at hand come first"


def test_there_is_none_before_ten_starts_nor_where_the_starved_have_no_supply() -> None:
    assert answered(given(configured(categories=FOUR), *crowd(SAMPLE - 1))).plateau is None
    empty = {"research": Lane(held=1), "news": Lane(held=1)}
    assert answered(given(configured(categories=FOUR), *crowd(12)), empty).plateau is None


def test_who_does_as_its_target_says_is_no_alarm() -> None:
    targets = {"code": {"target": 0.7}, "docs": {"target": 0.27}, "research": {"target": 0.03}}
    assert answered(given(configured(categories=targets), *crowd(12))).plateau is None


def test_an_alarm_that_rang_in_more_than_a_third_of_the_answers_only_nudges() -> None:
    assert not is_saturated([True] * (WINDOWS - 1))
    assert not is_saturated([True, True, *[False] * 4])
    assert is_saturated([True, True, True, *[False] * 4])

    def rang(story: Story) -> None:
        made = {"source": "builtin", "tier": 3, "ranking": [], "plateau": "code"}
        story.append(SelectionMade.model_validate(made))

    found = answered(given(configured(categories=FOUR), *crowd(12), *[rang] * WINDOWS))
    assert (found.plateau, found.saturated) == ("code", True)
    assert points(found, "plateau")["code"] == -0.25


# ── learning ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outcomes_tilt_a_weight_only_where_that_is_on() -> None:
    half = EVERY // 2
    story = given(configured(), *[session("code", grade=0.9)] * half, *[session("docs", grade=0.3)] * half)
    assert story.view().past.tilt["docs"] < 1 < story.view().past.tilt["code"]
    assert set(points(answered(story), "learned").values()) == {0}
    learned = points(answered(story, learn=True), "learned")
    assert (learned["docs"] < 0, learned["code"]) == (True, 0), "code had more than its share: nothing lifts it"


# ── what holds whatever happens ───────────────────────────────────────────────────────────────────────────────────────

NAMES = ("code", "docs", "news", "research")
LANES = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        Lane,
        active=st.sampled_from([None, "x"]),
        backlog=st.sampled_from([None, "y"]),
        ready=st.integers(0, 5),
        aliased=st.integers(0, 5),
        held=st.integers(0, 5),
        over=st.integers(0, 5),
    ),
)
STARTS = st.lists(st.sampled_from(NAMES), max_size=16)


@settings(max_examples=40)
@whenever(STARTS, LANES)
def test_an_answer_is_a_total_order_of_all_that_are_not_empty(starts: list[str], lanes: dict[str, Lane]) -> None:
    found = answered(given(configured(categories=NAMES), *had(*starts)), lanes)
    assert sorted(order(found)) == sorted(set(NAMES) - set(found.empty))
    behind = [each.score for each in found.ranked[1:]]
    assert behind == sorted(behind, reverse=True)
    assert all(each.score >= 1 for each in found.ranked)


@settings(max_examples=40)
@whenever(STARTS, LANES, st.permutations(NAMES))
def test_an_answer_is_the_same_under_other_names(starts: list[str], lanes: dict[str, Lane], new: list[str]) -> None:
    name = dict(zip(NAMES, new, strict=True))
    found = answered(given(configured(categories=NAMES), *had(*starts)), lanes)
    other = answered(
        given(configured(categories=[name[each] for each in NAMES]), *had(*map(name.__getitem__, starts))),
        {name[each]: lane for each, lane in lanes.items()},
    )
    assert {name[each.category]: each.terms for each in found.ranked} == {e.category: e.terms for e in other.ranked}
    assert {name[each] for each in found.empty} == set(other.empty)
    assert (found.tier, [each.score for each in found.ranked]) == (other.tier, [each.score for each in other.ranked])


@settings(max_examples=40)
@whenever(STARTS, LANES)
def test_its_payload_is_read_as_it_was_meant_and_can_be_made_again(starts: list[str], lanes: dict[str, Lane]) -> None:
    view = given(configured(categories=NAMES), *had(*starts)).view()
    tasks = [Task(f"{name}-{kind}", kind, tags=(name,)) for name in lanes for kind in ("active", "backlog", "waiting")]
    made = payload(view, Files(tuple(tasks)), aliases={}, weights={"gap": 2.0}, learn=True)
    ranking = parse(to_json(made).encode())
    assert isinstance(ranking, Ranking)
    assert [entry.category for entry in ranking.entries] == list(made["terms"])
    assert ranking.tier == made["tier"]
    assert to_json(derived(view, made)) == to_json(made)
    assert to_json(derived(view, kept(made, 1))) == to_json(made), "what the log keeps of a long one is enough"


@pytest.mark.parametrize("read", [None, [], {"lanes": {"code": {"colour": "red"}}, "weights": {}, "learn": False}])
def test_a_recorded_payload_that_is_none_of_ours_is_refused(read: object) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        derived(given(configured()).view(), {"read": read})
