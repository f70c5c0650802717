"""`loop step` in a real terminal: keys go in through a pty, and what stands on the screen is read back."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from given import START, Story, after, configured, failed, granted, over, rejection, restrained, running, seen, tick
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from written import written

from events import catalog
from events.envelope import to_text
from events.errors import UsageError
from events.store import EventLog
from loop.audit import walk
from loop.audit.diff import detached, made_by
from loop.audit.walk import Walk
from loop.commands import step as command
from projections.state import State

ROOT = Path(__file__).resolve().parents[2]
BORN = seen(catalog.StoreMigrated(store="l", schema_from=0, schema_to=1, sqlite="3", release="0"))
RIGHT, LEFT, DOWN = "\x1b[C", "\x1b[D", "\x1b[B"
PROGRAM = """
import sys
from pathlib import Path
from loop.commands.step import run
sys.exit(run(Path(sys.argv[1]), at=sys.argv[2]))
"""


def story() -> Story:
    """2 config, 3 pass, 4 rejected, 5-7 s1 runs, 8 paused, 9-10 s1 over, 11-12 s2 granted, 13-14 and fails."""
    told = Story()
    told.happens(BORN, configured(), tick(), rejection(), running("s1", "code", rule="manual"))
    told.happens(restrained("paused", minutes=30))
    return told.happens(after(minutes=5), over("s1"), granted("s2", "docs"), failed("s2", "command_not_found"))


class Screen:
    """A process on a terminal of its own, and what it shows."""

    def __init__(
        self, db: Path, at: str, columns: int = 100, lines: int = 40, command: Sequence[str] | None = None
    ) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self.slave)
        self.raw = b""
        self.process = subprocess.Popen(
            command or [sys.executable, "-c", PROGRAM, str(db), at],
            stdin=self.slave,
            stdout=self.slave,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "TZ": "UTC", "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C and resizing reach it
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def keys(self, text: str) -> None:
        os.write(self.master, text.encode())

    @property
    def lines(self) -> list[str]:
        """The newest whole screen, without styles."""
        text = self.raw.decode(errors="replace").replace("\r", "")
        drawn = text.rpartition("\x1b[H")[2]
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in drawn.split("\n")]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def sees(self, *parts: str, seconds: float = 15.0) -> None:
        """Wait until all of `parts` stand on the screen."""
        deadline = time.monotonic() + seconds
        while not all(part in self.text for part in parts):
            assert time.monotonic() < deadline, f"no {parts} in:\n{self.text}"
            self.read(0.05)

    def read(self, seconds: float) -> None:
        while select.select([self.master], [], [], seconds)[0]:
            try:
                self.raw += os.read(self.master, 65_536)
            except OSError:
                return
            seconds = 0.01

    def ends(self) -> int:
        """The exit code, once it has ended; the terminal must be as it was."""
        code = self.process.wait(15)
        self.read(0.01)
        assert termios.tcgetattr(self.slave) == self.before
        assert self.raw.rstrip().endswith(b"\x1b[?25h\x1b[0m\x1b[?1049l")
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "s" / "loop.db"
    written(story().events, path).close()
    return path


@pytest.fixture
def screen(db: Path) -> Iterator[Screen]:
    found = Screen(db, "5")
    found.sees("5 of 14", "session.requested")
    yield found
    found.close()


# ── on a terminal ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_itself_steps_and_gives_the_terminal_back(tmp_path: Path) -> None:
    db = tmp_path / ".loop" / "loop.db"
    written(story().events, db).close()
    loop = [sys.executable, str(ROOT / "cli.py"), "-C", str(tmp_path), "step", "--at", "s2"]
    screen = Screen(db, "", command=loop)
    try:
        screen.sees("11 of 14", "session.requested", "loop show 11")
        screen.keys(LEFT)
        screen.sees("10 of 14", "lock.released")
        screen.keys("q")
        assert screen.ends() == 0
    finally:
        screen.close()


def test_every_key_leads_where_it_says(screen: Screen) -> None:
    screen.sees('+ sessions.live["s1"]', '"task": ""', "loop status --at 5", "loop show 5", "loop diff 4 5", "q quit")
    screen.keys(RIGHT)
    screen.sees("6 of 14", "lock.acquired", '+ locks["code"]')
    screen.keys("k")
    screen.sees("5 of 14")
    screen.keys("n")
    screen.sees("11 of 14", "session.requested", "docs")
    screen.keys("p")
    screen.sees("5 of 14")
    screen.keys("p")
    screen.sees("no session.requested before this one")
    screen.keys("]")
    screen.sees("13 of 14", "session.spawn_failed")
    screen.keys("[")
    screen.sees("4 of 14", "selection.rejected")
    screen.keys("gs2\n")
    screen.sees("11 of 14")
    screen.keys("g99\r")
    screen.sees("position 99 is beyond the log's head, 14")
    screen.keys("g" + "x\x7f" + to_text(START)[:19] + "Z\n")
    screen.sees("8 of 14", "loop.paused")
    screen.keys("q")
    assert screen.ends() == 0


def test_views_are_shown_and_hidden_and_help_comes_and_goes(screen: Screen) -> None:
    screen.keys("13")
    screen.sees("loop running", "1 of 3 in use", '+ sessions.live["s1"]')
    assert '"task"' not in screen.text
    screen.keys("?")
    screen.sees("the next or previous problem")
    screen.keys("\x1b")
    screen.sees("1 of 3 in use")
    screen.keys("Z")
    screen.sees("? shows what the keys do")
    screen.keys("\x03")
    assert screen.ends() != 0  # interrupted, and yet the terminal is as it was


def test_a_filter_stops_only_where_it_holds(screen: Screen) -> None:
    screen.keys("/mode == 'paused'\n")
    screen.sees("only where mode == 'paused'")
    screen.keys(RIGHT)
    screen.sees("8 of 14")
    screen.keys(LEFT)
    screen.sees("none with mode == 'paused' before this one")
    screen.keys("/\x15lock.*\n")
    screen.sees("only where lock.*")
    screen.keys(RIGHT)
    screen.sees("10 of 14", "lock.released")
    screen.keys("/\x15lives > 3\n")
    screen.sees("unknown name lives; did you mean live?")
    screen.keys("/\x15\n")
    screen.sees("stops at every event")
    screen.keys("\x04")
    assert screen.ends() == 0


def test_it_follows_the_size_of_the_terminal_and_scrolls(screen: Screen) -> None:
    screen.resize(50, 10)
    screen.sees("more lines")
    assert len(screen.lines) == 10
    assert max(map(len, screen.lines)) <= 50
    shown = screen.lines[2]
    screen.keys(DOWN)
    screen.sees("more lines")
    deadline = time.monotonic() + 10
    while screen.lines[2] == shown and time.monotonic() < deadline:
        screen.read(0.05)
    assert screen.lines[2] != shown
    screen.resize(8, 2)
    screen.keys("q")
    assert screen.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(screen: Screen, number: signal.Signals) -> None:
    os.kill(screen.process.pid, number)
    assert screen.ends() == 128 + number


def test_a_failure_leaves_the_terminal_as_it_was(screen: Screen, db: Path) -> None:
    raw = EventLog.read(db)
    raw.close()
    db.write_bytes(b"no database" * 1_000)
    screen.keys("]" + RIGHT + RIGHT)
    deadline = time.monotonic() + 10
    while screen.process.poll() is None and time.monotonic() < deadline:
        screen.read(0.05)
        if "loop.db" in screen.text:
            screen.keys("q")
            break
    assert screen.ends() in (0, 1)


def test_text_from_outside_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    told = Story()
    told.happens(BORN, configured(), running("s1", "code", task="\x1b[2J\x1b]0;owned\x07\u202eevil"))
    path = tmp_path / "s" / "loop.db"
    written(told.events, path).close()
    found = Screen(path, "3")
    try:
        found.sees("3 of 5", "evil")
        assert b"\x1b[2J" not in found.raw
        assert b"\x1b]" not in found.raw
        assert b"\x07" not in found.raw
        found.keys("q")
        assert found.ends() == 0
    finally:
        found.close()


def test_without_a_terminal_it_says_which_commands_do_the_same(db: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a terminal") as raised:
        command.run(db, at=None)
    assert "loop status --at N" in raised.value.hint


# ── the walk itself ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(max_examples=6)
@for_all(st.integers(0, 10**6), st.data())
def test_wherever_one_walks_one_sees_what_a_fold_from_the_beginning_says(seed: int, data: st.DataObject) -> None:
    events = history(seed, 120).events
    log = written(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "STRIDE", 20)
        patch.setattr(walk, "KEPT", 30)
        walked = Walk(log, 60, lambda position: None)
        for move in data.draw(st.lists(st.sampled_from((1, -1, -1, "jump")), min_size=5, max_size=25)):
            if isinstance(move, str):
                walked.go(str(data.draw(st.integers(1, len(events)))))
            else:
                walked.step(move)
            position, seen_here = walked.position, walked.look()
            before = State().fold(log.events(0, position - 1))
            assert seen_here.record.position == position
            assert seen_here.changes == made_by(log, position, before)
            assert seen_here.report == detached(before, walk.to_micros(events[position - 1].at))


@settings(max_examples=6)
@for_all(st.integers(0, 10**6))
def test_problems_are_the_same_in_both_directions(seed: int) -> None:
    log = written(history(seed, 200).events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk, "BLOCK", 37)
        walked = Walk(log, 1, lambda position: None)
        ahead = []
        while walked.problem(1):
            ahead.append(walked.position)
        walked.position = 201
        back = []
        while walked.problem(-1):
            back.append(walked.position)
    surely = {event.position for event in log.events() if event.type in walk.PROBLEMS}
    assert surely <= set(ahead)
    assert surely & set(range(201)) <= set(back)


def test_an_expression_stops_at_the_events_after_which_it_holds() -> None:
    log = written(story().events)
    walked = Walk(log, 1, lambda position: None)
    walked.only("live == 1 and mode == 'paused'")
    stops = []
    while walked.step(1):
        stops.append(walked.position)
    assert stops == [8, 11, 12]
    back = []
    while walked.step(-1):
        back.append(walked.position)
    assert back == [11, 8]
    assert walked.same_type(1) is False
