"""`ingest`: a run directory's files become events, once, whoever calls it and however often.

The shim writes files and never the log; every fact of a session enters here. What is read and judged (outcome file,
commits) is read outside the transaction; what is appended is decided inside it, by what the log still lacks.
"""

from __future__ import annotations

from dataclasses import dataclass

from events.catalog import (
    BackendLimited,
    BackendRestored,
    Evidence,
    Interval,
    LockRefused,
    LockReleased,
    Payload,
    SessionEnded,
    SessionSpawnFailed,
    SessionStarted,
    SessionStopping,
    SessionWarned,
)
from events.envelope import to_micros, to_text
from loop.journal import Journal, Writing
from loop.presets.reading import read as read_result
from loop.sessions import outcome, rundir
from loop.sessions.grading import GRADED
from projections.backends import SERVED
from projections.sessions import Live

REFUSALS = frozenset({"lock_held", "lock_missing", "lock_replaced", "stale_token"})
ACTOR = "ingest"


@dataclass(frozen=True, slots=True)
class Files:
    """What a run directory says about its session."""

    run_dir: str
    spec: rundir.Spec
    claim: rundir.Claim | None
    started: rundir.Started | None
    notes: list[rundir.Note]
    exit: rundir.ExitFile | None
    end: rundir.EndFile | None


def read(run_dir: str) -> Files | None:
    """The files of a run directory, or None where it has no spec yet. Raises RunDirError for a damaged one."""
    spec = rundir.read_spec(run_dir)
    if spec is None:
        return None
    end = rundir.read_end(run_dir)  # first: what else there is was written before it
    return Files(
        run_dir=run_dir,
        spec=spec,
        claim=rundir.read_claim(run_dir),
        started=rundir.read_started(run_dir),
        notes=rundir.read_notes(run_dir),
        exit=rundir.read_exit(run_dir),
        end=end,
    )


def ingest(journal: Journal, run_dir: str) -> bool:
    """Append what the run directory knows and the log lacks; True if this call appended the session's end.

    Raises RunDirError for damaged files, StoreError and StoreBusy from the log; all of it can be repeated.
    """
    files = read(run_dir)
    if files is None:
        return False
    live = journal.refresh().sessions["live"].get(files.spec["session"])
    if live is None or not _has_news(files, live):
        return False
    ends = [] if files.end is None or files.exit is None else end_events(files, files.exit, held_of(files.end))
    with journal.transaction() as entry:
        live = entry.state.sessions["live"].get(files.spec["session"])
        if live is None:
            return False
        progress(entry, files, live)
        if files.end is None or files.exit is None:
            return False
        append_end(entry, files, ends, how="clean")
    return True


def _has_news(files: Files, live: Live) -> bool:
    return (
        files.end is not None
        or (files.started is not None and live["status"] == "requested")
        or any(_is_new(note, live) for note in files.notes)
    )


def _is_new(note: rundir.Note, live: Live) -> bool:
    if note["type"] == "warned":
        return note["why"] not in live["warned"]
    return live["stopping"] != note["why"]


def progress(entry: Writing, files: Files, live: Live) -> None:
    """The start and the shim's notes, where the log lacks them."""
    started = files.started
    if live["status"] == "requested" and (started is not None or _worker_ran(files)):
        claim = files.claim
        assert started is not None or claim is not None
        _append(entry, files, _started(started, claim))
    if live["status"] == "requested":
        return
    for note in files.notes:
        if _is_new(note, live):
            by = str(note.get("by", "shim"))
            model = SessionWarned if note["type"] == "warned" else SessionStopping
            _append(entry, files, model(by=by, why=note["why"]))


def _worker_ran(files: Files) -> bool:
    return files.exit is not None and files.exit["stage"] == "worker" and files.claim is not None


def _started(started: rundir.Started | None, claim: rundir.Claim | None) -> SessionStarted:
    """The start; where a full disk kept the record from being written, the shim stands in for its worker."""
    if started is not None:
        return SessionStarted(
            pid=started["pid"],
            start=started["start"],
            shim_pid=started["shim_pid"],
            shim_start=started["shim_start"],
            boot=started["boot"],
        )
    assert claim is not None
    return SessionStarted(
        pid=claim["pid"], start=claim["start"], shim_pid=claim["pid"], shim_start=claim["start"], boot=claim["boot"]
    )


def end_events(files: Files, exit: rundir.ExitFile, held: dict[str, Interval]) -> list[Payload]:
    """The end of a session as its exit record has it, and what follows from it; no locks yet."""
    if exit["stage"] != "worker":
        error = exit["error"] or {"code": "unknown", "text": ""}
        failed = SessionSpawnFailed(code=error["code"], stage=exit["stage"], held=held, text=error["text"][:4000])
        if error["code"] not in REFUSALS:
            return [failed]
        key = next((key for key in files.spec["keys"] if key not in held), files.spec["keys"][0])
        refused = LockRefused(key=key, token=files.spec["token"], reason=error["code"], text=error["text"][:4000])
        return [refused, failed]
    return judged(files, exit, _verdict(files, exit), held)


