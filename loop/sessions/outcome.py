"""What a session came to: its outcome file, read as hostile input, and the verdict over all the evidence.

DESIGN.md, section 8, has the words and their precedence.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, cast, get_args

from loop.presets.preset import Usage
from loop.presets.reading import Reading
from loop.sessions.rundir import Evidence, ExitFile
from loop.text import visible
from projections.backends import NO_CONVERSATION, UNAUTHORISED

MAX_FILE = 64 << 10  # bytes
MAX_SUMMARY, MAX_TASK, MAX_CATEGORY = 2000, 500, 64  # characters; longer ones are cut
MAX_USAGE = 1e15  # of anything counted: beyond it a number is a mistake
MAX_USAGE_NAMES = 50

Claimed = Literal["productive", "noop", "blocked", "failed", "limited"]
Outcome = Literal[
    "productive", "noop", "unproven", "blocked", "failed", "limited", "refused", "timed_out", "stalled", "cancelled",
    "lost",
]  # fmt: skip

_KILLED: dict[str, Outcome] = {"timeout": "timed_out", "silence": "stalled", "cancelled": "cancelled"}


@dataclass(frozen=True)
class OutcomeFile:
    """A well-formed outcome file; None is what it does not say. `resets_at` is ISO-8601 UTC, `grade` 0..1."""

    outcome: Claimed | None = None
    grade: float | None = None
    summary: str | None = None
    category: str | None = None
    task: str | None = None
    usage: Usage | None = None
    resets_at: str | None = None


@dataclass(frozen=True)
class Malformed:
    """An outcome file that is there but is none; `why` is one sentence without the file's content."""

    why: str


@dataclass(frozen=True)
class Verdict:
    """The outcome, why (`reason`, a code), on what evidence, and whether it may earn a respawn (`proved`).

    `limited`: its backend refused work, until `resets_at`, whatever the outcome. `resume_token` is the agent's own name
    of the session.
    """

    outcome: Outcome
    reason: str
    evidence: Literal["claimed", "observed"] | None
    what: str | None
    proved: bool
    grade: float | None
    usage: Usage | None
    category: str | None
    task: str | None
    summary: str | None
    resets_at: str | None
    limited: bool
    resume_token: str | None


class _Bad(Exception):
    """Why a file is malformed."""


# -------------------------------------------------------------------------------------------- outcome file


def read_outcome_file(path: str) -> OutcomeFile | Malformed | None:
    """The outcome file at `path`; None if there is none. Never raises for what a session may have put there."""
    try:
        data = _bytes(path)
        return None if data is None else _parse(data)
    except _Bad as bad:
        return Malformed(str(bad))


def _bytes(path: str) -> bytes | None:
    """The content of a plain file. Neither follows a link nor waits for a FIFO's writer."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be opened: {error.strerror}"
        raise _Bad(why) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _Bad("is not a regular file")
        if status.st_nlink != 1:
            raise _Bad("has another name (hard link)")
        data = b""
        while len(data) <= MAX_FILE and (more := os.read(fd, MAX_FILE + 1 - len(data))):
            data += more
    except OSError as error:
        raise _Bad(f"cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)
    if len(data) > MAX_FILE:
        raise _Bad(f"has more than {MAX_FILE} bytes")
    return data


def _parse(data: bytes) -> OutcomeFile:
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError:
        raise _Bad("is not UTF-8") from None
    except RecursionError:
        raise _Bad("is nested too deeply") from None
    except ValueError:
        raise _Bad("is not JSON") from None
    if not isinstance(value, dict):
        raise _Bad("is not one JSON object")
    outcome = value.get("outcome")
    if outcome is not None and outcome not in get_args(Claimed):
        raise _Bad(f"outcome is none of {', '.join(get_args(Claimed))}")
    grade = _number(value, "grade", 1)
    return OutcomeFile(
        outcome=cast("Claimed | None", outcome),
        grade=None if grade is None else float(grade),
        summary=_text(value, "summary", MAX_SUMMARY),
        category=_text(value, "category", MAX_CATEGORY),
        task=_text(value, "task", MAX_TASK),
        usage=_usage(value),
        resets_at=_time(value, "resets_at"),
    )


def _no_constant(name: str) -> object:
    raise _Bad(f"has {name}, which is not JSON")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Bad("names one key twice")
    return found


def _text(value: Mapping[str, object], name: str, limit: int) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise _Bad(f"{name} is not a string")
    return visible(text, limit).strip() or None


def _number(value: Mapping[str, object], name: str, limit: float) -> int | float | None:
    number = value.get(name)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _Bad(f"{name} is not a number")
    if not 0 <= number <= limit:  # which no infinity passes, such as 1e999
        raise _Bad(f"{name} is not between 0 and {limit:g}")
    return number


def _usage(value: Mapping[str, object]) -> Usage | None:
    usage = value.get("usage")
    if usage is None:
        return None
    if not isinstance(usage, dict):
        raise _Bad("usage is not an object")
    if len(usage) > MAX_USAGE_NAMES:
        raise _Bad(f"usage has more than {MAX_USAGE_NAMES} entries")
    if not isinstance(usage.get("tokens", 0), int | None):
        raise _Bad("usage.tokens is not a whole number")
    found: Usage = {}
    for name in usage:
        number = _number(usage, name, MAX_USAGE)
        if number is not None:
            found[visible(name, MAX_CATEGORY)] = number
    return found


def _time(value: Mapping[str, object], name: str) -> str | None:
    text = value.get(name)
    if text is None:
        return None
    if not isinstance(text, str):
        raise _Bad(f"{name} is not a string")
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise _Bad(f"{name} has no time zone")
        return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    except (ValueError, OverflowError):
        raise _Bad(f"{name} is not an ISO-8601 time") from None


# ------------------------------------------------------------------------------------------------- verdict


def judge(
    exit: ExitFile,
    file: OutcomeFile | Malformed | None,
    *,
    evidence: Evidence,
    exit_codes: Mapping[str, str],
    commits: int | None,
    reading: Reading | None = None,
) -> Verdict:
    """What a worker that ran came to; pure. `commits`: those that carry its trailer, None where nobody can say.
    `reading`: what its output says, None where nobody reads it.

    Raises ValueError for an exit file of a session without a worker: that is `session.spawn_failed`, no outcome.
    """
    if exit["stage"] != "worker":
        raise ValueError(f"no worker ran (stage {exit['stage']}): there is no outcome to judge")
    told = file if isinstance(file, OutcomeFile) else OutcomeFile()
    reading = reading or Reading()
    outcome, reason, kind, what, proved = _judge(exit, file, told, reading, evidence, exit_codes, commits)
    result = reading.result
    usage = None if told.usage is None and result.usage is None else {**(told.usage or {}), **(result.usage or {})}
    return Verdict(
        outcome, reason, kind, what, proved,
        told.grade, usage, told.category, told.task, told.summary or result.summary,
        told.resets_at or _iso(result.resets_at), outcome == "limited" or result.limited, result.resume_token,
    )  # fmt: skip


def _iso(seconds: float | None) -> str | None:
    """Seconds since the epoch as the log writes a time."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_Judged = tuple[Outcome, str, Literal["claimed", "observed"] | None, str | None, bool]


