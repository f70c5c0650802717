"""Output of sessions that are over is removed by age and size; events, and whatever may still matter, are not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_project import Project, wait_until

from events.clock import SystemClock
from events.store import EventLog
from loop.journal import Journal
from loop.sessions import retention

DAY = 86_400.0
WRITER = """
[backends.default]
command = ["sh", "-c", "head -c 300000 /dev/zero | tr '\\\\0' x; exit 0"]
"""


class Later(SystemClock):
    """The machine's clock, a while ahead."""

    def __init__(self, seconds: float) -> None:
        self.ahead = round(seconds * 1e6)

    def now(self) -> int:
        return super().now() + self.ahead


def sweep(project: Project, *, ahead: float = 0, age: float = 365 * DAY, size: int = 1 << 40) -> list[str]:
    journal = Journal(EventLog.open(project.db))
    try:
        clock = Later(ahead)
        return [each.output.session for each in retention.sweep(journal, project.db.parent, clock, age=age, size=size)]
    finally:
        journal.close()


def ended(project: Project, count: int = 1) -> list[str]:
    """So many sessions one after another, run to their end; oldest first."""
    for _ in range(count):
        project.loop("tick")
        project.settle()
    return [event["session"] for event in project.events("session.ended")]


def long_ago(project: Project) -> None:
    """As if the last sweep had been two hours ago."""
    lock = project.db.parent / "retention.lock"
    lock.touch(mode=0o600)
    os.utime(lock, (lock.stat().st_mtime - 7200,) * 2)


def run_dirs(project: Project) -> set[str]:
    return {path.name for path in project.run_dirs()}


NOOP = {"SAY": '{"outcome": "noop"}', "NAP": "0"}
FORGETFUL = '[retention]\nage = "1s"'


def test_a_pass_removes_what_is_too_old_and_keeps_its_events(project: Project) -> None:
    project.configure("code", env=NOOP, category='command = ["./agent.sh"]\ncooldown = "0s"', extra=FORGETFUL)
    [session] = ended(project)
    before = project.events()
    wait_until(lambda: sweepable(project, session))
    long_ago(project)
    project.loop("tick")
    project.settle()
    assert session not in run_dirs(project)
    assert not (project.db.parent / "removed").exists() or not os.listdir(project.db.parent / "removed")
    assert project.events()[: len(before)] == before
    [removed] = [event for event in project.events("output.removed") if event["session"] == session]
    assert removed["data"]["why"] == "age"
    assert removed["data"]["bytes"] > 0
    told = project.loop("tail", session, code=2).stderr
    assert "was removed at" in told
    assert f"loop log --session {session}" in told
    project.assert_sound()
    project.json("verify")


def sweepable(project: Project, session: str) -> bool:
    log = EventLog.read(project.db)
    try:
        now = SystemClock().now()
        seen = retention.survey(log, project.db.parent, age=1, size=0, now=now)
    finally:
        log.close()
    return session in {each.output.session for each in seen.due}


def test_passes_look_at_most_once_an_hour(project: Project) -> None:
    project.configure("code", env=NOOP, category='command = ["./agent.sh"]\ncooldown = "0s"', extra=FORGETFUL)
    [session] = ended(project)
    wait_until(lambda: sweepable(project, session))
    project.loop("tick")
    project.settle()
    assert session in run_dirs(project)


def test_a_live_session_keeps_its_run_directory_however_old(project: Project) -> None:
    project.configure("code", env={"NAP": "20"}).loop("tick")
    wait_until(lambda: project.starts())
    assert sweep(project, ahead=400 * DAY, size=0) == []
    assert len(run_dirs(project)) == 1
    project.loop("stop", "--kill")


def test_what_the_log_does_not_know_to_be_over_is_kept(project: Project) -> None:
    project.configure("code", env=NOOP)
    ended(project)
    stranger = project.db.parent / "runs" / "sstranger"
    stranger.mkdir(mode=0o700)
    (stranger / "out.log").write_text("dear")
    sweep(project, ahead=400 * DAY, size=0)
    assert run_dirs(project) == {"sstranger"}


def test_beyond_the_size_the_oldest_go_first_and_the_last_hour_stays(project: Project) -> None:
    project.configure("code", slots=1, category='cooldown = "0s"\nevidence = "exit"', extra=WRITER)
    sessions = ended(project, 3)
    assert len(sessions) == 3
    assert sweep(project, ahead=1800, size=0) == []
    assert sweep(project, ahead=7200, size=700_000) == sessions[:1]
    assert run_dirs(project) == set(sessions[1:])
    assert sweep(project, ahead=7200, size=700_000) == []
    assert [event["data"]["why"] for event in project.events("output.removed")] == ["size"]


def test_a_process_that_lives_on_keeps_the_run_directory(project: Project) -> None:
    project.configure("code", env=NOOP)
    [session] = ended(project)
    run_dir = str(project.db.parent / "runs" / session)
    with subprocess.Popen(["sleep", "60"], env={**os.environ, "LOOP_RUN_DIR": run_dir}) as left_behind:
        assert sweep(project, ahead=400 * DAY) == []
        left_behind.kill()
    assert sweep(project, ahead=400 * DAY) == [session]


@pytest.mark.parametrize("step", ["rename", "rmtree"])
def test_a_crash_in_the_middle_is_made_good_by_the_next_sweep(
    project: Project, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.configure("code", env=NOOP)
    [session] = ended(project)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os if step == "rename" else shutil, step, crash)
        with pytest.raises(KeyboardInterrupt):
            sweep(project, ahead=400 * DAY)
    where: Path = project.db.parent / ("runs" if step == "rename" else "removed")
    assert os.listdir(where) == [session]
    sweep(project, ahead=400 * DAY)
    assert os.listdir(where) == []
    assert len(project.events("output.removed")) == 1
