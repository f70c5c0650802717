"""The grader: a command of the user's that is asked, once a session is over, what its work was worth.

It gets one JSON object on stdin (`loop.grading/1`) and the session's own variables, runs in the directory of
loop.toml, and prints a number 0..1, or an object with `grade` and perhaps `text`. Whatever else it does is
`session.ungraded`. It runs behind the end and before the pass after it, so that a respawn knows the grade.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from events.catalog import SessionGraded, SessionUngraded
from events.envelope import content, private_content
from events.store import Filter
from loop.command import CommandResult, run_bounded
from loop.journal import Journal
from loop.sessions import rundir
from loop.sessions.faultpoint import faultpoint
from loop.text import visible

ACTOR = "grader"
LARGEST = 64 << 10  # bytes of an answer
MAX_TEXT = 2000  # characters
GRADED = frozenset({"productive", "noop", "unproven", "blocked", "failed", "timed_out", "stalled"})
"""Outcomes of which the work can be judged: what was refused or called off was none."""


def grade(journal: Journal, spec: rundir.Spec, environ: Mapping[str, str], env: Mapping[str, str]) -> bool:
    """Ask the grader of a session that has ended, unless one was asked; True if this call appended what it said.

    `env` is the configured environment of the session. One at a time asks for a session, whoever calls; who dies
    meanwhile leaves it to the next. Raises StoreError, StoreBusy, OSError.
    """
    argv, session = spec.get("grader"), spec["session"]
    if argv is None:
        return False
    run_dir = rundir.path_of(spec["state_dir"], session)
    lock = os.open(os.path.join(run_dir, "grader.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        about = _ungraded_end(journal, spec)
        if about is None:
            return False
        result = run_bounded(
            argv,
            cwd=Path(spec["hook_cwd"]),
            env={**environ, **env},
            timeout=spec.get("grader_timeout", 60.0),
            limit_bytes=LARGEST,
            stdin=json.dumps(about).encode(),
            extra_env=spec["loop_env"],
        )
        faultpoint("grader.asked")
        with journal.transaction() as entry:
            said = {"actor": ACTOR, "tick": spec["tick"], "session": session, "category": spec["category"]}
            entry.append(answer(result), cause=about["position"], **said)
        return True
    finally:
        os.close(lock)


def _ungraded_end(journal: Journal, spec: rundir.Spec) -> dict[str, Any] | None:
    """What the grader is told of the end, or None where there is none to grade or a grader has spoken."""
    session = spec["session"]
    rows = journal.log.select(Filter(types=("session.*",), session=session))
    if any(row.type in ("session.graded", "session.ungraded") for row in rows):
        return None
    end = next((row for row in rows if row.type == "session.ended"), None)
    if end is None or not content(end).get("to_grade"):
        return None
    data = content(end)
    told = ("outcome", "reason", "exit_code", "signal", "seconds", "grade", "usage", "done_category", "done_task")
    return {
        "schema": "loop.grading/1",
        "session": session,
        "category": spec["category"],
        "task": spec["task"] or None,
        "backend": spec["backend"],
        "run_dir": rundir.path_of(spec["state_dir"], session),
        "cwd": spec["cwd"],
        "position": end.position,
        **{name: data.get(name) for name in told},
        "summary": (private_content(end) or {}).get("summary"),
    }


def answer(result: CommandResult) -> SessionGraded | SessionUngraded:
    """What a grader's run comes to; never raises for what it printed."""
    source = "command"
    if not result.ok:
        code = result.failure or ("exit_code" if result.signal is None else "signal")
        return SessionUngraded(code=code, source=source, text=visible(result.text, MAX_TEXT))
    try:
        said = json.loads(result.stdout)
    except (ValueError, RecursionError):
        return SessionUngraded(code="not_json", source=source, text="it printed no JSON: a number 0..1 is wanted")
    number = said.get("grade") if isinstance(said, dict) else said
    if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
        return SessionUngraded(code="no_grade", source=source, text='neither a number 0..1 nor {"grade": 0..1}')
    text = said.get("text") if isinstance(said, dict) else None
    return SessionGraded(
        grade=float(number), source=source, text=visible(text, MAX_TEXT) if isinstance(text, str) else None
    )
