"""Notices under stress: bursts, commands that hang, fork or are slow, several loops, crashes, a broken store."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
from e2e_project import LOOP, Project, wait_until
from test_notify_command import append, lose, notified, told

from events.catalog import BackendLimited, ViolationDetected
from loop.alarm import MARK
from loop.notices import SECONDS

LIMIT = 8192  # bytes that no file may outgrow: less than a store, more than a file of a run directory


def kinds(project: Project) -> list[tuple[str, str | None]]:
    return [(each["kind"], each["subject"]) for each in told(project)]


class TestWhatStands:
    def test_a_budget_that_is_reached(self, project: Project) -> None:
        notified(project, category='command = ["./agent.sh"]\nmax_runs_per_day = 1')
        project.loop("tick")
        project.settle()
        project.loop("tick")
        assert kinds(project) == [("budget_reached", "category code")]
        [notice] = told(project)
        assert notice["text"].startswith("the budget of category code is reached: 1 runs of 1 runs a day; something")
        assert project.loop(*notice["command"].split()[1:]).returncode == 0

    def test_a_backend_whose_program_is_missing(self, project: Project) -> None:
        extra = '[backends.gone]\npool = "max"\ncommand = ["./no-such-agent"]'
        notified(project, category="", extra=extra)
        project.loop("tick")
        project.settle()
        project.loop("tick")
        assert kinds(project) == [("pool_limited", "backend gone")]
        assert told(project)[0]["text"] == "backend gone is limited: its sessions end with command not found"


class TestABurst:
    def test_of_a_hundred_violations_is_twelve_notices_and_the_freeze_is_the_first(self, project: Project) -> None:
        notified(project)
        project.loop("tick")
        project.settle()
        append(project, *(ViolationDetected(kind="seen", key=f"k{n}", token=1) for n in range(100)))
        project.loop("tick")
        project.loop("tick")
        first, *violations, rest = kinds(project)
        assert first == ("frozen", "all")
        assert violations == [("violation", f"k{n}") for n in range(10)]
        assert rest == ("suppressed", None)
        assert told(project)[-1]["suppressed"] == 90

    def test_a_failing_command_is_tried_once_in_a_look_and_does_not_use_up_the_hour(self, project: Project) -> None:
        notified(project, "cat >/dev/null; exit 1")
        project.loop("tick")
        project.settle()
        append(project, *(BackendLimited(pool=f"p{n}", source="test") for n in range(8)))
        for _ in range(3):
            project.loop("tick")
        assert len(project.events("notice.failed")) == 1


class TestASlowCommand:
    @pytest.mark.slow
    def test_has_its_whole_time_for_each_notice(self, project: Project) -> None:
        """Three that take four seconds each: the third begins within ten seconds, and is not cut off by them."""
        notified(project, "cat >> notices.jsonl; sleep 4")
        project.loop("tick")
        project.settle()
        append(project, *(BackendLimited(pool=f"p{n}", source="test") for n in range(4)))
        project.loop("tick")
        assert [subject for _, subject in kinds(project)] == ["p0", "p1", "p2"]
        project.loop("tick")
        assert [subject for _, subject in kinds(project)] == ["p0", "p1", "p2", "p3"]
        assert project.events("notice.failed") == []

    def test_what_it_leaves_in_the_background_holds_nobody_up(self, project: Project) -> None:
        pid_file = project.directory / "pid"
        script = f"cat >> notices.jsonl; setsid sleep 60 & echo $! > {pid_file}"
        notified(project, script, selector='command = ["false"]')
        begun = time.monotonic()
        project.loop("tick", code=3)
        assert time.monotonic() - begun < SECONDS
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        assert len(project.events("notice.sent")) == 1

    def test_holds_a_controller_up_for_a_moment_only(self, project: Project) -> None:
        """It hangs, and a session is started all the same."""
        notified(project, "sleep 300", slots=1, selector='command = ["false"]\non_reject = "fallback"')
        project.edit('every = "1h"', 'every = "4s"')
        controller = project.spawn("run")
        try:
            wait_until(lambda: project.events("notice.failed"), 30)
            before = len(project.starts())
            wait_until(lambda: len(project.starts()) > before, 30)
        finally:
            os.kill(controller.pid, signal.SIGTERM)
            controller.communicate(timeout=30)
        assert controller.returncode == 0


class TestSeveralAtOnce:
    def test_tell_everything_once(self, project: Project) -> None:
        notified(project, "cat >> notices.jsonl; sleep 0.5")
        project.loop("tick")
        project.loop("pause")
        append(project, *(BackendLimited(pool=f"p{n}", source="test") for n in range(4)))
        ticks = [project.spawn("tick") for _ in range(4)]
        for tick in ticks:
            tick.communicate(timeout=60)
        wait_until(lambda: len(project.events("notice.sent")) == 4)
        project.loop("tick")
        assert [subject for _, subject in kinds(project)] == ["p0", "p1", "p2", "p3"]

    def test_who_tells_sees_what_others_find_meanwhile(self, project: Project) -> None:
        """They leave it to the one that tells, and there may be no later look for half an hour."""
        notified(project, "cat >> notices.jsonl; sleep 3", selector='command = ["false"]')
        first = project.spawn("tick")
        wait_until(lambda: told(project))
        append(project, BackendLimited(pool="max", source="test"))
        project.loop("tick", code=3)
        first.communicate(timeout=20)
        assert kinds(project) == [("pass_failed", "selector"), ("pool_limited", "max")]


class TestACrash:
    def test_between_the_event_and_the_notice_loses_none(self, project: Project) -> None:
        notified(project, env={"NAP": "60"})
        project.loop("tick")
        lose(project)
        trigger = project.directory / "die"
        trigger.touch()
        project.loop("tick", env={"FAULTPOINT": f"pass.reconciled:{trigger}"}, code=-signal.SIGKILL)
        assert project.events("session.lost") != []
        assert told(project) == []
        project.loop("tick")
        assert ("session_lost", "code") in kinds(project)
        project.loop("stop", "--kill")
        project.settle()

    def test_while_it_is_sent_sends_it_again(self, project: Project) -> None:
        """At least once: whether the first arrived, nobody knows."""
        notified(project, "cat >> notices.jsonl; test -e go || exec sleep 60", selector='command = ["false"]')
        tick = project.spawn("tick")
        wait_until(lambda: told(project))
        os.kill(tick.pid, signal.SIGKILL)
        tick.communicate(timeout=20)
        assert project.events("notice.*") == []
        (project.directory / "go").touch()
        project.loop("tick", code=3)
        assert kinds(project) == [("pass_failed", "selector")] * 2
        assert len(project.events("notice.sent")) == 1
        project.loop("tick", code=3)
        assert len(told(project)) == 2


# As on a full disk, whatever makes a file longer than this is refused; what is small, as a notice, still fits.
FULL = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
os.execv(sys.argv[1], sys.argv[1:])
"""


