"""Real processes at once on one store, judged by the marks that the sessions themselves leave."""

from __future__ import annotations

from e2e_project import Project

EIGHT = ("a", "b", "c", "d", "e", "f", "g", "h")


def test_eight_ticks_at_once_start_no_category_twice_and_never_exceed_the_slots(project: Project) -> None:
    project.configure(*EIGHT, slots=4, env={"SAY": '{"outcome": "noop"}', "NAP": "1"})
    ticks = [project.spawn("tick") for _ in range(8)]
    codes = sorted(tick.wait(timeout=60) for tick in ticks)
    assert set(codes) <= {0, 5}
    assert 0 in codes
    project.settle()
    highest = max(int(line) for line in (project.marks / "concurrency").read_text().split())
    assert highest <= 4
    project.assert_sound()
    assert project.status()["slots"]["peak"] <= 4


def test_run_ticks_and_session_ends_all_at_once_keep_every_promise(project: Project) -> None:
    project.configure(*EIGHT, slots=3, env={"SAY": '{"outcome": "productive"}', "NAP": "0.1"})
    controller = project.spawn("run")
    try:
        for _ in range(3):
            ticks = [project.spawn(*words) for words in (["tick"], ["tick", "--timer"], ["tick"], ["start", "a"])]
            assert {tick.wait(timeout=60) for tick in ticks} <= {0, 5, 6}
    finally:
        controller.terminate()
        controller.wait(timeout=15)
    project.settle(60)
    highest = max(int(line) for line in (project.marks / "concurrency").read_text().split())
    assert highest <= 3
    project.assert_sound()
    chains = [event["data"]["chain"] for event in project.events("session.requested")]
    assert max(chains) == 1


def test_two_commands_that_open_a_new_store_at_once_both_succeed(project: Project) -> None:
    project.configure("a")
    pauses = [project.spawn("pause") for _ in range(4)]
    assert [pause.wait(timeout=60) for pause in pauses] == [0, 0, 0, 0]
    assert len(project.events("store.migrated")) == 1
    assert len(project.events("loop.paused")) == 4
