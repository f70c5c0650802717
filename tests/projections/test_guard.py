"""The storm guard: which ends make a storm, and what each resume leaves of it."""

from __future__ import annotations

from typing import Any

import pytest
from given import Happening, Story, configured, given, over, released, restrained, running, seen

from events.catalog import LoopFrozen, SessionLost, ViolationDetected
from loop.guard import due


def ends(*outcomes: str, first: int = 0) -> list[Happening]:
    """Sessions one after another."""
    found: list[Happening] = []
    for number, outcome in enumerate(outcomes, start=first):
        name = f"s{number}"
        found.append(running(name, "code"))
        if outcome in ("shim_died", "reboot"):
            found.append(_lost(name, outcome))
        else:
            found.append(over(name, outcome))
    return found


def _lost(name: str, why: str) -> Happening:
    def happen(story: Story) -> None:
        story.append(SessionLost(why=why), **story.of(name))
        for key in story.keys[name]:
            released(key, name)(story)

    return happen


def freezes(story: Story) -> list[tuple[str | None, str]]:
    return [(freeze.category, freeze.because) for freeze in due(story.state)]


@pytest.mark.parametrize(
    ("outcomes", "because"),
    [
        (["failed"] * 8, "failures"),
        (["failed"] * 7, None),
        (["productive", "noop", *["timed_out"] * 4, *["stalled"] * 4], "failures"),
        (["productive", "noop", "unproven", *["failed"] * 7], None),
        ([*["failed"] * 7, "productive", "productive", "productive", "failed"], None),
        ([*["limited"] * 9, *["cancelled"] * 9, *["refused"] * 9], None),
        ([*["failed"] * 7, *["cancelled"] * 9, "failed"], "failures"),
        (["shim_died"] * 3, "lost"),
        (["shim_died", "productive", "shim_died"], None),
        (["reboot"] * 10, None),
        (["shim_died", "shim_died", *["productive"] * 10, "shim_died"], None),
    ],
)
def test_what_is_a_storm(outcomes: list[str], because: str | None) -> None:
    story = given(configured(), *ends(*outcomes))
    assert freezes(story) == ([] if because is None else [(None, because)])


def test_lifting_a_freeze_begins_anew_and_that_of_a_category_does_not() -> None:
    story = given(configured(), *ends(*["failed"] * 8), restrained("resumed", "category", "code"))
    assert freezes(story) == [(None, "failures")]
    story.happens(seen(LoopFrozen(because="failures", reason=None)), restrained("resumed"))
    story.happens(*ends(*["failed"] * 7, first=20))
    assert freezes(story) == []
    story.happens(*ends("failed", first=40))
    assert freezes(story) == [(None, "failures")]


def test_the_end_of_a_pause_hides_no_storm() -> None:
    story = given(configured(), *ends(*["failed"] * 7), restrained("paused"), restrained("resumed"))
    assert freezes(story.happens(*ends("failed", first=20))) == [(None, "failures")]


def test_what_is_frozen_is_not_frozen_again() -> None:
    story = given(configured(), *ends(*["failed"] * 8), seen(LoopFrozen(because="failures", reason=None)))
    assert freezes(story) == []


@pytest.mark.parametrize(
    ("key", "envelope", "expected"),
    [
        ("code", {}, [("code", "violation"), (None, "violation")]),
        ("code#2", {}, [("code", "violation"), (None, "violation")]),
        ("repo", {}, [(None, "violation")]),
        ("repo", {"session": "s1"}, [("docs", "violation"), (None, "violation")]),
    ],
)
def test_a_violation_freezes_the_loop_and_the_category_it_is_of(
    key: str, envelope: dict[str, Any], expected: list[Any]
) -> None:
    found = seen(ViolationDetected(kind="foreign_holder", key=key, token=7, text=None), **envelope)
    assert freezes(given(configured(), running("s1", "docs"), found)) == expected


def test_lifting_a_freeze_answers_the_violations_before_it_and_no_later_one() -> None:
    story = given(configured(), seen(ViolationDetected(kind="seen", key="code", token=1, text=None)))
    assert freezes(story.happens(restrained("resumed"))) != [], "a resume that lifted no freeze has answered nothing"
    story.happens(seen(LoopFrozen(because="violation", reason=None)), restrained("resumed"))
    assert freezes(story) == []
    story.happens(seen(ViolationDetected(kind="seen", key="code", token=2, text=None)))
    assert freezes(story) == [("code", "violation"), (None, "violation")]


def test_a_pause_does_not_thaw_and_its_end_neither() -> None:
    story = given(configured(), restrained("frozen"), restrained("draining"), restrained("paused", minutes=1))
    assert story.state.control["modes"]["all"]["mode"] == "frozen"
    assert story.state.control["modes"]["all"]["until"] is None
