"""An operator's word: it holds at once, outlives everything, says why, and has a brake that needs no store."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest
from e2e_project import Project, wait_until

from events.catalog import LockReleased, ViolationDetected
from events.store import EventLog
from loop.sessions import proc

STUBBORN = """#!/bin/sh
trap '' TERM
echo $LOOP_SESSION >> "$MARKS/started"
while :; do sleep 0.2; done
"""


def verdicts(project: Project) -> dict[str, str]:
    return {each["category"]: each["verdict"] for each in project.json("plan")["decision"]["candidates"]}


def alive(project: Project) -> list[int]:
    return [pid for run_dir in project.run_dirs() for pid in proc.marked(str(run_dir))]


def long_sessions(project: Project, *categories: str, grace: str = "20s") -> None:
    """Sessions that would run for a minute, started and recorded."""
    project.configure(*categories, slots=len(categories), env={"NAP": "60"})
    project.edit('grace = "1s"', f'grace = "{grace}"')
    assert len(project.json("tick")["started"]) == len(categories)


class TestPause:
    def test_of_a_category_leaves_the_others(self, project: Project) -> None:
        project.configure("code", "docs")
        project.loop("pause", "--category", "code", "--reason", "its tests are red")
        assert verdicts(project) == {"code": "paused", "docs": "chosen"}
        assert project.events("loop.paused")[0]["private"] == {"reason": "its tests are red"}

    def test_of_a_backend_leaves_the_others(self, project: Project) -> None:
        project.configure("code", extra='[backends.a]\n[backends.b]')
        project.loop("pause", "--backend", "a")
        assert [each["backend"] for each in project.json("plan")["decision"]["chosen"]] == ["b"]
        project.loop("pause", "--backend", "b")
        assert verdicts(project) == {"code": "no_backend"}
        project.loop("resume", "--backend", "a")
        assert [each["backend"] for each in project.json("plan")["decision"]["chosen"]] == ["a"]

    @pytest.mark.parametrize("until", ["8s", "a time"])
    def test_ends_by_itself(self, project: Project, until: str) -> None:
        project.configure("code")
        if until == "a time":
            until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 9))
        project.loop("pause", "--until", until)
        assert project.status()["mode"] == "paused"
        assert project.json("tick")["started"] == []
        wait_until(lambda: project.status()["mode"] == "running", 30)
        assert len(project.json("tick")["started"]) == 1

    def test_until_a_time_that_is_past_is_a_mistake(self, project: Project) -> None:
        project.configure("code")
        assert "not ahead" in project.loop("pause", "--until", "2020-01-01T00:00:00Z", code=2).stderr
        assert project.events("loop.paused") == []

    def test_of_all_is_not_lifted_for_a_category(self, project: Project) -> None:
        project.configure("code", "docs")
        project.loop("pause", "--category", "code")
        project.loop("pause")
        lifted = project.json("resume", "--category", "code")
        assert (lifted["lifted"], lifted["mode"]) == ({"category:code": "paused"}, "paused")
        assert verdicts(project) == {"code": "paused", "docs": "paused"}
        again = project.loop("resume", "--category", "code")
        assert "category code had no restraint of its own" in again.stderr
        assert "loop is paused" in again.stdout
        project.loop("resume")
        assert verdicts(project) == {"code": "chosen", "docs": "chosen"}

    def test_of_a_name_that_nobody_has_is_a_mistake_but_a_new_one_of_the_file_is_none(self, project: Project) -> None:
        project.configure("code")
        project.loop("tick")
        project.configure("code", "docs")
        project.loop("pause", "--category", "docs")
        assert "there are: code, docs" in project.loop("pause", "--category", "dosc", code=2).stderr

    def test_holds_for_a_session_that_ends_and_a_session_cannot_lift_it(self, project: Project) -> None:
        project.configure("code", "docs", slots=1, env={"NAP": "3"})
        project.loop("tick")
        project.loop("pause")
        project.settle()
        assert len(project.starts()) == 1
        project.loop("resume", env={"LOOP_SESSION": "s1"}, code=6)
        assert project.status()["mode"] == "paused"


    def test_that_ends_while_a_controller_sleeps_lets_the_next_fire_start(self, project: Project) -> None:
        """Nobody has to wake it, and the fires that the pause cost are no missed ones."""
        project.configure("code", slots=1, env={"NAP": "0"})
        project.edit('every = "1h"', 'every = "2s"')
        project.loop("pause", "--until", "6s")
        controller = project.spawn("run")
        try:
            wait_until(lambda: project.events("tick.skipped"))
            assert project.starts() == []
            wait_until(project.starts)
        finally:
            os.kill(controller.pid, signal.SIGTERM)
            controller.communicate(timeout=20)
        [paused], first = project.events("loop.paused"), project.events("session.requested")[0]
        assert first["at"] >= paused["data"]["until"]
        assert {event["data"]["reason"] for event in project.events("tick.skipped")} == {"paused"}
        assert all(event["at"] < paused["data"]["until"] for event in project.events("tick.skipped"))
        project.settle()

    @pytest.mark.parametrize("scope", [["--category", "code"], ["--backend", "default"]])
    def test_of_a_part_ends_by_itself_too(self, project: Project, scope: list[str]) -> None:
        project.configure("code")
        project.loop("pause", *scope, "--until", "6s")
        assert "chosen" not in verdicts(project).values()
        wait_until(lambda: verdicts(project) == {"code": "chosen"})


class TestDrain:
    def test_interrupted_it_ends_with_130_and_the_drain_holds(self, project: Project) -> None:
        long_sessions(project, "code")
        waiting = project.spawn("drain", "--wait")
        assert waiting.stderr is not None
        assert "waiting for 1" in waiting.stderr.readline()
        os.kill(waiting.pid, signal.SIGINT)
        _, said = waiting.communicate(timeout=10)
        assert (waiting.returncode, "Traceback" in said) == (130, False)
        assert project.status()["mode"] == "draining"
        assert len(alive(project)) > 0, "what runs goes on"
        project.loop("stop", "--kill")

    def test_a_session_cannot_wait_for_its_own_end(self, project: Project) -> None:
        project.configure("code")
        project.loop("drain", "--wait", env={"LOOP_SESSION": "s1"}, code=6)
        assert project.events("loop.draining") == []

    def test_waits_for_those_that_run_and_starts_no_more(self, project: Project) -> None:
        project.configure("code", "docs", slots=1, env={"NAP": "6"})
        project.loop("tick")
        done = project.loop("drain", "--wait", "--reason", "an upgrade")
        assert "waiting for 1" in done.stderr
        assert project.status()["mode"] == "draining"
        assert project.status()["sessions"]["live"] == []
        assert len(project.starts()) == 1

    def test_says_so_when_it_is_lifted_while_it_waits(self, project: Project) -> None:
        long_sessions(project, "code")
        waiting = project.spawn("drain", "--wait")
        wait_until(lambda: project.status()["mode"] == "draining")
        project.loop("resume")
        _, said = waiting.communicate(timeout=20)
        assert waiting.returncode == 6
        assert "runs again, with 1 sessions" in said


class TestStop:
    def test_of_all_pauses_and_ends_every_session(self, project: Project) -> None:
        long_sessions(project, "code", "docs")
        assert len(project.json("stop", "--reason", "too hot")["stopping"]) == 2
        status = project.settle()
        assert status["mode"] == "paused"
        assert {item["outcome"] for item in status["sessions"]["recent"]} == {"cancelled"}
        assert alive(project) == []

    def test_with_kill_does_not_wait_for_one_that_ignores_term(self, project: Project) -> None:
        project.agent.write_text(STUBBORN)
        long_sessions(project, "code", grace="60s")
        wait_until(project.starts)
        session = project.starts()[0][0]
        project.loop("stop", session)
        time.sleep(2)
        assert alive(project) != [], "it has its grace"
        project.loop("stop", session, "--kill")
        wait_until(lambda: alive(project) == [], 5, "the end of a killed session")
        assert project.settle()["sessions"]["recent"][0]["outcome"] == "cancelled"
        assert project.status()["mode"] == "running"

    def test_ends_one_that_ignores_term_when_its_grace_is_over(self, project: Project) -> None:
        project.agent.write_text(STUBBORN)
        long_sessions(project, "code", "docs", grace="2s")
        wait_until(lambda: len(project.starts()) == 2)
        session = project.starts()[0][0]  # whichever came to its first line before the other
        begun = time.monotonic()
        project.loop("stop", session, "--reason", "it is stuck")
        wait_until(lambda: [event["session"] for event in project.events("session.ended")] == [session])
        assert time.monotonic() - begun >= 2
        assert proc.marked(str(project.directory / ".loop" / "runs" / session)) == []
        [asked] = project.events("operator.requested")
        assert (asked["session"], asked["data"]["action"]) == (session, "cancel")
        assert asked["private"]["reason"] == "it is stuck"
        [ended] = project.events("session.ended")
        assert (ended["data"]["outcome"], ended["data"]["signal"]) == ("cancelled", signal.SIGKILL)
        assert asked["position"] < ended["position"], "the word is in the log before the deed"
        assert [item["category"] for item in project.status()["sessions"]["live"]] == [
            {"code": "docs", "docs": "code"}[ended["category"]]
        ]
        project.loop("stop", "--kill")
        project.settle()


class TestTheStopFile:
    def put(self, project: Project, text: str = "") -> float:
        (project.directory / ".loop" / "STOP").write_text(text)
        return time.monotonic()

    def test_ends_every_session_and_starts_none(self, project: Project) -> None:
        long_sessions(project, "code", "docs")
        self.put(project)
        wait_until(lambda: alive(project) == [], 6, "the shims to see STOP")
        status = project.settle()
        assert {item["outcome"] for item in status["sessions"]["recent"]} == {"cancelled"}
        assert status["problems"][0]["code"] == "stopped"
        done = project.loop("tick", "--timer", "--json")
        assert '"skipped":"stopped"' in done.stdout.replace(" ", "")
        assert "STOP is there" in done.stderr
        assert project.json("start", "code")["skipped"] == "stopped"
        assert {event["data"]["reason"] for event in project.events("tick.skipped")} == {"stopped"}
        assert {event["data"]["by"] for event in project.events("session.stopping")} == {"STOP"}
        (project.directory / ".loop" / "STOP").unlink()
        assert len(project.json("start", "code")["started"]) == 1

    @pytest.mark.parametrize(("text", "dies"), [("", False), ("kill\n", True)])
    def test_says_whether_there_is_a_grace(self, project: Project, text: str, dies: bool) -> None:
        project.agent.write_text(STUBBORN)
        long_sessions(project, "code", grace="60s")
        wait_until(project.starts)
        self.put(project, text)
        time.sleep(4)
        assert (alive(project) == []) is dies
        self.put(project, "kill")
        wait_until(lambda: alive(project) == [], 6)

    def test_taken_away_within_the_grace_it_has_stopped_what_it_stopped(self, project: Project) -> None:
        project.agent.write_text(STUBBORN)
        long_sessions(project, "code", grace="4s")
        wait_until(project.starts)
        self.put(project)
        time.sleep(2)  # a shim looks once a second
        (project.directory / ".loop" / "STOP").unlink()
        wait_until(lambda: alive(project) == [], 8)
        project.settle()
        assert {event["data"]["outcome"] for event in project.events("session.ended")} >= {"cancelled"}

    @pytest.mark.parametrize("damage", ["no database", "no store", "the store is gone", "no run directories"])
    def test_works_where_nothing_else_does(self, project: Project, damage: str) -> None:
        long_sessions(project, "code", "docs")
        state = project.directory / ".loop"
        if damage == "no database":
            for name in ("loop.db-wal", "loop.db-shm"):
                (state / name).unlink(missing_ok=True)
            project.db.write_bytes(b"no database at all" * 1000)
        elif damage == "no store":
            project.db.write_bytes(b"")
        elif damage == "the store is gone":
            project.db.unlink()
        else:
            (state / "runs").rename(state / "gone")
        run_dirs = [str(state / "runs" / line[0]) for line in project.starts()]
        assert all(proc.marked(run_dir) for run_dir in run_dirs)
        self.put(project)
        wait_until(lambda: not any(proc.marked(run_dir) for run_dir in run_dirs), 6)
        done = project.loop("tick", code=None)
        assert "STOP is there" in done.stderr
        assert "started" not in done.stdout
        if damage != "no run directories":
            assert done.returncode == 1
            assert "STOP is there" in project.loop("status", code=None).stderr

    def test_holds_a_controller_that_runs(self, project: Project) -> None:
        project.configure("code", slots=1, loop='jitter = "0s"')
        project.edit('every = "1h"', 'every = "2s"')
        state = project.directory / ".loop"
        state.mkdir(mode=0o700)
        self.put(project)
        controller = project.spawn("run")
        try:
            wait_until(lambda: project.events("tick.skipped"))
            assert project.starts() == []
            (state / "STOP").unlink()
            wait_until(project.starts)
        finally:
            os.kill(controller.pid, signal.SIGTERM)
            _, said = controller.communicate(timeout=20)
        assert "STOP is there" in said
        assert "fire skipped: stopped" in said

    def test_is_named_where_stop_cannot_use_the_store(self, project: Project) -> None:
        project.configure("code")
        project.loop("tick")
        project.settle()
        project.db.write_bytes(b"no database at all" * 1000)
        assert f"touch {project.directory}/.loop/STOP" in project.loop("stop", code=1).stderr

    def test_stops_a_session_that_is_still_preparing(self, project: Project) -> None:
        project.configure("code", slots=1, category='command = ["./agent.sh"]\nbefore = ["sleep", "60"]')
        ticking = project.spawn("tick")
        wait_until(lambda: [run for run in project.run_dirs() if (run / "claim").exists()])
        self.put(project)
        ticking.communicate(timeout=30)
        project.settle()
        assert project.starts() == []


def violate(project: Project, token: int = 1) -> None:
    """Record that two held one lock, as a look at the witnesses would."""
    log = EventLog.open(project.db)
    with log.transaction() as transaction:
        transaction.append(ViolationDetected(kind="foreign_holder", key="code", token=token), actor="test")
    log.close()


def failing(project: Project, count: int, **more: Any) -> None:
    names = [f"c{number}" for number in range(count)]
    project.configure(*names, slots=count, env={"CODE": "1", "SAY": ""}, **more)


class TestTheStormGuard:
    def test_freezes_on_eight_failures_of_ten_until_a_resume_with_a_reason(self, project: Project) -> None:
        failing(project, 8)
        project.loop("tick")
        status = project.settle()
        assert status["mode"] == "frozen"
        [problem] = [each for each in status["problems"] if each["code"] == "frozen"]
        assert "8 of the last 10 sessions failed" in problem["text"]
        [frozen] = project.events("loop.frozen")
        assert (frozen["data"]["because"], frozen["actor"]) == ("failures", "guard")
        assert project.json("tick", "--timer")["skipped"] == "frozen"
        assert project.json("start", "c0")["decision"]["candidates"][0]["verdict"] == "frozen"
        assert set(verdicts(project).values()) == {"frozen"}
        for words in (["resume"], ["resume", "--reason", "  "]):
            refused = project.loop(*words, code=2)
            assert "8 of the last 10 sessions failed: s" in refused.stderr
        project.loop("pause", "--until", "2s")
        time.sleep(2.2)
        assert project.status()["mode"] == "frozen", "a pause that runs out does not thaw"
        assert project.json("resume", "--reason", "the agent is mended")["mode"] == "running"
        assert project.events("loop.resumed")[-1]["private"] == {"reason": "the agent is mended"}
        project.loop("start", "c0")
        project.settle()
        assert project.status()["mode"] == "running", "a resume begins anew"
        assert project.json("verify")["ok"]

    def test_seven_failures_are_no_storm(self, project: Project) -> None:
        failing(project, 7)
        project.loop("tick")
        assert project.settle()["mode"] == "running"

    def test_cancelled_and_limited_sessions_are_no_failures(self, project: Project) -> None:
        names = [f"c{number}" for number in range(9)]
        project.configure(*names, slots=9, env={"SAY": '{"outcome": "limited"}'})
        project.loop("tick")
        assert project.settle()["mode"] == "running"

    def test_freezes_on_three_lost_shims(self, project: Project) -> None:
        long_sessions(project, "code", "docs", "news")
        for run_dir in project.run_dirs():
            os.kill(json.loads((run_dir / "claim").read_text())["pid"], signal.SIGKILL)
            for pid in proc.marked(str(run_dir)):
                os.kill(pid, signal.SIGKILL)
        assert project.json("tick")["started"] == [], "the pass that finds them starts nothing on it"
        assert project.status()["mode"] == "frozen"
        [frozen] = project.events("loop.frozen")
        assert frozen["data"]["because"] == "lost"
        assert "the shims of 3 of the last 10 sessions died" in project.loop("resume", code=2).stderr

    def test_freezes_the_category_and_the_loop_on_a_violation_which_heads_status(self, project: Project) -> None:
        project.configure("code", "docs")
        project.loop("tick")
        project.settle()
        violate(project)
        assert project.json("tick")["started"] == []
        frozen = [(event["data"]["scope"], event["data"]["name"]) for event in project.events("loop.frozen")]
        assert frozen == [("category", "code"), ("all", None)]
        status = project.status()
        assert [each["code"] for each in status["problems"]][:3] == ["same_lock", "frozen", "frozen"]
        project.loop("resume", "--category", "code", code=2)
        lifted = project.json("resume", "--category", "code", "--reason", "the other holder is gone")
        assert (lifted["lifted"], lifted["mode"]) == ({"category:code": "frozen"}, "frozen")
        project.loop("resume", "--reason", "looked at")
        assert {each["category"] for each in project.json("tick")["started"]} == {"code", "docs"}
        project.settle()
        assert len(project.events("loop.frozen")) == 2, "what was answered does not freeze again"

    def test_is_not_thawed_by_the_end_of_a_pause_that_came_before(self, project: Project) -> None:
        """What happened under a pause freezes under it, and the resume that was meant for the pause is refused."""
        project.configure("code")
        project.loop("tick")
        project.settle()
        project.loop("pause")
        violate(project)
        assert project.json("tick", "--timer")["skipped"] == "frozen"
        assert project.status()["mode"] == "frozen"
        assert "one lock was held by two" in project.loop("resume", code=2).stderr
        assert project.json("resume", "--reason", "looked at")["mode"] == "running"

    def test_is_not_lifted_by_who_has_not_seen_it(self, project: Project) -> None:
        """A violation that no pass has looked at yet: the resume freezes, and a reason for something else is none."""
        project.configure("code")
        project.loop("tick")
        project.settle()
        project.loop("pause")
        violate(project)
        refused = project.loop("resume", "--reason", "the upgrade is over", code=2)
        assert "one lock was held by two: code" in refused.stderr
        assert project.status()["mode"] == "frozen"
        assert project.json("resume", "--reason", "looked at")["mode"] == "running"

    def test_a_pause_and_its_end_begin_nothing_anew(self, project: Project) -> None:
        failing(project, 7)
        project.loop("tick")
        project.settle()
        project.loop("pause")
        project.loop("resume")
        project.loop("start", "c0")
        assert project.settle()["mode"] == "frozen"

    def test_records_a_violation_that_only_the_fold_saw(self, project: Project) -> None:
        """Two sessions under one key: written past every check, as a bug would."""
        project.configure("code", "docs", slots=1, env={"NAP": "0"})
        project.loop("tick")
        project.settle()
        log = EventLog.open(project.db)
        events = list(log.events())
        ended = next(event for event in events if event.type == "session.ended")
        token = next(event.position for event in events if event.type == "session.requested")
        with log.transaction() as transaction:  # a key let go under a token that is overtaken
            overtaken = LockReleased(key=ended.category or "", token=token - 1, how="clean")
            transaction.append(overtaken, actor="test", session=ended.session, category=ended.category)
        log.close()
        project.loop("tick")
        assert [event["data"]["kind"] for event in project.events("violation.detected")] == ["overtaken_token"]
        assert project.status()["violations"]["same_lock"] == 1
        assert project.status()["mode"] == "frozen"
