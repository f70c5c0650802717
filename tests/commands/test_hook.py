"""`loop hook`: commits of a session carry its trailer, and count for that session alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loop.sessions.outcome import commits_with_trailer

ROOT = Path(__file__).resolve().parents[2]
IDENTITY = dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL", "EMAIL"), "t@example.invalid") | {
    "GIT_AUTHOR_NAME": "T", "GIT_COMMITTER_NAME": "T", "GIT_CONFIG_GLOBAL": "/dev/null",
}  # fmt: skip


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


def git(at: Path, *argv: str, session: str = "") -> str:
    """Git as a session runs it, or as anybody."""
    env = {**os.environ, **IDENTITY, **({"LOOP_SESSION": session} if session else {})}
    done = subprocess.run(["git", "-C", str(at), *argv], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def hook(at: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "hook", *words], cwd=at, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done


def commit(at: Path, message: str, *options: str, session: str = "") -> None:
    git(at, "commit", "-q", "--allow-empty", "-m", message, *options, session=session)


def counts(at: Path) -> list[int | None]:
    return [commits_with_trailer(str(at), session) for session in ("s1", "s2")]


def test_commits_of_a_session_carry_its_trailer_and_others_stay_as_they_are(repo: Path) -> None:
    hook(repo, "install")
    commit(repo, "by hand")
    assert "Loop-Session" not in git(repo, "log", "-1", "--format=%B")
    commit(repo, "one", "--no-verify", session="s1")
    assert git(repo, "log", "-1", "--format=%B").strip() == "one\n\nLoop-Session: s1"
    commit(repo, "two\n\nSigned-off-by: T <t@example.invalid>", session="s2")
    assert git(repo, "log", "-1", "--format=%(trailers:key=Loop-Session,valueonly)").strip() == "s2"
    assert counts(repo) == [1, 1]


def test_no_commit_counts_for_two(repo: Path) -> None:
    hook(repo, "install")
    commit(repo, "begin")
    commit(repo, "one", session="s1")
    git(repo, "commit", "-q", "--amend", "-m", "one, amended\n\nLoop-Session: s1", "--allow-empty", session="s2")
    assert counts(repo) == [1, 0], "it was amended by another, and stays whose it was"
    commit(repo, "squashed\n\nLoop-Session: s2\nLoop-Session: s1")
    assert counts(repo) == [1, 1], "of the first that it names"


def test_work_trees_of_a_repository_share_it(repo: Path) -> None:
    commit(repo, "begin")
    git(repo, "worktree", "add", "-q", str(repo / "tree"))
    hook(repo / "tree", "install")
    commit(repo / "tree", "one", session="s1")
    assert counts(repo) == [1, 0]
    assert json.loads(hook(repo, "show", "--json").stdout)["state"] == "installed"


def test_it_is_written_where_git_looks_and_taken_away_again(repo: Path) -> None:
    git(repo, "config", "core.hooksPath", "tools/hooks")
    assert "written" in hook(repo, "install", ".").stdout
    path = repo / "tools" / "hooks" / "prepare-commit-msg"
    assert os.access(path, os.X_OK)
    assert "there already" in hook(repo, "install").stdout
    path.chmod(0o644)
    assert json.loads(hook(repo, "show", "--json").stdout)["state"] == "missing", "git leaves it out"
    hook(repo, "install")
    assert "removed" in hook(repo, "remove").stdout
    assert not path.exists()
    assert "there was none" in hook(repo, "remove").stdout


def test_a_hook_of_another_is_left_alone_and_its_owner_told_what_to_add(repo: Path) -> None:
    path = repo / ".git" / "hooks" / "prepare-commit-msg"
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    refused = hook(repo, "install", code=6)
    assert "loop hook show" in refused.stderr
    hook(repo, "remove", code=6)
    assert path.read_text() == "#!/bin/sh\n"
    lines = hook(repo, "show").stdout.splitlines(keepends=True)
    path.write_text("#!/bin/sh\n" + "".join(lines[-3:]))
    assert json.loads(hook(repo, "show", "--json").stdout)["state"] == "installed"
    commit(repo, "one", session="s1")
    assert counts(repo) == [1, 0]


def test_outside_of_a_repository_there_is_nothing_to_install(tmp_path: Path) -> None:
    assert "in no git repository" in hook(tmp_path, "install", code=2).stderr
