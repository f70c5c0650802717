"""Conversations that were cut off: kept until the next session of their kind, counted, and bounded."""

from __future__ import annotations

from given import Story, configured, failed, given, granted, over, running

from projections.resumes import KEPT, CutOff

REFUSED = {"outcome": "limited", "resume_token": "r-1"}


def kept(story: Story) -> list[CutOff]:
    return story.state.resumes["cut_off"]


def test_what_was_refused_is_kept_with_the_agents_name_for_it() -> None:
    [item] = kept(given(configured(), running("s1", task="t1"), over("s1", **REFUSED)))
    assert (item["session"], item["category"], item["task"], item["token"]) == ("s1", "code", "t1", "r-1")
    assert item["tries"] == 0


def test_what_has_no_name_or_came_to_an_end_is_not() -> None:
    story = given(configured(), running("s1"), over("s1", outcome="limited", resume_token=None))
    story.happens(running("s2"), over("s2", outcome="failed", resume_token="r-2"))
    assert kept(story) == []


def test_the_next_of_its_category_and_task_takes_its_place_and_counts_if_it_goes_on() -> None:
    story = given(configured(), running("s1"), over("s1", **REFUSED))
    story.happens(running("s2", task="other"), over("s2", **REFUSED))
    assert [item["session"] for item in kept(story)] == ["s1", "s2"]
    story.happens(running("s3", resumes="s1"))
    assert [item["session"] for item in kept(story)] == ["s2"]
    story.happens(over("s3", **REFUSED))
    assert [(item["session"], item["tries"]) for item in kept(story)] == [("s2", 0), ("s3", 1)]
    story.happens(running("s4"), over("s4", **REFUSED))
    assert [(item["session"], item["tries"]) for item in kept(story)][-1] == ("s4", 0), "it began anew"


def test_a_session_that_never_ran_took_nothing_away() -> None:
    story = given(configured(), running("s1"), over("s1", **REFUSED), granted("s2", resumes="s1"))
    assert kept(story) == []
    story.happens(failed("s2"))
    assert [(item["session"], item["tries"]) for item in kept(story)] == [("s1", 0)]


def test_only_so_many_are_kept() -> None:
    story = given(configured())
    for number in range(KEPT + 5):
        story.happens(running(f"s{number}", task=f"t{number}"), over(f"s{number}", **REFUSED))
    assert [item["session"] for item in kept(story)] == [f"s{number}" for number in range(5, KEPT + 5)]
