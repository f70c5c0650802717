"""Sessions, allocation, outcomes, selection, backends, control: what each keeps of a story."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    START,
    Story,
    after,
    by_hand,
    configured,
    decided,
    ended,
    failed,
    given,
    graded,
    granted,
    limited,
    lost,
    over,
    ranking,
    rejection,
    requested,
    restrained,
    running,
    seen,
    started,
    tick,
)
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events import catalog
from events.envelope import to_micros, to_text
from projections.view import counted, restraints

HOUR = 3_600_000_000
WINDOW = 48 * HOUR


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_session_lives_from_its_request_to_its_end() -> None:
    story = given(configured(), tick(), requested("s1", "code", task="t", chain=1))
    assert [(id, live["status"]) for id, live in story.state.sessions["live"].items()] == [("s1", "requested")]
    story.happens(started())
    live = story.state.sessions["live"]["s1"]
    assert (live["status"], live["pid"], live["token"], live["granter"]) == ("started", 200, 3, [100, 1, "boot-1"])
    story.happens(seen(catalog.SessionWarned(by="shim", why="silence"), session="s1"))
    story.happens(seen(catalog.SessionWarned(by="shim", why="silence"), session="s1"))
    story.happens(seen(catalog.SessionStopping(by="shim", why="deadline"), session="s1"))
    assert (live["warned"], live["stopping"]) == (["silence"], "deadline")
    story.happens(ended("s1", "timed_out", exit_code=None, signal=15))
    assert story.state.sessions["live"] == {}
    [recent] = story.state.sessions["recent"]
    assert (recent["outcome"], recent["signal"], recent["task"], recent["chain"]) == ("timed_out", 15, "t", 1)


@pytest.mark.parametrize(("end", "outcome"), [(lost(), "lost"), (failed(code="lock_held"), "refused")])
def test_every_end_is_an_end(end: Any, outcome: str) -> None:
    story = given(configured(), requested("s1"), end)
    assert story.state.sessions["live"] == {}
    assert story.state.sessions["recent"][-1]["outcome"] == outcome
    assert story.state.sessions["ended"] == 1


def test_the_peak_of_an_hour_counts_who_was_there_when_it_began() -> None:
    story = given(configured(), running("s1", "code"), running("s2", "docs"), after(hours=1), over("s1"))
    assert story.state.sessions["peaks"] == {
        "2026-11-23T14": [2, "2026-11-23T14:00:00.000000Z"],
        "2026-11-23T15": [2, "2026-11-23T15:00:00.000000Z"],
    }
    story.happens(after(hours=1), over("s2"), running("s3"), running("s4", "docs"), running("s5", "research"))
    assert story.state.sessions["peaks"]["2026-11-23T16"][0] == 3


# ── allocation ────────────────────────────────────────────────────────────────────────────────────────────────────────


def starts(story: Story, window: int, now: int | None = None) -> dict[str, int]:
    return {name: count for name, (count, _) in counted(story.state, now or story.now, window).items() if count}


def test_a_grant_counts_once_it_has_started() -> None:
    story = given(configured(), granted("s1"))
    assert starts(story, WINDOW) == starts(story, HOUR) == {}
    story.happens(started())
    assert starts(story, WINDOW) == starts(story, HOUR) == {"code": 1}
    story.happens(over("s1", "noop", seconds=90))
    assert counted(story.state, story.now, WINDOW) == counted(story.state, story.now, HOUR) == {"code": (1, 90.0)}


@pytest.mark.parametrize("outcome", ["limited", "refused"])
def test_a_session_that_was_turned_away_got_nothing(outcome: str) -> None:
    story = given(configured(), running("s1"), after(hours=1.5), over("s1", outcome))
    assert starts(story, WINDOW) == starts(story, 2 * HOUR) == {}
    assert story.state.allocation["total"] == 0


def test_a_lost_session_counts_as_a_start_without_minutes() -> None:
    story = given(configured(), running("s1"), lost("s1"))
    assert counted(story.state, story.now, WINDOW) == {"code": (1, 0.0)}


def test_windows_up_to_two_hours_are_exact() -> None:
    story = given(configured(), running("s1"), after(hours=1))
    assert starts(story, HOUR) == {}, "a window is open at its far end"
    assert starts(story, HOUR + 1) == {"code": 1}
    assert starts(story, 2 * HOUR) == {"code": 1}
    assert starts(story, 2 * HOUR, START + 2 * HOUR) == {}


def test_longer_windows_count_every_hour_that_they_touch() -> None:
    story = given(configured(), after(minutes=10), running("s1"))
    early = START + 3 * HOUR + 59 * HOUR // 60  # 17:59
    assert starts(story, 3 * HOUR, early) == {"code": 1}, "14:59 is in the hour of the start at 14:10"
    assert starts(story, 3 * HOUR, START + 4 * HOUR) == {}, "15:00 is not"


def test_no_window_reaches_into_the_future() -> None:
    """Where the clock was set back, or an instant of the past is asked for."""
    story = given(configured(), after(hours=5), running("s1"), after(hours=-5))
    for window in (HOUR, 2 * HOUR, WINDOW):
        assert starts(story, window) == {}
        assert starts(story, window, story.now + 5 * HOUR) == {"code": 1}


def test_minutes_go_to_the_hour_of_the_start() -> None:
    story = given(configured(), running("s1"), after(hours=3), over("s1", seconds=10_800))
    assert story.state.allocation["hours"] == {"2026-11-23T14": {"code": [1, 10_800_000_000]}}


@for_all(st.integers(0, 10_000), st.integers(1, 60), st.data())
@settings(max_examples=60)
def test_counting_agrees_with_counting_the_log(seed: int, hours: int, data: st.DataObject) -> None:
    """An oracle over the whole log, for exact windows and for whole hours."""
    world = history(seed, 200, steps=False)
    window = hours * HOUR
    now = world.now - data.draw(st.sampled_from([0, 0, HOUR, 7 * HOUR // 3]))
    expected: dict[str, int] = {}
    turned_away = {event.session for event in world.events if event.data.get("outcome") in ("limited", "refused")}
    for event in world.events:
        at = to_micros(event.at)
        if event.type != "session.started" or event.session in turned_away or event.category is None:
            continue
        touched = (now - window) // HOUR <= at // HOUR <= now // HOUR
        if now - window < at <= now if window <= 2 * HOUR else touched:
            expected[event.category] = expected.get(event.category, 0) + 1
    assert starts(world, window, now) == expected


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def all_over(*outcomes: str) -> Story:
    story = given(configured())
    for number, outcome in enumerate(outcomes):
        story.happens(running(f"s{number}"), over(f"s{number}", outcome))
    return story


def test_the_noop_rate_has_a_denominator_of_assessed_outcomes() -> None:
    outcomes = "productive noop blocked failed timed_out stalled unproven limited refused cancelled unproven"
    story = all_over(*outcomes.split())
    assert [item["outcome"] for item in story.state.outcomes["assessed"]] == [
        "productive",
        "noop",
        "blocked",
        "failed",
        "timed_out",
        "stalled",
    ]
    assert story.state.outcomes["unproven"] == 2
    [counts] = story.state.outcomes["counts"].values()
    assert counts["unproven"] == 2
    assert sum(counts.values()) == 11


def test_only_the_last_twenty_assessed_are_kept_with_the_unproven_since() -> None:
    story = all_over("unproven", *["noop"] * 5, "unproven", *["productive"] * 20, "unproven")
    assessed = story.state.outcomes["assessed"]
    assert [item["outcome"] for item in assessed] == ["productive"] * 20
    assert story.state.outcomes["unproven"] - assessed[0]["unproven_before"] == 1


def test_a_lost_session_is_not_assessed() -> None:
    story = given(configured(), running("s1"), lost("s1"))
    assert story.state.outcomes["assessed"] == []
    assert story.state.outcomes["last"]["code"]["outcome"] == "lost"


def due(story: Story) -> list[tuple[str, int]]:
    return [(item["session"], item["chain"]) for item in story.state.outcomes["due"]]


def test_a_productive_proved_session_is_due_a_respawn_until_one_is_granted() -> None:
    story = given(configured(), running("s1"), over("s1"))
    assert due(story) == [("s1", 0)]
    story.happens(granted("s2", rule="respawn", chain=1, parent="s1"))
    assert due(story) == []
    story.happens(started("s2"), over("s2"))
    assert due(story) == [("s2", 1)]


@pytest.mark.parametrize(
    ("change", "outcome", "proved"),
    [
        ({}, "noop", True),
        ({}, "unproven", True),
        ({}, "productive", False),
        ({"rule": "allowlist"}, "productive", True),
    ],
)
def test_nothing_else_is_due_one(change: dict[str, Any], outcome: str, proved: bool) -> None:
    assert due(given(configured(), running("s1", **change), over("s1", outcome, proved=proved))) == []


def test_a_respawn_that_was_voided_is_due_again() -> None:
    """The controller died between grant and start; any pass picks up what it left."""
    story = given(configured(), running("s1"), over("s1"), granted("s2", rule="respawn", chain=1, parent="s1"))
    story.happens(failed("s2", "voided"))
    assert due(story) == [("s1", 0)]
    assert story.state.outcomes["last"]["code"]["session"] == "s1", "what never was a session ends no chain"


def test_a_respawn_that_could_not_start_is_not_due_again() -> None:
    story = given(configured(), running("s1"), over("s1"), granted("s2", rule="respawn", chain=1, parent="s1"))
    story.happens(failed("s2", "command_not_found"))
    assert due(story) == []


def test_a_grade_may_come_after_the_end() -> None:
    story = given(configured(), running("s1"), over("s1"), graded("s1", 0.9))
    assert story.state.outcomes["due"][0]["grade"] == 0.9
    assert story.state.outcomes["assessed"][0]["grade"] == 0.9
    assert story.state.sessions["recent"][0]["grade"] == 0.9


# ── selection ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def figures(story: Story) -> dict[str, int]:
    names = ("granted", "granted_of", "followed", "followed_of", "lost")
    return {name: sum(cell[name] for cell in story.state.selection["hours"].values()) for name in names}


def test_granted_are_confirmed_starts_among_the_first_k_of_the_ranking() -> None:
    story = given(configured(), tick(), ranking("code", "docs", "research"), decided(free=2))
    assert figures(story)["granted_of"] == 2, "k is the free slots where they are fewer"
    story.happens(granted("s1", "code"), granted("s2", "research"))
    assert figures(story)["granted"] == 0, "nothing is confirmed"
    story.happens(started("s1"), started("s2"))
    assert figures(story)["granted"] == 1, "research was third of the unfiltered ranking"
    assert figures(story)["followed"] == figures(story)["followed_of"] == 2


def test_k_is_the_length_of_the_ranking_where_that_is_less() -> None:
    story = given(configured(), tick(), ranking("code", "unheard-of"), decided(free=3))
    assert figures(story)["granted_of"] == 2, "names that nobody knows are part of the unfiltered ranking"


def test_an_empty_answer_asks_for_nothing() -> None:
    story = given(configured(), tick(), ranking(), decided(free=3))
    assert figures(story) == dict.fromkeys(figures(story), 0)


def test_a_rejected_fire_grants_none_of_its_free_slots() -> None:
    story = given(configured(), tick(), rejection(), decided(free=3), running("s1", rule="allowlist"))
    assert figures(story) == {"granted": 0, "granted_of": 3, "followed": 0, "followed_of": 1, "lost": 1}


def test_a_start_of_a_later_pass_follows_but_is_not_granted() -> None:
    story = given(configured(), tick(), ranking("code", "docs"), decided(free=2), running("s1", "code"), over("s1"))
    story.happens(tick("session_end", ended="s1"), decided(free=2), running("s2", "docs", rule="all_scores"))
    assert figures(story) == {"granted": 1, "granted_of": 2, "followed": 2, "followed_of": 2, "lost": 0}


def test_respawns_and_starts_by_hand_are_judged_by_neither() -> None:
    story = given(configured(), tick(), ranking("code"), decided(free=3), running("s1"), over("s1"))
    story.happens(tick("session_end", ended="s1"), decided(free=3), running("s2", rule="respawn", parent="s1", chain=1))
    story.happens(by_hand("docs"), decided(free=2), running("s3", "docs", rule="manual", trigger="manual"))
    assert figures(story) == {"granted": 1, "granted_of": 1, "followed": 1, "followed_of": 1, "lost": 0}
    [cell] = story.state.selection["hours"].values()
    assert cell["rules"] == {"selected": 1, "respawn": 1, "manual": 1}


def test_a_session_that_never_started_is_no_confirmed_start() -> None:
    story = given(configured(), tick(), ranking("code"), decided(free=3), granted("s1"), failed("s1", "lock_held"))
    assert figures(story) == {"granted": 0, "granted_of": 1, "followed": 0, "followed_of": 0, "lost": 0}


def test_the_first_allowlist_entries_on_a_good_answer_show_at_once() -> None:
    """The fault of the loop that this one grew from: a Tier 1 payload without scores, and the first N entries of the
    allowlist started in its place."""
    story = given(configured(), tick(), ranking("research", rule="alternatives", tier=1), decided(free=3))
    for session, category in (("s1", "code"), ("s2", "docs"), ("s3", "infra")):
        story.happens(running(session, category, rule="allowlist"))
    assert figures(story) == {"granted": 0, "granted_of": 1, "followed": 0, "followed_of": 3, "lost": 3}
    [cell] = story.state.selection["hours"].values()
    assert cell["rules"] == {"allowlist": 3}


def used(story: Story) -> list[str]:
    last = story.state.selection["last"]
    assert last is not None
    return last["used"]


def test_an_answer_is_used_up_category_by_category() -> None:
    story = given(configured(), tick(), ranking("code", "docs"), decided(free=2), granted("s1"))
    assert used(story) == ["code"]
    story.happens(started(), over("s1"))
    assert used(story) == ["code"]
    story.happens(tick(), ranking("code"))
    assert used(story) == [], "a new answer is unused"


@pytest.mark.parametrize("rule", ["respawn", "manual"])
def test_respawns_and_starts_by_hand_use_up_nothing(rule: str) -> None:
    assert used(given(configured(), tick(), ranking("code"), requested("s1", rule=rule))) == []


def test_a_voided_grant_gives_its_chance_back() -> None:
    story = given(configured(), tick(), ranking("code"), decided(free=1), granted("s1"), failed("s1", "voided"))
    assert used(story) == []
    story.happens(granted("s2"), failed("s2", "command_not_found"))
    assert used(story) == ["code"], "one that failed had its chance"


def test_a_voided_start_by_hand_gives_back_no_chance_but_its_own() -> None:
    story = given(configured(), tick(), ranking("code"), decided(free=1), running("s1"), over("s1"))
    story.happens(by_hand("code"), granted("s2", rule="manual"), failed("s2", "voided"))
    assert used(story) == ["code"]


def test_a_grant_of_an_older_answer_gives_back_no_chance_of_the_newer() -> None:
    two_lanes = configured(categories={"code": {"lanes": 2}})
    story = given(two_lanes, tick(), ranking("code"), granted("s1", keys=["code#1"]))
    story.happens(tick(), ranking("code"), granted("s2", keys=["code#2"]), failed("s1", "voided"))
    assert used(story) == ["code"]


# ── backends ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def pool(story: Story) -> tuple[str, str | None]:
    known = story.state.backends["pools"]["default"]
    return known["state"], known["until"]


def test_a_pool_goes_from_limited_over_probing_to_available() -> None:
    story = given(configured(), limited(minutes=10))
    until = to_text(START + 10 * 60_000_000)
    assert pool(story) == ("limited", until)
    story.happens(seen(catalog.BackendProbed(pool="default", source="test")))
    assert pool(story) == ("probing", until), "a probe changes nothing about the limit"
    story.happens(seen(catalog.BackendRestored(pool="default", source="test")))
    assert pool(story) == ("available", None)


def test_a_step_that_the_table_does_not_know_changes_nothing() -> None:
    story = given(configured(), seen(catalog.BackendProbed(pool="default", source="test")))
    assert story.state.backends["pools"] == {}


def test_backends_remember_their_last_grant() -> None:
    story = given(configured(), requested("s1", backend="opus"), requested("s2", "docs", backend="sonnet"))
    assert story.state.backends["last_used"] == {"opus": 2, "sonnet": 3}


# ── control ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pause_until_stays_in_the_state_and_expires_in_the_view() -> None:
    story = given(configured(), restrained("paused", minutes=10))
    before = story.state.dump()
    end = START + 10 * 60_000_000
    assert restraints(story.state, end - 1)["all"].mode == "paused"
    assert restraints(story.state, end) == {}
    assert story.state.dump() == before
    assert story.state.control["modes"]["all"]["until"] == to_text(end)


def test_scopes_are_restrained_and_resumed_apart_and_all_together() -> None:
    story = given(
        configured(),
        restrained("paused"),
        restrained("frozen", "category", "code"),
        restrained("draining", "backend", "opus"),
    )
    assert {scope: each.mode for scope, each in restraints(story.state, story.now).items()} == {
        "all": "paused",
        "category:code": "frozen",
        "backend:opus": "draining",
    }
    story.happens(restrained("resumed", "category", "code"))
    assert set(restraints(story.state, story.now)) == {"all", "backend:opus"}
    story.happens(restrained("resumed"))
    assert restraints(story.state, story.now) == {}


def test_a_fire_is_used_up_by_its_pass() -> None:
    story = given(configured(), tick(nominal="2026-11-23T14:00:00.000000Z"))
    assert story.state.control["fires"] == {"schedule": "2026-11-23T14:00:00.000000Z"}
    story.happens(after(minutes=5), tick("manual"), tick("session_end", ended="s1"))
    assert story.state.control["fires"] == {"schedule": "2026-11-23T14:00:00.000000Z"}
    assert story.state.control["last_timer"] == to_text(START)
    current, last = story.state.control["current"], story.state.control["last"]
    assert current is not None
    assert last is not None
    assert (current["trigger"], last["trigger"]) == ("session_end", "manual")
    assert story.state.control["served"] == ["s1"]


def test_an_invalid_config_is_remembered_until_the_next_good_pass() -> None:
    skip = seen(catalog.TickSkipped(trigger="timer", reason="invalid_config"))
    story = given(configured(), skip, after(minutes=30), skip)
    assert story.state.control["invalid_config"] == to_text(START)
    assert story.state.control["skipped"] == {"invalid_config": 2}
    story.happens(tick())
    assert story.state.control["invalid_config"] is None


def test_a_controller_is_there_until_it_says_goodbye() -> None:
    begin = seen(catalog.ControllerStarted(pid=7, start=1, boot="b", release="0"))
    story = given(begin, seen(catalog.ControllerStopped(pid=8, why="another's")))
    assert story.state.control["controller"] is not None
    story.happens(seen(catalog.ControllerStopped(pid=7, why="signal")))
    assert story.state.control["controller"] is None


def test_starts_are_counted_for_their_pass() -> None:
    story = given(configured(), tick(), running("s1"), running("s2", "docs"))
    assert story.state.control["current"] == story.state.control["last"]
    current = story.state.control["current"]
    assert current is not None
    assert current["started"] == 2
