"""Locks: who holds what, and each of the five signs that two ever held one key at once, counted once."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from given import (
    Happening,
    Story,
    acquired,
    after,
    configured,
    ended,
    given,
    granted,
    held,
    lost,
    over,
    released,
    requested,
    running,
    seen,
    started,
)
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events.catalog import ViolationDetected
from events.envelope import Event
from events.lifecycle import SESSION_ENDS
from projections.locks import Violation
from projections.state import State


def findings(story: Story) -> list[tuple[str, str, int]]:
    """(kind, key, later token) of every violation."""
    assert story.state.locks["violations"] == len(story.state.locks["items"])
    return [(item["kind"], item["key"], item["token"]) for item in story.state.locks["items"]]


def test_a_key_is_held_from_its_acquisition_to_its_release() -> None:
    story = given(configured(), granted("s1", keys=["code", "repo"]))
    assert {key: lock["session"] for key, lock in story.state.locks["held"].items()} == {"code": "s1", "repo": "s1"}
    assert story.state.locks["held"]["code"]["token"] == story.tokens["s1"] == 2
    story.happens(started(), after(minutes=5), ended("s1"))
    assert story.view().held == {"code": "s1", "repo": "s1"}, "an end releases nothing"
    story.happens(released("code"))
    assert story.view().held == {"repo": "s1"}
    story.happens(released("repo"))
    assert story.view().held == {}
    assert (story.state.locks["acquired"], findings(story)) == (2, [])


def test_a_key_is_taken_from_the_grant_on_before_its_lock_is() -> None:
    assert given(configured(), requested("s1", keys=["code"])).view().held == {"code": "s1"}


def test_one_session_after_another_is_no_violation() -> None:
    story = given(configured())
    for number in range(30):
        times = held(number * 10, number * 10 + 10)  # each begins at the instant the one before it ends
        story.happens(running(f"s{number}"), over(f"s{number}", held={"code": times}))
    assert findings(story) == []
    assert len(story.state.locks["intervals"]["code"]) < 30


# ── the five kinds ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_two_live_sessions_under_one_key() -> None:
    story = given(configured(), requested("s1"), requested("s2"))
    assert findings(story) == [("two_live_sessions", "code", story.tokens["s2"])]


def test_an_acquire_while_the_key_is_held() -> None:
    story = given(configured(), granted("s1"), ended("s1"), requested("s2"), acquired("code", "s2"))
    assert findings(story) == [("acquired_while_held", "code", story.tokens["s2"])]


def test_an_acquire_with_an_overtaken_token() -> None:
    story = given(configured(), granted("s1"), over("s1"), granted("s2"), over("s2"), acquired("code", "s1"))
    assert findings(story) == [("overtaken_token", "code", story.tokens["s2"])]


@pytest.mark.parametrize("still_held", [True, False])
def test_a_release_with_an_overtaken_token(still_held: bool) -> None:
    story = given(configured(), granted("s1"), over("s1"), granted("s2"))
    story.happens(*[] if still_held else [over("s2")], released("code", "s1"))
    assert findings(story) == [("overtaken_token", "code", story.tokens["s2"])]
    assert ("code" in story.state.locks["held"]) is still_held, "it takes nobody else's lock away"


def test_two_physical_intervals_that_overlap() -> None:
    story = given(
        configured(),
        running("s1"),
        over("s1", held={"code": held(100, 200)}),
        running("s2"),
        over("s2", held={"code": held(199, 300)}),
    )
    assert findings(story) == [("intervals_overlap", "code", story.tokens["s2"])]


def test_intervals_of_different_boots_or_keys_never_overlap() -> None:
    story = given(
        configured(),
        running("s1", keys=["code", "repo"]),
        over("s1", held={"code": held(100, 200), "repo": held(300, 400)}),
        running("s2", keys=["code", "repo"]),
        over("s2", held={"code": held(100, 200, "boot-2"), "repo": held(100, 200)}),
    )
    assert findings(story) == []


def test_the_interval_of_a_lost_session_counts() -> None:
    story = given(configured(), running("s1"), over("s1", held={"code": held(100, 200)}), running("s2"))
    story.happens(lost("s2", held={"code": held(150, 160)}))
    assert findings(story) == [("intervals_overlap", "code", story.tokens["s2"])]


def test_a_detected_violation() -> None:
    story = given(configured(), seen(ViolationDetected(kind="foreign_holder", key="code", token=1)))
    assert findings(story) == [("foreign_holder", "code", 1)]
    story.happens(seen(ViolationDetected(kind="clock", expected="x", observed="y")))
    assert findings(story) == [("foreign_holder", "code", 1)], "one without a key is of another sort"


def test_many_signs_of_one_overlap_count_once() -> None:
    story = given(
        configured(),
        granted("s1"),
        granted("s2"),  # two live sessions, and acquired while held
        ended("s1", held={"code": held(100, 200)}),
        ended("s2", held={"code": held(150, 250)}),
    )
    story.happens(seen(ViolationDetected(kind="foreign_holder", key="code", token=story.tokens["s2"])))
    assert findings(story) == [("two_live_sessions", "code", story.tokens["s2"])]


def test_a_third_session_in_the_overlap_counts_again() -> None:
    story = given(configured(), requested("s1"), requested("s2"), requested("s3"))
    assert [token for _, _, token in findings(story)] == [story.tokens["s2"], story.tokens["s3"]]


def test_the_same_overlap_under_two_keys_counts_twice() -> None:
    story = given(configured(), requested("s1", keys=["a", "b"]), requested("s2", keys=["a", "b"]))
    assert [key for _, key, _ in findings(story)] == ["a", "b"]


def test_imported_observations_are_not_ours() -> None:
    story = given(configured(), granted("s1"), acquired("code", "s1", token=1, imported=True))
    story.happens(released("code", "s1", imported=True), released("code", "s1", token=1, imported=True))
    assert findings(story) == []
    assert story.state.locks["held"]["code"]["token"] == story.tokens["s1"]
    assert story.state.locks["acquired"] == 1


# ── against an oracle ─────────────────────────────────────────────────────────────────────────────────────────────────


def naive(events: list[Event]) -> set[tuple[str, int]]:
    """(key, later token) of every same-lock violation, by looking at everything again for each event."""
    found = set()
    tokens = {event.session: event.position for event in events if event.type == "session.requested"}
    keys = {event.session: event.data["keys"] for event in events if event.type == "session.requested"}
    intervals: list[tuple[str, int, dict[str, Any]]] = []
    for index, event in enumerate(events):
        past, data = events[:index], event.data
        over = {each.session for each in past if each.type in SESSION_ENDS}
        live = {each.session for each in past if each.type == "session.requested"} - over
        if event.type == "session.requested":
            found |= {(key, event.position) for key in data["keys"] if any(key in keys[other] for other in live)}
        elif event.type in SESSION_ENDS:
            own = keys[event.session]
            intervals += [(key, tokens[event.session], hold) for key, hold in data["held"].items() if key in own]
        elif event.type == "violation.detected":
            found.add((data["key"], data["token"]))
        elif event.type in ("lock.acquired", "lock.released"):
            mine = [each for each in past if each.type.startswith("lock.") and each.data["key"] == data["key"]]
            highest = max((each.data["token"] for each in mine if each.type == "lock.acquired"), default=0)
            holder = 0
            for each in mine:
                if each.type == "lock.acquired":
                    holder = each.data["token"]
                elif each.data["token"] == holder:
                    holder = 0
            if event.type == "lock.acquired" and (holder or data["token"] <= highest):
                found.add((data["key"], max(data["token"], highest)))
            if event.type == "lock.released" and data["token"] < highest and data["token"] != holder:
                found.add((data["key"], highest))
    for (key, token, one), (other_key, other_token, other) in combinations(intervals, 2):
        apart = one["to_ns"] <= other["from_ns"] or other["to_ns"] <= one["from_ns"]
        if key == other_key and one["boot"] == other["boot"] and not apart:
            found.add((key, max(token, other_token)))
    return found


@st.composite
def disorder(draw: st.DrawFn) -> list[Happening]:
    """Sessions, locks and physical intervals in no order that any controller would keep."""
    happenings: list[Happening] = []
    live: list[str] = []
    names: list[str] = []
    for number in range(draw(st.integers(1, 20))):
        move = draw(st.sampled_from(["request", "request", "end", "lose", "acquire", "acquire", "release", "detect"]))
        session = draw(st.sampled_from(names)) if names else ""
        key = draw(st.sampled_from(["a", "b"]))
        if move == "request" and len(names) < 8:
            names.append(f"s{number}")
            live.append(names[-1])
            happenings.append(requested(names[-1], keys=draw(st.sampled_from([["a"], ["b"], ["a", "b"]]))))
        elif move in ("end", "lose") and session in live:
            live.remove(session)
            begin = draw(st.integers(0, 20))
            hold = {key: held(begin, begin + draw(st.integers(1, 8)), draw(st.sampled_from(["one", "two"])))}
            happenings.append(ended(session, held=hold) if move == "end" else lost(session, held=hold))
        elif move == "acquire" and session:
            happenings.append(acquired(key, session))
        elif move == "release" and session:
            happenings.append(released(key, session))
        elif move == "detect":
            happenings.append(seen(ViolationDetected(kind="seen", key=key, token=draw(st.integers(1, 20)))))
    return happenings


@for_all(disorder())
@settings(max_examples=400)
def test_the_fold_finds_what_a_naive_search_of_the_whole_log_finds(happenings: list[Happening]) -> None:
    story = given(*happenings)
    assert {(key, token) for key, token in story.state.locks["found"]} == naive(story.events)
    assert story.state.locks["violations"] == len(naive(story.events))


@for_all(st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_loop_that_works_has_none(seed: int) -> None:
    world = history(seed, 250)
    assert naive(world.events) == set()
    assert world.state.locks["violations"] == 0


def test_the_list_of_findings_is_short_and_their_count_is_not() -> None:
    state = State()
    for number in range(1, 301):
        payload = {"kind": "seen", "key": "code", "token": number, "expected": None, "observed": None}
        state.apply(Event(number, "violation.detected", "x" * 27, None, None, None, None, payload))
    assert state.locks["violations"] == 300
    items: list[Violation] = state.locks["items"]
    assert [item["token"] for item in items] == list(range(281, 301))
