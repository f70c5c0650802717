"""Outcome files as hostile input, the precedence of evidence, and commits by trailer."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from loop.sessions import outcome
from loop.sessions.outcome import Malformed, OutcomeFile, commits_with_trailer, judge, read_outcome_file

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import House

    from loop.sessions.rundir import ExitFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outcome.json"


def said(path: Path, value: object) -> OutcomeFile | Malformed | None:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return read_outcome_file(str(path))


def why(found: object) -> str:
    assert isinstance(found, Malformed), found
    return found.why


# -------------------------------------------------------------------------------------------- outcome file


def test_a_whole_outcome_file(path: Path) -> None:
    found = said(path, {
        "outcome": "productive", "grade": 0.72, "summary": "did it", "category": "code", "task": "#12",
        "usage": {"tokens": 12000, "cost_usd": 0.4, "turns": 7}, "resets_at": "2026-11-23T15:03:00+01:00", "more": [1],
    })  # fmt: skip
    assert found == OutcomeFile(
        "productive", 0.72, "did it", "code", "#12", {"tokens": 12000, "cost_usd": 0.4, "turns": 7},
        "2026-11-23T14:03:00.000000Z",
    )  # fmt: skip


@pytest.mark.parametrize("value", [{}, dict.fromkeys(["outcome", "grade", "summary", "usage", "resets_at", "task"])])
def test_what_is_absent_or_null_is_not_said(path: Path, value: dict[str, None]) -> None:
    assert said(path, value) == OutcomeFile()


def test_no_file(path: Path) -> None:
    assert read_outcome_file(str(path)) is None
    assert read_outcome_file(str(path / "below")) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "not JSON"),
        ("[]", "not one JSON object"),
        ('"productive"', "not one JSON object"),
        ("{} {}", "not JSON"),
        ('{"grade": NaN}', "NaN"),
        ('{"grade": -Infinity}', "-Infinity"),
        ('{"grade": 1e999}', "between 0 and 1"),
        ('{"usage": {"tokens": 1e999}}', "whole number"),
        ('{"usage": {"cost_usd": 1e999}}', "between"),
        ('{"usage": {"tokens": ' + "9" * 400 + "}}", "between"),
        ('{"usage": {"tokens": ' + "9" * 5000 + "}}", "not JSON"),
        ('{"outcome": "noop", "outcome": "productive"}', "twice"),
        ("[" * 60000, "nested"),
        ('{"a":' * 12000, "nested"),
        ({"outcome": "great"}, "none of"),
        ({"outcome": "timed_out"}, "none of"),
        ({"outcome": ["productive"]}, "none of"),
        ({"outcome": {}}, "none of"),
        ({"grade": "0.5"}, "not a number"),
        ({"grade": True}, "not a number"),
        ({"grade": 1.01}, "between"),
        ({"grade": -0.1}, "between"),
        ({"summary": 3}, "not a string"),
        ({"category": []}, "not a string"),
        ({"task": 12}, "not a string"),
        ({"usage": 12}, "not an object"),
        ({"usage": {"tokens": 1.5}}, "whole number"),
        ({"usage": {"tokens": -1}}, "between"),
        ({"usage": {"tokens": True}}, "not a number"),
        ({"usage": {"model": "x"}}, "not a number"),
        ({"usage": {str(i): i for i in range(99)}}, "entries"),
        ({"resets_at": "tomorrow"}, "ISO-8601"),
        ({"resets_at": "2026-11-23T14:03:00"}, "time zone"),
        ({"resets_at": 1795442580}, "not a string"),
        ({"resets_at": "0001-01-01T00:00:00+23:00"}, "ISO-8601"),
        ({"resets_at": ""}, "ISO-8601"),
    ],
)
def test_what_is_malformed(path: Path, value: object, says: str) -> None:
    assert says in why(said(path, value))


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b'{"summary": "\xff"}')
    assert "UTF-8" in why(read_outcome_file(str(path)))


def test_the_bound_on_its_size_is_exact(path: Path) -> None:
    path.write_text("{}" + " " * (outcome.MAX_FILE - 2))
    assert read_outcome_file(str(path)) == OutcomeFile()
    path.write_text("{}" + " " * (outcome.MAX_FILE - 1))
    assert "more than" in why(read_outcome_file(str(path)))


def test_a_huge_sparse_file_is_not_read(path: Path) -> None:
    with open(path, "w") as file:
        file.truncate(1 << 40)
    assert "more than" in why(read_outcome_file(str(path)))


def test_what_is_no_plain_file(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("{}")
    path.symlink_to(other)
    assert "symbolic link" in why(read_outcome_file(str(path)))
    path.unlink()
    os.link(other, path)
    assert "hard link" in why(read_outcome_file(str(path)))
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in why(read_outcome_file(str(path)))
    path.unlink()
    path.mkdir()
    assert "not a regular file" in why(read_outcome_file(str(path)))
    path.rmdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))
        assert "cannot be opened" in why(read_outcome_file(str(path)))


def test_text_is_bounded_and_harmless(path: Path) -> None:
    found = said(path, '{"summary": "a\\u001b[31mb\\nc\\ud800d\\u202ee\\u0000\\u0085", "task": "' + "t" * 9000 + '"}')
    assert isinstance(found, OutcomeFile)
    assert found.summary == "a [31mb c\ufffdde"
    assert found.task == "t" * (outcome.MAX_TASK - 1) + "…"
    found = said(path, {"summary": "s" * 5000, "category": " ", "usage": {"a\n\ud800": 1}})
    assert isinstance(found, OutcomeFile)
    assert (found.summary, found.category) == ("s" * 1999 + "…", None)
    assert found.usage == {"a \ufffd": 1}
    json.dumps([found.summary, found.usage], ensure_ascii=False).encode()


# ------------------------------------------------------------------------------------------------- verdict


def exited(code: int | None = 0, signal: int | None = None, reason: Any = None, stage: Any = "worker") -> ExitFile:
    return {
        "schema": "loop.exit/1", "stage": stage, "code": code, "signal": signal, "reason": reason, "seconds": 1.0,
        "error": None, "cpu_seconds": 0.1, "max_rss_kb": 1, "out_bytes": 0, "err_bytes": 0, "truncated": False,
        "boottime_ns": 1, "at": "2026-11-23T14:03:00.000000Z",
    }  # fmt: skip


GOOD, BAD = OutcomeFile("productive", grade=0.9), Malformed("is not JSON")


@pytest.mark.parametrize(
    ("exit", "file", "over", "expected"),
    [
        (exited(None, 9, "timeout"), GOOD, {}, ("timed_out", "timeout", "observed", False)),
        (exited(0, None, "silence"), GOOD, {}, ("stalled", "silence", "observed", False)),
        (
            exited(75, None, "cancelled"),
            BAD,
            {"exit_codes": {"75": "refused"}},
            ("cancelled", "cancelled", "observed", False),
        ),
        (exited(0), BAD, {"commits": 3, "evidence": "git"}, ("failed", "bad_outcome_file", "observed", False)),
        (exited(75), BAD, {"exit_codes": {"75": "refused"}}, ("failed", "bad_outcome_file", "observed", False)),
        (exited(0), GOOD, {}, ("productive", "outcome_file", "claimed", True)),
        (exited(1), GOOD, {"exit_codes": {"1": "noop"}}, ("productive", "outcome_file", "claimed", True)),
        (exited(None, 11), OutcomeFile("noop"), {}, ("noop", "outcome_file", "claimed", False)),
        (exited(0), OutcomeFile("limited"), {"evidence": "exit"}, ("limited", "outcome_file", "claimed", False)),
        (exited(75), OutcomeFile(), {"exit_codes": {"75": "refused"}}, ("refused", "exit_codes", "claimed", False)),
        (exited(76), None, {"exit_codes": {"76": "limited"}}, ("limited", "exit_codes", "claimed", False)),
        (exited(3), None, {"exit_codes": {"3": "productive"}}, ("productive", "exit_codes", "claimed", True)),
        (exited(0), None, {"exit_codes": {"0": "noop"}, "evidence": "exit"}, ("noop", "exit_codes", "claimed", False)),
        (exited(1), None, {"commits": 2, "evidence": "git"}, ("failed", "exit_code", "observed", False)),
        (exited(None, 11), None, {"evidence": "exit"}, ("failed", "signal", "observed", False)),
        (exited(None, None), None, {"evidence": "exit"}, ("failed", "no_exit_status", "observed", False)),
        (exited(0), None, {"commits": 2, "evidence": "git"}, ("productive", "commits", "observed", True)),
        (
            exited(0),
            OutcomeFile(grade=0.4),
            {"commits": 1, "evidence": "git"},
            ("productive", "commits", "observed", True),
        ),
        (exited(0), None, {"commits": 0, "evidence": "git"}, ("unproven", "no_evidence", None, False)),
        (exited(0), None, {"commits": None, "evidence": "git"}, ("unproven", "no_evidence", None, False)),
        (exited(0), None, {"commits": 2}, ("unproven", "no_evidence", None, False)),
        (exited(0), None, {"evidence": "exit"}, ("productive", "exit_code", "observed", False)),
        (exited(0), None, {}, ("unproven", "no_evidence", None, False)),
    ],
)
def test_the_first_evidence_that_applies_decides(
    exit: ExitFile, file: Any, over: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    verdict = judge(exit, file, **{"evidence": "outcome", "exit_codes": {}, "commits": None, **over})
    assert (verdict.outcome, verdict.reason, verdict.evidence, verdict.proved) == expected
    assert (verdict.what is None) is (verdict.evidence is None)


def test_what_the_file_says_is_kept_whatever_decides() -> None:
    usage: dict[str, int | float] = {"tokens": 5}
    file = OutcomeFile("productive", 0.9, "text", "docs", "#1", usage, "2026-11-23T14:03:00.000000Z")
    verdict = judge(exited(None, 9, "timeout"), file, evidence="outcome", exit_codes={}, commits=None)
    assert (verdict.grade, verdict.summary, verdict.category, verdict.task) == (0.9, "text", "docs", "#1")
    assert (verdict.usage, verdict.resets_at) == (usage, "2026-11-23T14:03:00.000000Z")


def test_without_a_worker_there_is_nothing_to_judge() -> None:
    with pytest.raises(ValueError, match="no worker"):
        judge(exited(stage="spawn"), None, evidence="outcome", exit_codes={}, commits=None)
    with pytest.raises(ValueError, match="no outcome"):
        judge(exited(5), None, evidence="outcome", exit_codes={"5": "fine"}, commits=None)


def test_a_worker_writes_its_outcome_file(house: House) -> None:
    session = house.session("""echo '{"outcome": "noop", "summary": "nothing"}' > "$LOOP_OUTCOME" """).run()
    file = read_outcome_file(session.spec["loop_env"]["LOOP_OUTCOME"])
    assert judge(session.exit, file, evidence="outcome", exit_codes={}, commits=None).outcome == "noop"


# -------------------------------------------------------------------------------------------- git evidence

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(at: Path, *argv: str) -> None:
    name = ["-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(at), *name, *argv], check=True, capture_output=True)


@needs_git
def test_commits_count_by_their_trailer_on_any_ref(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert commits_with_trailer(str(tmp_path), "s1") == 0, "no commit at all"

    def commit(message: str) -> None:
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", message)

    commit("start")
    commit("by s1\n\nLoop-Session: s1")
    commit("by s12\n\nLoop-Session: s12")
    commit("mentions it: Loop-Session: s1")
    commit("in the text\n\nLoop-Session: s1\n\nand goes on with prose that is no trailer")
    commit("another key\n\nNot-Loop-Session: s1")
    git(tmp_path, "switch", "-q", "-c", "side")
    commit("by two\n\nSigned-off-by: T <t@example.invalid>\nLoop-Session: s1\nLoop-Session: s2")
    git(tmp_path, "switch", "-q", "--detach")
    commit("detached, in small letters\n\nloop-session:   s2")
    git(tmp_path, "switch", "-q", "-c", "later", "HEAD")
    git(tmp_path, "switch", "-q", "side")
    assert commits_with_trailer(str(tmp_path), "s1") == 2
    assert commits_with_trailer(str(tmp_path), "s2") == 1, "a commit of two counted for both"
    assert commits_with_trailer(str(tmp_path), "s12") == 1
    assert commits_with_trailer(str(tmp_path), ".*") == 0
    (tmp_path / "below").mkdir()
    assert commits_with_trailer(str(tmp_path / "below"), "s1") == 2


@needs_git
def test_where_nobody_can_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    git(repo, "init", "-q")
    git(repo, "commit", "-q", "--allow-empty", "-m", "x\n\nLoop-Session: s1")
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.setenv("GIT_DIR", str(repo / ".git"))
    assert commits_with_trailer(str(outside), "s1") is None, "a variable names another repository"
    assert commits_with_trailer(str(tmp_path / "gone"), "s1") is None
    assert commits_with_trailer(str(repo / ".git"), "s1") is None
    assert commits_with_trailer(str(repo), "s1") == 1
    assert commits_with_trailer(str(repo), "s1", timeout=0) is None
    monkeypatch.setenv("PATH", str(outside))
    assert commits_with_trailer(str(repo), "s1") is None, "no git"
