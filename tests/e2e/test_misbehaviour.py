"""Sessions that misbehave end correctly and free their lock."""

from __future__ import annotations

import pytest
from e2e_project import Project, wait_until

SCRIPTS = {
    "floods its output": ("head -c 60000000 /dev/zero | tr '\\0' x\n", "unproven"),
    "ignores TERM": ("trap '' TERM\nsleep 60 & sleep 60\n", "timed_out"),
    "forks a daemon": ("setsid -f sleep 300\n", "unproven"),
    "writes a malformed outcome file": ("echo '{\"outcome\": 7' > \"$LOOP_OUTCOME\"\n", "failed"),
    "makes the outcome file a FIFO": ('mkfifo "$LOOP_OUTCOME"\n', "failed"),
    "dies by a signal": ("kill -SEGV $$\n", "failed"),
    "exits with a configured code": ("exit 75\n", "refused"),
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_a_session_that(project: Project, what: str) -> None:
    script, outcome = SCRIPTS[what]
    category = 'command = ["./agent.sh"]\nexit_codes = { 75 = "refused" }\ntimeout = "3s"\ngrace = "1s"'
    project.configure("code", slots=1, category=category)
    project.agent.write_text("#!/bin/sh\n" + script)
    project.loop("tick")
    status = project.settle(40)
    assert [item["outcome"] for item in status["sessions"]["recent"]] == [outcome]
    project.assert_sound()
    disk = sum(path.stat().st_blocks * 512 for path in project.run_dirs()[0].iterdir())
    assert disk < 25 << 20
    if outcome == "refused":
        assert status["categories"][0]["spawned"] == 0


@pytest.mark.parametrize(
    ("category", "code"),
    [
        ('command = ["no-such-program"]', "command_not_found"),
        ('command = ["./agent.sh"]\ncwd = "nowhere/{session}"', "bad_cwd"),
        ('command = ["./agent.sh"]\nbefore = ["false"]', "before_failed"),
        ('command = ["./agent.sh", "{prompt}"]\nprompt_file = "gone.md"', "launch_failed"),
    ],
)
def test_a_session_that_cannot_start_frees_its_lock_and_its_slot(project: Project, category: str, code: str) -> None:
    project.configure("code", slots=1, category=category)
    tick = project.json("tick")
    assert tick["started"] == []
    wait_until(lambda: project.events("session.spawn_failed"))
    status = project.settle()
    assert [item["reason"] for item in status["sessions"]["recent"]] == [code]
    assert status["problems"][0]["code"] == "spawn_failed"
    assert project.starts() == []
    project.assert_sound()


def test_hooks_run_around_a_session_and_cwd_may_name_it(project: Project) -> None:
    category = """command = ["./../../agent.sh"]
before = ["mkdir", "-p", "work/{session}"]
after = ["touch", "work/{session}/after"]
cwd = "work/{session}"
"""
    project.configure("code", slots=1, category=category, env={"SAY": '{"outcome": "noop"}'})
    project.loop("tick")
    project.settle()
    (session,) = [line[0] for line in project.starts()]
    assert (project.directory / "work" / session / "after").exists()
    project.assert_sound()


def test_git_evidence_is_a_commit_with_the_sessions_trailer_and_no_other(project: Project) -> None:
    for name in ("mine", "others"):
        project.loop("--version")
        repo = project.directory / name
        repo.mkdir()
        git = f"git -C {repo} -c user.name=a -c user.email=a@b"
        trailer = "$LOOP_SESSION" if name == "mine" else "somebody-else"
        (repo / "agent.sh").write_text(
            f"#!/bin/sh\n{git} init -q .\n{git} commit -q --allow-empty -m 'work\n\nLoop-Session: '{trailer}\n"
        )
        (repo / "agent.sh").chmod(0o755)
    extra = '[categories.others]\ncommand = ["./agent.sh"]\ncwd = "others"\nevidence = "git"'
    project.configure("mine", slots=2, category='command = ["./agent.sh"]\ncwd = "mine"\nevidence = "git"', extra=extra)
    project.loop("tick")
    project.settle()
    ends = {event["category"]: event["data"] for event in project.events("session.ended") if event["data"]}
    assert ends["mine"]["outcome"] == "productive"
    assert ends["mine"]["evidence"] == {"kind": "observed", "what": "1 commit"}
    assert ends["others"]["outcome"] == "unproven"
