"""`loop.notify` is told of what matters: each kind by a real command, once, and never to anybody's harm."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from e2e_project import Project, wait_until

from events.catalog import BackendLimited, Payload, ViolationDetected
from events.store import EventLog
from loop.notices import LAPSE, due
from loop.sessions import proc
from projections import snapshots

NOTIFY = 'notify = ["./notify.sh"]'


def notified(project: Project, script: str = 'cat >> "notices.jsonl"', *categories: str, **more: Any) -> Project:
    path = project.directory / "notify.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return project.configure(*(categories or ("code",)), loop=NOTIFY, **more)


def told(project: Project) -> list[dict[str, Any]]:
    path = project.directory / "notices.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def told_in_the_end(project: Project) -> list[dict[str, Any]]:
    """All that is told once a tick has nothing to add; one tick tells only what its seconds allow on a busy machine."""
    known = -1
    while len(told(project)) > known:
        known = len(told(project))
        project.loop("tick")
    return told(project)


def append(project: Project, *payloads: Payload, **envelope: Any) -> None:
    log = EventLog.open(project.db)
    with log.transaction() as transaction:
        for payload in payloads:
            transaction.append(payload, actor="test", **envelope)
    log.close()


def lose(project: Project) -> None:
    """Kill every shim and worker, as the kernel would for want of memory."""
    for run_dir in project.run_dirs():
        os.kill(json.loads((run_dir / "claim").read_text())["pid"], signal.SIGKILL)
        for pid in proc.marked(run_dir.name):
            os.kill(pid, signal.SIGKILL)


class TestWhatIsTold:
    def test_a_violation_and_the_freezes_that_it_brings(self, project: Project) -> None:
        notified(project)
        project.loop("tick")
        project.settle()
        append(project, ViolationDetected(kind="foreign_holder", key="code", token=1))
        project.loop("tick")
        category, loop, violation = told(project)
        assert violation["schema"] == "loop.notice/1"
        assert (violation["kind"], violation["subject"], violation["times"]) == ("violation", "code", 1)
        assert violation["text"] == "foreign holder of code"
        assert violation["position"] == project.events("violation.detected")[0]["position"]
        assert project.loop(*violation["command"].split()[1:]).stdout.count("violation.detected") == 1
        assert (category["kind"], category["subject"]) == ("frozen", "category code")
        assert (loop["subject"], loop["text"]) == ("all", "the loop is frozen: one lock was held by two")
        sent = project.events("notice.sent")
        assert [(each["data"]["kind"], each["data"]["about"]) for each in sent] == [
            (each["kind"], each["position"]) for each in told(project)
        ]

    def test_a_pool_that_is_limited(self, project: Project) -> None:
        notified(project, env={"SAY": '{"outcome": "limited", "resets_at": "2040-01-01T00:00:00Z"}'})
        project.loop("tick")
        project.settle()
        wait_until(lambda: told(project))
        [notice] = told(project)
        assert (notice["kind"], notice["subject"]) == ("pool_limited", "default")
        assert notice["text"] == "backend pool default is limited until 2040-01-01T00:00:00Z"

    def test_a_fire_that_was_missed(self, project: Project) -> None:
        notified(project, selector=project.select({"all_scores": {}}))
        project.edit('every = "1h"', 'every = "1s"')
        project.loop("tick", "--timer")
        time.sleep(3.2)
        project.loop("tick", "--timer")
        [notice] = told(project)
        missed = project.events("tick.started")[-1]["data"]["missed"]
        assert (notice["kind"], notice["text"]) == ("fire_missed", f"{missed} fires were missed before this one")

    def test_a_schedule_that_fell_silent_is_told_by_whoever_still_runs(self, project: Project) -> None:
        notified(project, env={"NAP": "4"}, slots=1)
        project.edit('every = "1h"', 'every = "1s"')
        project.loop("tick", "--timer")
        wait_until(lambda: told(project), 20)
        assert (told(project)[0]["kind"], told(project)[0]["subject"]) == ("fire_missed", "silence")

    def test_a_pass_whose_config_is_invalid_by_the_command_of_the_last_good_one(self, project: Project) -> None:
        notified(project)
        project.loop("tick")
        project.settle()
        project.edit("[selector]", "[selectro]")
        for _ in range(3):
            project.loop("tick", code=3)
        assert [(each["kind"], each["subject"]) for each in told(project)] == [("pass_failed", "config")]

    def test_a_pass_whose_selection_is_rejected(self, project: Project) -> None:
        notified(project, selector='command = ["false"]')
        project.loop("tick", code=3)
        [notice] = told(project)
        assert notice["kind"] == "pass_failed"
        assert notice["text"] == "the selector's answer was rejected: the selector failed"

    def test_a_session_that_is_lost(self, project: Project) -> None:
        notified(project, env={"NAP": "60"})
        project.loop("tick")
        lose(project)
        project.loop("tick", "--timer")
        [notice] = told(project)
        assert (notice["kind"], notice["subject"]) == ("session_lost", "code")
        assert notice["text"] == "a session of code was lost: shim died"

    def test_also_by_a_controller(self, project: Project) -> None:
        notified(project, env={"NAP": "60"}, slots=1)
        project.edit('every = "1h"', 'every = "1s"')
        controller = project.spawn("run")
        try:
            wait_until(project.starts)
            lose(project)
            wait_until(lambda: "session_lost" in {each["kind"] for each in told(project)})
        finally:
            os.kill(controller.pid, signal.SIGTERM)
            controller.communicate(timeout=20)
            project.loop("stop", "--kill")


class TestHowOften:
    def test_once_and_then_in_an_hour_how_often_it_happened_again(self, project: Project) -> None:
        notified(project)
        project.loop("tick")
        for _ in range(3):
            append(project, BackendLimited(pool="default", source="test"))
            project.loop("tick")
        assert [each["times"] for each in told(project)] == [1]

    def test_at_most_twelve_an_hour_the_last_of_which_counts_the_rest(self, project: Project) -> None:
        notified(project)
        project.loop("tick")
        append(project, *(BackendLimited(pool=f"pool{number}", source="test") for number in range(30)))
        notices = told_in_the_end(project)
        assert [each["kind"] for each in notices] == ["pool_limited"] * 11 + ["suppressed"]
        assert (notices[-1]["suppressed"], notices[-1]["subject"]) == (19, None)
        assert notices[-1]["text"].startswith("19 more, and no further notice for a while: pool_limited pool11")
        append(project, BackendLimited(pool="one-more", source="test"))
        project.loop("tick")
        assert len(told(project)) == 12

    def test_nobody_is_told_of_an_old_log(self, project: Project) -> None:
        """A command that is configured later does not get what happened long before."""
        notified(project)
        project.loop("tick")
        append(project, BackendLimited(pool="default", source="test"))
        log = EventLog.read(project.db)
        state = snapshots.load(log)
        now = time.time_ns() // 1000
        log.close()
        assert [each.kind for each in due(state, now)] == ["pool_limited"]
        assert [each.kind for each in due(state, now + LAPSE + 60_000_000) if each.kind != "fire_missed"] == []


class TestACommandThatFails:
    @pytest.mark.parametrize(
        ("script", "said"),
        [
            ("echo no network >&2; exit 7", "exit code 7: no network"),
            ("kill -9 $$", "ended by signal 9"),
            ("exec head -c 1000000 /dev/zero", "printed more than"),
        ],
    )
    def test_is_recorded_and_changes_nothing(self, project: Project, script: str, said: str) -> None:
        notified(project, script, selector='command = ["false"]\non_reject = "fallback"')
        project.loop("tick", code=3)
        [failed] = project.events("notice.failed")
        assert said in failed["private"]["text"]
        assert (failed["data"]["kind"], failed["data"]["subject"]) == ("pass_failed", "selector")
        project.loop("tick", code=3)
        assert len(project.events("notice.failed")) == 1, "it is not tried again at once"
        assert project.json("verify")["ok"]

    def test_is_recorded_where_it_is_missing(self, project: Project) -> None:
        notified(project, selector='command = ["false"]')
        (project.directory / "notify.sh").unlink()
        project.loop("tick", code=3)
        assert "no program ./notify.sh" in project.events("notice.failed")[0]["private"]["text"]

    def test_is_killed_with_all_that_it_started(self, project: Project) -> None:
        pid_file = project.directory / "pid"
        notified(project, f"sleep 300 & echo $! > {pid_file}; sleep 300", selector='command = ["false"]')
        begun = time.monotonic()
        project.loop("tick", code=3)
        assert time.monotonic() - begun < 25
        assert "gave no end within" in project.events("notice.failed")[0]["private"]["text"]
        stat = Path(f"/proc/{int(pid_file.read_text())}/stat")
        assert not stat.exists() or stat.read_text().split()[2] == "Z"


def test_it_finds_no_loop_variables_and_reads_one_object(project: Project) -> None:
    notified(project, "env > env.txt; cat > notice.json", selector='command = ["false"]')
    project.loop("tick", code=3, env={"LOOP_DEBUG": "1", "TOKEN": "x"})
    env = (project.directory / "env.txt").read_text()
    assert "TOKEN=x" in env
    assert "LOOP_" not in env
    notice = json.loads((project.directory / "notice.json").read_text())
    assert set(notice) == {"schema", "kind", "subject", "text", "command", "at", "position", "times", "store"}


def test_without_a_command_nothing_is_recorded(project: Project) -> None:
    project.configure("code", selector='command = ["false"]')
    project.loop("tick", code=3)
    assert project.events("notice.*") == []
    assert project.events("tick.started") != []
