"""A terminal held for a program that answers to single keys, and given back as it was whatever happens.

No library: raw keys through termios, the alternate screen through its escape sequences. Interrupts (Ctrl-C), SIGTERM
and SIGHUP leave through the same door as a normal end; suspending and core dumps by key are switched off meanwhile.
"""

from __future__ import annotations

import codecs
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

ENTER_SCREEN = "\x1b[?1049h\x1b[?25l"
LEAVE_SCREEN = "\x1b[?25h\x1b[0m\x1b[?1049l"
ESCAPE_SECONDS = 0.05  # how long the rest of an escape sequence may take to come
RESIZED, ENDED = "resized", "ended"

_SEQUENCES = {
    "[A": "up", "[B": "down", "[C": "right", "[D": "left", "OA": "up", "OB": "down", "OC": "right", "OD": "left",
    "[5~": "pageup", "[6~": "pagedown", "[H": "home", "[F": "end", "OH": "home", "OF": "end", "[1~": "home",
    "[4~": "end", "[3~": "delete",
}  # fmt: skip
_NAMED = {"\n": "enter", "\r": "enter", "\x7f": "backspace", "\b": "backspace", "\x04": ENDED, "\x15": "kill"}


def is_there() -> bool:
    """Whether stdin and stdout are a terminal that can place text."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


class Terminal:
    """The terminal while it is held. Made by `held`."""

    def __init__(self, source: int, resized: int) -> None:
        self._source = source
        self._resized = resized
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pending: list[str] = []

    def size(self) -> tuple[int, int]:
        """Columns and lines, at least 20 by 5."""
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
        return max(20, columns), max(5, lines)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines and nothing else; they must fit."""
        sys.stdout.write("\x1b[H" + "\r\n".join(f"\x1b[2K{line}" for line in lines))
        sys.stdout.flush()

    def say(self, text: str, line: int) -> None:
        """One line of plain text at `line` (from 1), the rest of the screen left as it is."""
        sys.stdout.write(f"\x1b[{line};1H{text}\x1b[K")
        sys.stdout.flush()

    def key(self) -> str:
        """The next key: a letter, or a name as `left`, `enter`, `escape`; or that it was `resized` or has `ended`."""
        while True:
            if self._pending:
                return self._take()
            ready, _, _ = select.select([self._source, self._resized], [], [])
            if self._resized in ready:
                os.read(self._resized, 64)
                return RESIZED
            if not self._read():
                return ENDED

    def pressed(self) -> bool:
        """Whether a key waits; it is taken. For work that a key ends."""
        if not self._pending and self._waits(0):
            self._read()
        taken = bool(self._pending)
        self._pending.clear()
        return taken

    def _waits(self, seconds: float) -> bool:
        return bool(select.select([self._source], [], [], seconds)[0])

    def _read(self) -> bool:
        data = os.read(self._source, 1_024)
        self._pending += self._decoder.decode(data)
        return bool(data)

    def _take(self) -> str:
        letter = self._pending.pop(0)
        if letter != "\x1b":
            return _NAMED.get(letter, letter)
        if not self._pending and not (self._waits(ESCAPE_SECONDS) and self._read()):
            return "escape"
        sequence = ""
        while self._pending and len(sequence) < 8:
            sequence += self._pending.pop(0)
            if len(sequence) > 1 and "@" <= sequence[-1] <= "~":
                break
            if not self._pending and self._waits(ESCAPE_SECONDS):
                self._read()
        return _SEQUENCES.get(sequence, "unknown")


@contextmanager
def held() -> Iterator[Terminal]:
    """Hold the terminal of stdin and stdout; on leaving it is as it was, also by exception or signal."""
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    handlers: dict[int, Callable[[int, FrameType | None], None]] = {
        signal.SIGWINCH: lambda number, frame: _tell(writer),
        signal.SIGTERM: _leave,
        signal.SIGHUP: _leave,
    }
    known = {number: signal.getsignal(number) for number in handlers}
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        tty.setcbreak(source)
        mode = termios.tcgetattr(source)
        for key in (termios.VSUSP, termios.VQUIT):
            mode[6][key] = b"\0"
        termios.tcsetattr(source, termios.TCSANOW, mode)
        _write(ENTER_SCREEN)
        yield Terminal(source, reader)
    finally:
        try:
            _write(LEAVE_SCREEN)
        finally:
            termios.tcsetattr(source, termios.TCSANOW, before)
            for number, old in known.items():
                signal.signal(number, old)
            os.close(reader)
            os.close(writer)


def _tell(writer: int) -> None:
    try:
        os.write(writer, b"w")
    except BlockingIOError:
        pass  # it is full of the same message


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        pass  # the terminal is gone; its mode is still to be restored
