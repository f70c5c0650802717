"""What is raised to be told, without a command: which missed fires count, and what a failure leaves."""

from __future__ import annotations

from given import HOUR, Happening, Story, after, configured, given, limited, over, restrained, running, seen

from events.catalog import (
    BackendLimited,
    LoopFrozen,
    NoticeFailed,
    NoticeSent,
    TickSkipped,
    TickStarted,
    ViolationDetected,
)
from events.envelope import to_text
from loop.notices import LAPSE, LAPSE_FAILED, PER_HOUR, RESERVED, REST, RETRY, SECOND, due


def fired(story: Story, missed: int) -> None:
    fire = {"trigger": "timer", "timer": "schedule", "nominal": to_text(story.now), "missed": missed}
    started = TickStarted.model_validate({**fire, "pid": 1, "start": 1, "boot": "b", "boottime": 1})
    story.append(started, tick=f"t{story.now}")


def skipped(story: Story) -> None:
    nominal = to_text(story.now)
    story.append(TickSkipped(trigger="timer", reason="paused", timer="schedule", nominal=nominal, text=None))


def kinds(story: Story) -> list[tuple[str, str | None]]:
    return [(notice.kind, notice.subject) for notice in due(story.state, story.now)]


def tell(story: Story) -> list[str]:
    """Whatever is due is sent; the texts."""
    notices = due(story.state, story.now)
    for notice in notices:
        story.append(NoticeSent(kind=notice.kind, subject=notice.subject, about=notice.about))
    return [notice.body["text"] for notice in notices]


def pools(count: int, first: int = 0) -> list[Happening]:
    return [seen(BackendLimited(pool=f"p{number}", source="test")) for number in range(first, first + count)]


def test_fires_that_a_pause_skipped_are_not_missed_however_often_they_were_tried() -> None:
    story = given(configured(), lambda story: fired(story, 0))
    for _ in range(3):
        story.happens(after(minutes=30), skipped, skipped)
    story.happens(after(minutes=30), lambda story: fired(story, 3))
    assert kinds(story) == []
    story.happens(after(minutes=150), lambda story: fired(story, 4))
    [notice] = due(story.state, story.now)
    assert notice.body["text"] == "4 fires were missed before this one"


def test_a_schedule_that_is_paused_is_not_silent() -> None:
    story = given(configured(), lambda story: fired(story, 0), after(minutes=70))
    assert kinds(story) == [("fire_missed", "silence")]
    assert kinds(story.happens(restrained("paused"))) == []


def test_a_failure_is_tried_again_later_and_a_success_is_not() -> None:
    story = given(configured(), seen(BackendLimited(pool="p", source="test")))
    [notice] = due(story.state, story.now)
    story.happens(seen(NoticeFailed(kind=notice.kind, subject=notice.subject, about=notice.about, text="no network")))
    assert kinds(story.happens(after(seconds=RETRY / SECOND - 1))) == []
    assert kinds(story.happens(after(seconds=1))) == [("pool_limited", "p")]
    story.happens(seen(NoticeSent(kind=notice.kind, subject=notice.subject, about=notice.about)))
    assert kinds(story.happens(after(minutes=90))) == []


def test_what_happens_again_within_the_hour_is_counted_and_told_after_it() -> None:
    story = given(configured(), seen(BackendLimited(pool="p", source="test")))
    story.happens(seen(NoticeSent(kind="pool_limited", subject="p", about=story.state.position)))
    for _ in range(3):
        story.happens(after(minutes=10), seen(BackendLimited(pool="p", source="test")))
    assert kinds(story) == []
    story.happens(after(minutes=30))
    [notice] = due(story.state, story.now)
    assert notice.body["times"] == 3


def test_one_notice_for_many_tells_all_of_them() -> None:
    story = given(configured())
    for number in range(20):
        story.happens(seen(BackendLimited(pool=f"p{number}", source="test")))
    *_, many = due(story.state, story.now)
    story.happens(seen(NoticeSent(kind=many.kind, subject=many.subject, about=many.about)))
    assert story.state.notices["raised"] == {}


def test_it_stays_bounded_however_much_is_raised() -> None:
    story = given(configured())
    for number in range(500):
        story.happens(seen(BackendLimited(pool=f"p{number}", source="test")))
        story.happens(seen(NoticeFailed(kind="pool_limited", subject=f"p{number}", about=1, text=None)))
    notices = story.state.notices
    assert max(len(notices["raised"]), len(notices["told"]), len(notices["attempts"])) <= 128


