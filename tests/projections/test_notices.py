"""What is raised to be told, without a command: which missed fires count, and what a failure leaves."""

from __future__ import annotations

from given import Story, after, configured, given, restrained, seen

from events.catalog import BackendLimited, NoticeFailed, NoticeSent, TickSkipped, TickStarted
from events.envelope import to_text
from loop.notices import RETRY, SECOND, due


def fired(story: Story, missed: int) -> None:
    fire = {"trigger": "timer", "timer": "schedule", "nominal": to_text(story.now), "missed": missed}
    started = TickStarted.model_validate({**fire, "pid": 1, "start": 1, "boot": "b", "boottime": 1})
    story.append(started, tick=f"t{story.now}")


def skipped(story: Story) -> None:
    nominal = to_text(story.now)
    story.append(TickSkipped(trigger="timer", reason="paused", timer="schedule", nominal=nominal, text=None))


def kinds(story: Story) -> list[tuple[str, str | None]]:
    return [(notice.kind, notice.subject) for notice in due(story.state, story.now)]


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
