"""What outcomes teach: bounded, slow, discounted, from graded sessions only."""

from __future__ import annotations

import pytest
from given import Story, configured, given, graded, over, running
from hypothesis import given as whenever
from hypothesis import strategies as st

from projections.lessons import BLOCKED_KEPT, EVERY, GRADES_KEPT, HIGHEST, LOWEST, STEP, mean, tilted


def sessions(story: Story, category: str, count: int, grade: float | None = None, **end: object) -> Story:
    for _ in range(count):
        name = f"s{len(story.category)}"
        story.happens(running(name, category, task=name), over(name, **{"grade": grade, **end}))  # type: ignore[arg-type]
    return story


def means(grades: dict[str, list[list[object]]]) -> dict[str, tuple[float, float]]:
    return {name: mean(items) for name, items in grades.items()}


def test_the_tilt_moves_once_in_fifty_starts() -> None:
    story = sessions(sessions(given(configured()), "code", 20, 0.9), "docs", EVERY - 21, 0.2)
    assert story.view().past.tilt == {}
    assert set(sessions(story, "docs", 1, 0.2).view().past.tilt) == {"code", "docs"}
    first = story.view().past.tilt
    assert sessions(story, "docs", EVERY - 1, 0.9).view().past.tilt == first
    assert sessions(story, "docs", 1, 0.9).view().past.tilt != first


def test_sessions_without_a_grade_teach_nothing() -> None:
    story = sessions(given(configured()), "code", 2 * EVERY)
    assert (story.view().past.tilt, story.view().past.grades) == ({}, {})


def test_a_grade_that_comes_later_takes_the_place_of_the_first() -> None:
    story = sessions(given(configured()), "code", 1, 0.2).happens(graded("s0", 0.8))
    assert story.view().past.grades == {"code": (0.8, 1.0)}


def test_the_means_are_those_of_the_grades_that_are_kept() -> None:
    story = sessions(sessions(given(configured()), "code", GRADES_KEPT + 5, 0.9), "docs", 3, 0.2)
    sessions(story, "code", 4, 0.1).happens(graded("s2", 0.5))
    assert story.state.lessons["means"] == means(story.state.lessons["grades"])
    assert story.view().past.grades.keys() == {"code", "docs"}


def test_the_newer_grade_counts_for_more() -> None:
    old, new = mean([["a", 0.0], ["b", 1.0]]), mean([["a", 1.0], ["b", 0.0]])
    assert old[0] > 0.5 > new[0]
    assert mean([]) == (0, 0)


def test_a_small_move_is_none() -> None:
    items: dict[str, list[list[object]]] = {"code": [["a", 0.52]] * 20, "docs": [["b", 0.5]] * 20}
    assert tilted(means(items), {"code": 1.0, "docs": 1.0}) == {"code": 1.0, "docs": 1.0}


def test_the_best_and_the_worst_come_to_the_bounds() -> None:
    graded = (("a", 1.0), ("b", 0.0), ("c", 0.0))
    items: dict[str, list[list[object]]] = {name: [["s", grade]] * GRADES_KEPT for name, grade in graded}
    assert tilted(means(items), {}) == {"a": HIGHEST, "b": LOWEST, "c": LOWEST}


GRADES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.lists(st.floats(0, 1).map(lambda grade: ["s", grade]), max_size=GRADES_KEPT),
)


@whenever(GRADES, st.dictionaries(st.sampled_from(["a", "b", "c"]), st.floats(LOWEST, HIGHEST)))
def test_a_tilt_is_within_its_bounds_and_moves_by_a_step_or_not_at_all(
    grades: dict[str, list[list[object]]], before: dict[str, float]
) -> None:
    after = tilted(means(grades), before)
    for name, tilt in after.items():
        assert LOWEST <= tilt <= HIGHEST
        moved = abs(tilt - before.get(name, 1.0))
        assert moved == 0 or moved >= STEP
    assert tilted(means(grades), after) == after, "and what it came to stays"


def test_what_is_remembered_is_bounded() -> None:
    story = sessions(given(configured()), "code", BLOCKED_KEPT + 10, 0.5, outcome="blocked")
    lessons = story.state.lessons
    assert len(lessons["blocked"]) == BLOCKED_KEPT
    assert len(lessons["grades"]["code"]) == GRADES_KEPT
    assert (len(lessons["starts"]), lessons["tasks"]) == (4, {})


@pytest.mark.parametrize("outcome", ["noop", "failed", "unproven"])
def test_only_a_blocked_end_says_that_a_task_is_blocked(outcome: str) -> None:
    story = given(configured())
    story.happens(running("s1", task="a"), over("s1", outcome))
    assert story.view().past.blocked == frozenset()