# ── how often, and what first ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_freeze_comes_before_whatever_else_a_burst_holds() -> None:
    violations = [seen(ViolationDetected(kind="seen", key=f"k{number}", token=1)) for number in range(100)]
    story = given(configured(), *pools(3), *violations, seen(LoopFrozen(because="violation", reason=None)))
    told = kinds(story)
    assert len(told) == PER_HOUR
    assert [kind for kind, _ in told] == ["frozen"] + ["violation"] * 10 + ["suppressed"]
    assert told[1] == ("violation", "k0"), "older ones first"
    assert due(story.state, story.now)[-1].body["suppressed"] == 90 + 3


def test_noise_leaves_room_for_a_freeze_in_the_same_hour() -> None:
    story = given(configured(), *pools(PER_HOUR))
    assert len(tell(story)) == PER_HOUR
    story.happens(*pools(3, first=20))
    assert tell(story) == []
    story.happens(seen(LoopFrozen(because="lost", reason=None)))
    assert len(tell(story)) == 1
    for number in range(RESERVED - 1):
        story.happens(seen(ViolationDetected(kind="seen", key=f"k{number}", token=1)))
        assert len(tell(story)) == 1
    story.happens(seen(ViolationDetected(kind="seen", key="one-more", token=1)))
    assert tell(story) == [], "what is reserved is bounded, too"


def test_after_a_failure_all_others_rest_a_minute() -> None:
    story = given(configured(), *pools(2))
    first, _ = due(story.state, story.now)
    story.happens(seen(NoticeFailed(kind=first.kind, subject=first.subject, about=first.about, text=None)))
    assert kinds(story) == []
    story.happens(after(seconds=REST / SECOND))
    assert kinds(story) == [("pool_limited", "p1")]


def test_what_was_tried_in_vain_is_news_for_a_day_and_not_for_longer() -> None:
    story = given(configured(), seen(LoopFrozen(because="lost", reason=None)))
    [notice] = due(story.state, story.now)
    begun = story.now
    story.happens(seen(NoticeFailed(kind=notice.kind, subject=notice.subject, about=notice.about, text=None)))
    story.now = begun + LAPSE + HOUR
    assert kinds(story) == [("frozen", "all")]
    story.now = begun + LAPSE_FAILED + 1
    assert kinds(story) == []


# ── what stands ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_whose_reset_has_come_is_no_news() -> None:
    story = given(configured(), limited("default", minutes=30), after(minutes=29))
    assert kinds(story) == [("pool_limited", "default")]
    assert kinds(story.happens(after(minutes=1))) == []


def test_a_budget_is_told_when_it_is_reached_and_again_only_after_it_had_room() -> None:
    story = given(configured(pools={"default": {"max_runs_per_day": 2}}), running("s1"), over("s1"))
    assert tell(story) == []
    story.happens(running("s2"))
    assert tell(story) == [
        "the budget of pool default is reached: 2 runs of 2 runs a day"
        "; something of it leaves the day at 2026-11-24T15:00:00Z"
    ]
    story.happens(over("s2"))
    for _ in range(20):
        assert tell(story.happens(after(hours=1))) == [], "for the rest of the day it is no news"
    story.happens(after(hours=6), running("s3"), over("s3"), running("s4"))
    assert [text[:38] for text in tell(story)] == ["the budget of pool default is reached:"]


def test_what_live_sessions_reserve_is_not_reached_yet() -> None:
    """A first session holds all that is not known; that is no news, and what it told may be."""
    story = given(configured(categories={"code": {"max_cost_per_day": 1.0}}), running("s1"))
    assert tell(story) == []
    story.happens(over("s1", usage={"cost_usd": 0.8}))
    [text] = tell(story)
    assert text.startswith("the budget of category code is reached: $0.80 of $1.00 a day"), "no room for one like it"


def test_a_breaker_is_told_once_for_each_time_that_it_opens() -> None:
    story = given(configured(categories={"code": {"own_command": False}}, backends={"opus": {"pool": "max"}}))
    story.happens(*broken(3))
    assert tell(story) == ["backend opus is limited: its sessions end with failed"]
    for _ in range(4):
        assert tell(story.happens(after(hours=2))) == []
    story.happens(*broken(1, first=9))
    assert tell(story) == ["backend opus is limited: its sessions end with failed"], "the probe failed"


def broken(count: int, first: int = 0) -> list[Happening]:
    sessions = [f"s{number}" for number in range(first, first + count)]
    of = {"backend": "opus", "pool": "max"}
    return [each for name in sessions for each in (running(name, **of), over(name, "failed"), after(seconds=10))]