# A process that is stuck in a transaction.
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


class TestAStoreThatTakesNoWord:
    def tick(self, project: Project, *before: str) -> subprocess.CompletedProcess[str]:
        argv = [*before, *LOOP, "tick"]
        return subprocess.run(argv, cwd=project.directory, capture_output=True, text=True, timeout=60, check=False)

    def full(self, project: Project) -> subprocess.CompletedProcess[str]:
        return self.tick(project, sys.executable, "-c", FULL)

    def test_is_told_without_it_once_an_hour(self, project: Project) -> None:
        notified(project).loop("pause")
        for _ in range(3):
            done = self.full(project)
            assert done.returncode == 1
            assert str(project.db) in done.stderr
        [notice] = told(project)
        assert (notice["schema"], notice["kind"], notice["subject"]) == ("loop.notice/1", "pass_failed", "store")
        assert str(project.db) in notice["text"]
        assert notice["text"].endswith(": nothing is started")
        assert (notice["position"], notice["store"], notice["times"]) == (None, None, 1)
        assert project.loop(*notice["command"].split()[1:], code=None).stdout
        mark = project.directory / ".loop" / MARK
        assert 3000 < mark.stat().st_mtime - time.time() <= 3600
        os.utime(mark, (time.time() - 1, time.time() - 1))  # as if that hour were over
        self.full(project)
        assert len(told(project)) == 2
        assert self.tick(project).returncode == 0
        assert project.json("verify")["ok"]

    @pytest.mark.parametrize("damage", [b"", b"no database at all" * 1000])
    def test_also_where_it_cannot_even_be_opened(self, project: Project, damage: bytes) -> None:
        notified(project).loop("pause")
        for name in ("loop.db-wal", "loop.db-shm"):
            (project.db.parent / name).unlink(missing_ok=True)
        project.db.write_bytes(damage)
        assert self.tick(project).returncode == 1
        assert kinds(project) == [("pass_failed", "store")]

    def test_and_where_somebody_never_lets_go_of_it(self, project: Project) -> None:
        notified(project).loop("pause")
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(project.db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            assert self.tick(project).returncode == 5
        finally:
            holder.communicate("let go", timeout=10)
        assert kinds(project) == [("pass_failed", "store")]
        assert "another process held the lock for 15 s: nothing is started" in told(project)[0]["text"]

    def test_says_so_where_the_notice_fails_and_tries_again_after_a_quarter_of_an_hour(self, project: Project) -> None:
        notified(project, "exit 7").loop("pause")
        done = self.full(project)
        assert done.returncode == 1
        assert "the notice of it failed: ./notify.sh: exit code 7" in done.stderr
        mark = project.directory / ".loop" / MARK
        assert 600 < mark.stat().st_mtime - time.time() <= 900
        assert "the notice" not in self.full(project).stderr

    def test_by_a_controller_too_which_goes_on(self, project: Project) -> None:
        notified(project, slots=1, env={"NAP": "0"})
        project.edit('every = "1h"', 'every = "2s"')
        controller = project.spawn("run")
        try:
            wait_until(lambda: project.events("tick.finished"))
            resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
            wait_until(lambda: told(project))
            time.sleep(5)
            resource.prlimit(controller.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            before = len(project.events("tick.finished"))
            wait_until(lambda: len(project.events("tick.finished")) > before)
        finally:
            os.kill(controller.pid, signal.SIGTERM)
            controller.communicate(timeout=30)
        assert [each for each in kinds(project) if each[1] == "store"] == [("pass_failed", "store")]
