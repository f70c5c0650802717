"""Passes: observe outside, then facts, decision and grants in one transaction, then the starts.

1. A fire takes the pass lock, so that one at a time asks the selector.
2. It reads the config again, reconciles, and observes; nothing of that holds a transaction.
3. One transaction: fold the tail, append the pass and its facts, decide on the view of exactly that, append the
   decision, and for each choice `session.requested` and its `lock.acquired`. Commit.
4. Only then are the shims started. A crash anywhere leaves requests that the next reconcile finds and voids.

A session-end pass is the transaction alone, on what was last recorded and the host as it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from events.catalog import LockReleased, SessionSpawnFailed, TickFinished
from events.clock import Clock, SystemClock
from events.errors import ConfigError, PassBusy, RefusedError, StoreError
from events.place import refuse_loss
from events.store import EventLog
from loop import __version__, guard
from loop.command import render_argv
from loop.config import Config, facts
from loop.config_file import load, session_env
from loop.context import context_of
from loop.filesystem import refuse_network
from loop.gates import asking
from loop.home import Home
from loop.host import measure
from loop.journal import Journal
from loop.observe import Selection, ask_selector
from loop.passes import (
    ACTOR,
    Decided,
    Facts,
    Fire,
    Grant,
    append_skip,
    decide_pass,
    is_used,
    placeholders,
    preview,
    raises_slots,
)
from loop.sessions import ingest, locks, proc, retention, rundir, start, stopfile
from loop.sessions.faultpoint import faultpoint
from loop.sessions.reconcile import Glances, reconcile
from loop.sessions.witness import record_violations
from projections.state import State
from projections.view import restraints

END = str(Path(__file__).resolve().parent / "sessions" / "end.py")
AWAIT_SECONDS = 5.0  # how long a pass waits to report its starts; a `before` hook may take longer


@dataclass(frozen=True, slots=True)
class Started:
    session: str
    category: str
    pid: int | None


@dataclass(frozen=True, slots=True)
class Result:
    """A pass: its decision and what it started, or why it was skipped."""

    decided: Decided | None
    started: tuple[Started, ...] = ()
    skipped: str | None = None
    observed: Facts | None = None

    @property
    def selection(self) -> Selection | None:
        return None if self.observed is None else self.observed.selection


class Loop:
    """One process's hold on a project: its places, its clocks, its environment, and the journal of its store."""

    def __init__(self, home: Home, environ: Mapping[str, str], clock: Clock | None = None) -> None:
        self.home = home
        self.environ = environ
        self.clock = clock or SystemClock()
        self.troubles: list[str] = []
        """What the last look at the sessions could not settle, in words; it held up nothing else."""
        self._glances: Glances = {}
        _refuse_survivors(home)
        self.journal = Journal(EventLog.open(home.db, clock=self.clock, release=__version__))

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *exc: object) -> None:
        self.journal.close()

    # ── passes ────────────────────────────────────────────────────────────────────────────────────────────────────

    def fire(self, fire: Fire) -> Result:
        """A pass that asks the selector, or that starts one category by hand.

        Raises PassBusy where another pass observes, ConfigError where the config is invalid (both recorded),
        RefusedError where `fire.expect` does not hold (nothing granted), StoreError and StoreBusy.
        """
        if self.is_stopped():
            self._record_skip(fire, "stopped")
            return Result(None, skipped="stopped")
        with self._observing(fire):
            config = self._config(fire)
            self.reconcile(ungraded=True)
            faultpoint("pass.reconciled")
            self.check_witnesses()
            if (skipped := self._skip(fire)) is not None:
                return Result(None, skipped=skipped)
            observed = self._observe(fire, config)
            faultpoint("pass.observed")
            with self.journal.transaction() as entry:
                if fire.nominal is not None and is_used(entry.state, fire.nominal, entry.now):
                    append_skip(entry, fire, "used")
                    return Result(None, skipped="used")
                if self.is_stopped():  # since it was looked at: the selector may have taken its time
                    return Result(None, skipped=append_skip(entry, fire, "stopped"))
                guard.watch(entry)
                decided = decide_pass(entry, observed, self.clock)
                if fire.expect is not None and fire.expect != decided.inputs:
                    raise RefusedError(
                        f"the inputs are now {decided.inputs}, not {fire.expect}: nothing was started",
                        "look again: loop plan",
                    )
                faultpoint("pass.decided")
            faultpoint("pass.committed")
        return self._start(decided, config, observed)

    def session_ended(self, session: str) -> Result:
        """The pass after a session's end; once for each session, whoever calls. Nothing is run to observe.

        The host is measured, as that runs nothing: what it was before the sessions of the last fire would say little.
        """
        fire = Fire("session_end", ended=session)
        if self.is_stopped():
            self._record_skip(fire, "stopped")
            return Result(None, skipped="stopped")
        config = self._config(fire)
        self.check_witnesses()
        observed = Facts(fire, config, host=measure(config), red_rungs=self._red_rungs(config))
        with self.journal.transaction() as entry:
            if session in entry.state.control["served"]:
                return Result(None, skipped="used")
            guard.watch(entry)
            decided = decide_pass(entry, observed, self.clock)
        return self._start(decided, config, observed)

    def is_stopped(self) -> bool:
        """Whether the STOP file is there. A pass that came just before it is caught by the shims, which look, too."""
        return stopfile.read(str(self.home.state)) is not None

    def reconcile(self, *, settle: bool = False, ungraded: bool = False) -> list[str]:
        """Bring the log up to what the machine shows; returns the sessions found ended.

        With `ungraded` the graders of earlier ends that nobody saw to are seen to as well.
        """
        look = reconcile(self.journal, self.home.state, self.clock, settle=settle, glances=self._glances)
        self.troubles = look.troubles
        self._have_graded([*look.ended, *(_ungraded(self.journal.state) if ungraded else ())])
        return look.ended

    def _have_graded(self, ended: Iterable[str]) -> None:
        """See to the graders of sessions whose shims could not."""
        for session in dict.fromkeys(ended):
            with contextlib.suppress(OSError, rundir.RunDirError):  # nothing but a grade is missing then
                spec = rundir.read_spec(rundir.path_of(str(self.home.state), session))
                if spec is not None and spec.get("grader") is not None:
                    start.see_to_end(spec, self.environ)

    def check_witnesses(self) -> None:
        """Record where a witness and the log cannot both be right, before anything is decided."""
        record_violations(self.journal, str(self.home.lock_dir))

    def configured(self) -> dict[str, Any]:
        """What views read of the config file as it is now; an invalid one is recorded and raised as by a pass."""
        data, _ = facts(self._config(Fire("timer")))
        return data

    # ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextlib.contextmanager
    def _observing(self, fire: Fire) -> Iterator[None]:
        """The kernel lock under which one pass at a time observes; it ends with this process, whatever happens."""
        with kernel_lock(self.home.pass_lock) as got:
            if not got:
                self._record_skip(fire, "overlap")
                raise PassBusy("another pass is observing", "it decides for both; look at it: loop why last")
            yield

    def _config(self, fire: Fire) -> Config:
        try:
            return load(self.home.config)
        except ConfigError as error:
            self._record_skip(fire, "invalid_config", error.message)
            raise

    def _skip(self, fire: Fire) -> str | None:
        """Why a timer's fire is no pass at all: its instant is used up, or the whole loop is restrained."""
        if fire.nominal is None:
            return None
        with self.journal.transaction() as entry:
            if is_used(entry.state, fire.nominal, entry.now):
                return append_skip(entry, fire, "used")
            guard.watch(entry)  # or what happened under a pause would freeze, and be told, only after it
            restraint = restraints(entry.state, entry.now).get("all")
            return None if restraint is None else append_skip(entry, fire, restraint.mode)

    def _record_skip(self, fire: Fire, reason: str, text: str | None = None) -> None:
        with self.journal.transaction() as entry:
            append_skip(entry, fire, reason, text)

    def _observe(self, fire: Fire, config: Config) -> Facts:
        """Selector and gates at the same time, and the host; by hand only the host, which binds then too."""
        if fire.start is not None:
            return Facts(fire, config, host=measure(config), red_rungs=self._red_rungs(config))
        seen = preview(self.journal, config, self.clock)
        with asking(config, self.environ, dry_run=False) as gates:
            selection = ask_selector(config, seen, self.environ, dry_run=False)
        return Facts(fire, config, selection, gates, measure(config), self._red_rungs(config))

    def _red_rungs(self, config: Config) -> tuple[str, ...]:
        """What is red as this config raises `slots`, for the log; nothing is decided on it."""
        state = self.journal.refresh()
        if not raises_slots(state, config):
            return ()
        from loop.report import red_rungs  # seldom needed, and every pass would wait for it

        return tuple(red_rungs(self.journal.log, upto=state.position, now=self.clock.now()))

    # ── starting ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, decided: Decided, config: Config, observed: Facts) -> Result:
        """Start what was granted, wait a moment for the starts to show, and close the pass."""
        begun = self.clock.monotonic()
        run_dirs: dict[str, str] = {}
        for index, grant in enumerate(decided.grants):
            if index:
                self.clock.sleep(config.loop.stagger)
            run_dirs[grant.session] = rundir.path_of(str(self.home.state), grant.session)
            self._launch(grant, decided, config)
        faultpoint("pass.launched")
        progress = start.await_started(run_dirs.values(), AWAIT_SECONDS)
        self._await_ends([run_dir for run_dir in progress if progress[run_dir] == "ended"])
        for run_dir in run_dirs.values():
            with contextlib.suppress(rundir.RunDirError):  # the next look sees to it, and tells it
                ingest.ingest(self.journal, run_dir)
        faultpoint("pass.ingested")
        started = self._finish(decided, self.clock.monotonic() - begun)
        faultpoint("pass.finished")
        self.journal.save_snapshot()
        self._retain(config)
        return Result(decided, started, observed=observed)

    def _await_ends(self, run_dirs: list[str]) -> None:
        """Give shims that came to no worker a moment to let go of their locks, so that this pass can say why."""
        deadline = self.clock.monotonic() + AWAIT_SECONDS
        with contextlib.suppress(rundir.RunDirError):
            while any(rundir.read_end(run_dir) is None for run_dir in run_dirs) and self.clock.monotonic() < deadline:
                self.clock.sleep(start.POLL)

    def _launch(self, grant: Grant, decided: Decided, config: Config) -> None:
        """Start one shim; where that fails the request is voided here and now, through the claim."""
        try:
            if grant.problem is not None:
                raise start.LaunchError(grant.problem)
            for key in grant.choice.keys:
                self._lock_file(key)
            faultpoint("launch.keyed")
            env = session_env(config, grant.choice.category, grant.choice.backend)
            context = context_of(self.journal.log, config, decided, grant)
            pid = start.launch(self._spec(grant, config), env, self.environ, context)
            faultpoint("launch.launched")
            rundir.note_launched(rundir.path_of(str(self.home.state), grant.session), pid)
            faultpoint("launch.noted")
        except (OSError, start.LaunchError, ConfigError, StoreError) as error:
            self._void(grant, str(error))

    def _lock_file(self, key: str) -> None:
        """A lock file is made for a key that was never held; one that went missing later is a fault."""
        path = locks.path_of(str(self.home.lock_dir), key)
        if self.journal.state.locks["intervals"].get(key) and not os.path.exists(path):
            raise StoreError(
                f"{path} is missing, though sessions have held {key!r}",
                "make sure that nothing of it still runs, then: loop doctor --fix",
            )
        locks.create(str(self.home.lock_dir), key)

    def _void(self, grant: Grant, why: str) -> None:
        run_dir = rundir.path_of(str(self.home.state), grant.session)
        try:
            if not rundir.claim(run_dir, by="reconciler"):
                return  # the shim was quicker: the session is its own
        except OSError as error:
            why = f"{why}; and {run_dir} cannot be claimed: {error}"
        with self.journal.transaction() as entry:
            if grant.session not in entry.state.sessions["live"]:
                return
            about: dict[str, Any] = {
                "actor": ACTOR,
                "tick": grant.tick,
                "session": grant.session,
                "category": grant.choice.category,
            }
            failed = entry.append(
                SessionSpawnFailed(code="launch_failed", stage="launch", text=why[:4000]), cause=grant.token, **about
            )
            for key in grant.choice.keys:
                released = LockReleased(key=key, token=grant.token, how="voided")
                entry.append(released, cause=failed.position, **about)

    def _spec(self, grant: Grant, config: Config) -> rundir.Spec:
        choice = grant.choice
        settings = config.session_of(choice.category)
        run_dir = rundir.path_of(str(self.home.state), grant.session)
        values = placeholders(grant.session, choice, run_dir)
        exit_codes = config.exit_codes_of(choice.category, choice.backend)
        reader = config.reader_of(choice.category, choice.backend)
        if grant.resumes is not None:
            reader["resumed"] = grant.resumes["token"]
        return rundir.Spec(
            schema="loop.spec/1",
            session=grant.session,
            token=grant.token,
            category=choice.category,
            task=choice.task,
            backend=choice.backend,
            pool=config.pool_of(choice.backend),
            keys=list(choice.keys),
            chain=choice.chain,
            rule=choice.rule,
            trigger=grant.trigger,
            tick=grant.tick,
            argv=grant.argv,
            cwd=grant.cwd,
            hook_cwd=str(config.directory),
            before=None if settings.before is None else render_argv(settings.before, values),
            after=None if settings.after is None else render_argv(settings.after, values),
            loop_env={
                "LOOP_SESSION": grant.session,
                "LOOP_CATEGORY": choice.category,
                "LOOP_TASK": choice.task,
                "LOOP_TOKEN": str(grant.token),
                "LOOP_BACKEND": choice.backend,
                "LOOP_DEADLINE": grant.deadline,
                "LOOP_RUN_DIR": run_dir,
                "LOOP_OUTCOME": os.path.join(run_dir, "outcome.json"),
                "LOOP_CONTEXT": os.path.join(run_dir, rundir.CONTEXT),
            },
            timeout=settings.timeout,
            silence=settings.silence,
            grace=settings.grace,
            kill_on_silence=settings.kill_on_silence,
            lock_dir=str(self.home.lock_dir),
            state_dir=str(self.home.state),
            config=str(self.home.config),
            evidence=config.evidence_of(choice.category, choice.backend),
            exit_codes={str(code): word for code, word in exit_codes.items()},
            reader=reader,
            grader=None if settings.grader is None else render_argv(settings.grader, values),
            grader_timeout=settings.grader_timeout,
            end_argv=[sys.executable, "-I", END, run_dir],
        )

    def _retain(self, config: Config) -> None:
        """Remove old output, at most once in `retention.EVERY`; one that cannot be deleted is for `doctor` to tell."""
        with kernel_lock(self.home.retention_lock) as got, contextlib.suppress(OSError):
            if got and retention.is_due(self.home.retention_lock, self.clock):
                limits = config.retention
                retention.sweep(self.journal, self.home.state, self.clock, age=limits.age, size=limits.size)

    def _finish(self, decided: Decided, seconds: float) -> tuple[Started, ...]:
        """Append `tick.finished`; returns who started, with the worker's pid once there is one."""
        started: list[Started] = []
        with self.journal.transaction() as entry:
            pids = self.journal.log.worker_pids([grant.session for grant in decided.grants])
            for grant in decided.grants:
                preparing = grant.session in entry.state.sessions["live"]  # a `before` hook may still run
                if preparing or grant.session in pids:
                    started.append(Started(grant.session, grant.choice.category, pids.get(grant.session)))
            failed = len(decided.grants) - len(started)
            finished = TickFinished(started=len(started), failed=failed, seconds=round(seconds, 3))
            entry.append(finished, actor=ACTOR, tick=decided.tick, cause=decided.position)
        return tuple(started)


def _ungraded(state: State) -> list[str]:
    """Sessions whose respawn waits for a grade; where their grader was cut short, somebody has to ask again."""
    return [due["session"] for due in state.outcomes["due"] if due["to_grade"]]


def _refuse_survivors(home: Home) -> None:
    """A store is not begun anew while sessions of one that was here still run: their locks went with it."""
    if home.db.exists():
        return
    refuse_network(home.state)
    refuse_loss(home.db)  # which says more, where it knows more
    if pids := proc.of_runs(str(home.runs_dir)):
        raise StoreError(
            f"{home.db} is missing, and process {pids[0]} is of a session that it had started",
            "restore the store from a backup; to begin anew, first end what still runs",
        )


@contextlib.contextmanager
def kernel_lock(path: Path) -> Iterator[bool]:
    """Hold the flock of `path` for the block; False, and not held, where another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
