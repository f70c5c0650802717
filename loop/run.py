"""`loop run`: fires on the schedule and looks after the sessions, until it is told to stop. One per project.

Everything it knows is in the log, so it may be killed at any instruction: the next one, a cron tick or a session's own
end goes on from there. Between fires it looks at the live sessions every POLL_SECONDS: a session whose shim died is
buried, and its slot refilled, without waiting for the next fire.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from events.catalog import ControllerStarted, ControllerStopped, SessionAdopted
from events.errors import ConfigError, LoopError, PassBusy, RefusedError, StoreGone
from loop import __version__
from loop.alarm import BROKEN, alarm
from loop.controller import Loop, Result, kernel_lock
from loop.notices import announce
from loop.passes import ACTOR, Fire, is_used
from loop.sessions import handshake, proc, rundir
from loop.sessions.start import reap
from projections import schedule

POLL_SECONDS = 2.0

Report = Callable[[str], None]


@dataclass(slots=True)
class Watch:
    """What a controller remembers between two looks; losing it costs nothing."""

    loop: Loop
    report: Report
    tried: int | None = None  # the nominal instant it fired for last, or was refused
    held_up: int | None = None  # the nominal instant at which another pass was observing
    config_seen: tuple[int, int, int] | None = None  # time, inode and size of the config file as last read
    config: dict[str, Any] | None = None
    quiet_until: int = 0  # when it may be told again that the store takes no word
    told: list[str] = field(default_factory=list)  # what was wrong at the last look, which is not told again


def run(loop: Loop, report: Report) -> None:
    """Fire and supervise until SIGTERM, SIGINT or the end of the terminal (SIGHUP); sessions are left alone.

    Raises RefusedError if one runs already, and StoreGone when the store is taken away: without its log it knows
    nothing and must start nothing.
    """
    with kernel_lock(loop.home.run_lock) as got:
        if not got:
            raise RefusedError(
                f"another loop run has {loop.home.run_lock}", "one project has one controller; see: loop status"
            )
        with _stopping() as stopped:
            _begin(loop, report)
            watch = Watch(loop, report)
            try:
                while not stopped.is_set():
                    _step(watch)
                    stopped.wait(POLL_SECONDS)
            except StoreGone:
                raise  # there is no log left to say goodbye in
            except BaseException:
                with contextlib.suppress(LoopError):
                    _finish(loop, report)
                raise
            _finish(loop, report)


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and, unless nohup(1) has it ignored, SIGHUP set."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _begin(loop: Loop, report: Report) -> None:
    """Take note of this controller, see to what happened meanwhile, adopt what lives."""
    pid = os.getpid()
    with loop.journal.transaction() as entry:
        started = ControllerStarted(
            pid=pid, start=proc.start_time(pid), boot=proc.boot_id(), release=__version__
        )
        entry.append(started, actor=ACTOR)
    _look(loop, report, settle=False)
    loop.check_witnesses()
    silent = _silent(loop)
    with loop.journal.transaction() as entry:
        for session, live in entry.state.sessions["live"].items():
            if live["status"] == "started":
                adopted = SessionAdopted(by="run", why="no_answer" if session in silent else "controller_started")
                entry.append(adopted, actor=ACTOR, tick=live["tick"], session=session, category=live["category"])
                report(f"adopted {session} ({live['category']})")
    report(f"controller {pid} runs; stop it with SIGTERM, its sessions go on")


def _silent(loop: Loop) -> set[str]:
    """Live sessions whose shim did not say that it is theirs: alive all the same, as long as nobody knows better."""
    silent: set[str] = set()
    for session in loop.journal.refresh().sessions["live"]:
        run_dir = rundir.path_of(str(loop.home.state), session)
        with contextlib.suppress(rundir.RunDirError):  # a damaged claim is reported by every look, and adopts nobody
            claim = rundir.read_claim(run_dir)
            if claim is not None and handshake.is_of(handshake.ask(run_dir).who, claim):
                continue
        silent.add(session)
    return silent


def _finish(loop: Loop, report: Report) -> None:
    with loop.journal.transaction() as entry:
        entry.append(ControllerStopped(pid=os.getpid(), why="signal"), actor=ACTOR)
    report("controller stopped")


def _step(watch: Watch) -> None:
    """One look: bury the dead, and fire if an instant is due that was not used. Raises StoreGone."""
    reap()
    watch.loop.journal.log.check_in_place()  # now, not at the next fire: meanwhile others would begin another log
    wrong: list[str] = []
    try:
        _look(watch.loop, watch.report, settle=True)
        _fire_if_due(watch)
    except StoreGone:
        raise
    except ConfigError as error:
        watch.report(f"{error.message}; nothing is started until it is mended")
    except PassBusy:
        watch.held_up, watch.tried = watch.tried, None  # a pass by hand is no fire, and does not use it up
        watch.report("another pass is observing; if it is no fire, this one comes after it")
    except (LoopError, OSError, rundir.RunDirError) as error:
        wrong.append(f"{type(error).__name__}: {error}")
        if isinstance(error, BROKEN):
            loop = watch.loop
            watch.quiet_until = alarm(loop.home, loop.environ, error, loop.clock.now(), watch.quiet_until)
    _complain(watch, [*wrong, *watch.loop.troubles])
    announce(watch.loop)


def _complain(watch: Watch, wrong: list[str]) -> None:
    """Say what is wrong once, however many looks find it: what runs for a month must not fill its log with it."""
    for text in wrong:
        if text not in watch.told:
            watch.report(text)
    watch.told = wrong


def _look(loop: Loop, report: Report, *, settle: bool) -> None:
    """Ingest and bury; the pass that such an end deserves follows, as after any other."""
    for session in loop.reconcile(settle=settle):
        report(f"{session} ended")
        with contextlib.suppress(ConfigError):
            _tell(loop.session_ended(session), report)


def _fire_if_due(watch: Watch) -> None:
    """Fire for the newest nominal instant that nobody used; those missed before it are coalesced into it."""
    loop = watch.loop
    config = _schedule(watch)
    if config is None:
        return
    now = loop.clock.now()
    nominal = schedule.last_fire(config, now)
    if nominal == watch.tried or is_used(loop.journal.refresh(), nominal, now):
        return
    if now < nominal + schedule.jitter(config, loop.journal.log.store_id, nominal):
        return
    if watch.held_up == nominal and _observed(loop):
        return
    watch.tried = nominal  # whatever comes of it: a skipped instant is not tried again
    _tell(loop.fire(Fire("timer", nominal=nominal)), watch.report)


def _observed(loop: Loop) -> bool:
    """Whether a pass observes right now."""
    with kernel_lock(loop.home.pass_lock) as got:
        return not got


def _schedule(watch: Watch) -> dict[str, Any] | None:
    """The config, read again only when its file was touched; None while it is invalid, which is said once."""
    try:
        status = os.stat(watch.loop.home.config)
        seen = (status.st_mtime_ns, status.st_ino, status.st_size)
    except OSError:
        seen = (0, 0, 0)
    if seen != watch.config_seen:
        watch.config_seen, watch.config = seen, None
        watch.config = watch.loop.configured()
    return watch.config


def _tell(result: Result, report: Report) -> None:
    if result.skipped is not None:
        if result.skipped != "used":
            report(f"fire skipped: {result.skipped}")
        return
    assert result.decided is not None
    for started in result.started:
        report(f"started {started.session} ({started.category})")
    failed = len(result.decided.grants) - len(result.started)
    if failed:
        report(f"{failed} could not be started: loop status")
    if result.selection is not None and result.selection.type == "selection.rejected":
        report("the selector's answer was rejected: loop why last")