def _judge(
    exit: ExitFile,
    file: OutcomeFile | Malformed | None,
    told: OutcomeFile,
    reading: Reading,
    evidence: Evidence,
    exit_codes: Mapping[str, str],
    commits: int | None,
) -> _Judged:
    """The first that applies, in the order of DESIGN.md, section 8."""
    code, signal = exit["code"], exit["signal"]
    if exit["reason"] is not None:
        return _KILLED[exit["reason"]], exit["reason"], "observed", "ended by the shim", False
    if isinstance(file, Malformed):
        return "failed", "bad_outcome_file", "observed", f"outcome file {file.why}", False
    if told.outcome is not None:
        return told.outcome, "outcome_file", "claimed", "outcome file", told.outcome == "productive"
    if (result := reading.result).outcome is not None:
        if result.reason in (UNAUTHORISED, NO_CONVERSATION):  # a precondition: of the work it says nothing
            return "refused", result.reason, "observed", "the agent's result", False
        return result.outcome, result.reason or "agent_result", "observed", "the agent's result", False
    if code is not None and str(code) in exit_codes:
        mapped = exit_codes[str(code)]
        if mapped not in get_args(Outcome):
            raise ValueError(f"exit_codes maps {code} to {mapped!r}, which is no outcome")
        outcome = cast("Outcome", mapped)
        return outcome, "exit_codes", "claimed", f"exit code {code}", outcome == "productive"
    if code != 0 and reading.pattern is not None:
        return "limited", "limit_pattern", "observed", f"output matches {reading.pattern!r}", False
    if signal is not None:
        return "failed", "signal", "observed", f"signal {signal}", False
    if code is None:
        return "failed", "no_exit_status", "observed", "exit status unknown", False
    if code != 0:
        return "failed", "exit_code", "observed", f"exit code {code}", False
    if evidence == "git" and commits:
        return "productive", "commits", "observed", f"{commits} commit{'s' if commits > 1 else ''}", True
    if evidence == "exit":
        return "productive", "exit_code", "observed", "exit code 0", False
    return "unproven", "no_evidence", None, None, False


# -------------------------------------------------------------------------------------------- git evidence


def commits_with_trailer(cwd: str, session: str, timeout: float = 30) -> int | None:
    """How many commits, on any ref of the repository around `cwd`, have the trailer `Loop-Session: <session>`.

    One that has it several times, as after a squash, is of the first it names: no commit counts for two sessions. None
    where nobody can say: no work tree, no git, a directory that is gone, or `timeout` seconds. Never a time window: a
    commit belongs to the session it names.
    """
    # The repository is the session's: its configuration must not make this start anything.
    git = ["git", "-c", "log.showSignature=false", "-c", "core.fsmonitor=false", "-C", cwd]
    # As for the variables that a hook would leave behind: they name another repository.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    values = "%(trailers:key=Loop-Session,valueonly,unfold,separator=%x1f)"
    search = ["--all", "--fixed-strings", f"--grep={session}"]  # the coarse sieve; the trailers decide
    try:
        inside = _output([*git, "rev-parse", "--is-inside-work-tree"], env, timeout)
        if inside is None or inside.strip() != b"true":
            return None
        found = _output([*git, "log", *search, f"--format=%H%x1f{values}", "--no-color", "--no-patch"], env, timeout)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if found is None:
        return None
    wanted = session.encode()
    return sum(line.split(b"\x1f")[1].strip() == wanted for line in found.splitlines())


def _output(argv: list[str], env: Mapping[str, str], timeout: float) -> bytes | None:
    """What a command prints, or None if it fails. Raises OSError, subprocess.TimeoutExpired."""
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
    return done.stdout if done.returncode == 0 else None