def judged(files: Files, exit: rundir.ExitFile, verdict: outcome.Verdict, held: dict[str, Interval]) -> list[Payload]:
    """The end of a worker that ran, of which this is the verdict, and what follows from it; no locks yet."""
    resets_at = _time(verdict.resets_at)
    ended = SessionEnded.model_validate(
        {
            "outcome": verdict.outcome,
            "reason": verdict.reason,
            "exit_code": exit["code"],
            "signal": exit["signal"],
            "grade": verdict.grade,
            "proved": verdict.proved,
            "seconds": round(exit["seconds"], 3),
            "evidence": None if verdict.evidence is None else Evidence(kind=verdict.evidence, what=verdict.what or ""),
            "usage": verdict.usage,
            "resume_token": verdict.resume_token,
            "done_category": verdict.category,
            "done_task": verdict.task,
            "resets_at": resets_at,
            "cpu_seconds": exit["cpu_seconds"],
            "max_rss_kb": exit["max_rss_kb"],
            "output_bytes": exit["out_bytes"] + exit["err_bytes"],
            "stragglers": 0 if files.end is None else files.end["stragglers"],
            "to_grade": files.spec.get("grader") is not None and verdict.outcome in GRADED,
            "held": held,
            "summary": verdict.summary,
            "text": None if exit["error"] is None else exit["error"]["text"][:4000],
        }
    )
    if not verdict.limited:
        return [ended]
    return [ended, BackendLimited(pool=files.spec["pool"], until=resets_at, source="session")]


def append_end(entry: Writing, files: Files, ends: list[Payload], *, how: str) -> None:
    """Append the end and the release of every key the session was granted."""
    pool = entry.state.backends["pools"].get(files.spec["pool"])
    probes = pool is not None and pool["probe"] == files.spec["session"]
    first: int | None = None
    for payload in ends:
        event = _append(entry, files, payload, cause=first)
        first = event if first is None else first
    for key in files.spec["keys"]:
        if (held := entry.state.locks["held"].get(key)) and held["token"] == files.spec["token"]:
            payload = LockReleased.model_validate({"key": key, "token": files.spec["token"], "how": how})
            _append(entry, files, payload, cause=first)
    if probes and _served(ends):
        _append(entry, files, BackendRestored(pool=files.spec["pool"], source="session"), cause=first)


def _served(ends: list[Payload]) -> bool:
    """Whether the session's end shows that its backend takes work again."""
    limited = any(isinstance(payload, BackendLimited) for payload in ends)
    outcomes = {payload.outcome for payload in ends if isinstance(payload, SessionEnded)}
    return not limited and not outcomes.isdisjoint(SERVED)


def conversation_of(files: Files, now: int) -> str | None:
    """The agent's own name of a session that was lost at `now`, as far as its output tells."""
    reader = files.spec.get("reader")
    if reader is None:
        return None
    return read_result(files.run_dir, files.spec["session"], reader, now / 1e6).result.resume_token


def held_of(end: rundir.EndFile) -> dict[str, Interval]:
    """The physical intervals that the shim measured."""
    return {key: Interval(**interval) for key, interval in end["held"].items()}


def _verdict(files: Files, exit: rundir.ExitFile) -> outcome.Verdict:
    spec = files.spec
    commits = _commits(spec) if spec["evidence"] == "git" else None
    reader = spec.get("reader")
    ended_at = to_micros(exit["at"]) / 1e6
    return outcome.judge(
        exit,
        outcome.read_outcome_file(spec["loop_env"]["LOOP_OUTCOME"]),
        evidence=spec["evidence"],
        exit_codes=spec["exit_codes"],
        commits=commits,
        reading=None if reader is None else read_result(files.run_dir, spec["session"], reader, ended_at, exit["code"]),
    )


def _commits(spec: rundir.Spec) -> int | None:
    """Commits with the session's trailer, from its work tree or, where `after` has removed that, from the project's."""
    found = outcome.commits_with_trailer(spec["cwd"], spec["session"])
    return outcome.commits_with_trailer(spec["hook_cwd"], spec["session"]) if found is None else found


def _time(text: str | None) -> str | None:
    return None if text is None else to_text(to_micros(text))


def _append(entry: Writing, files: Files, payload: Payload, cause: int | None = None) -> int:
    spec = files.spec
    return entry.append(
        payload,
        actor=ACTOR,
        tick=spec["tick"],
        cause=spec["token"] if cause is None else cause,
        session=spec["session"],
        category=spec["category"],
    ).position
