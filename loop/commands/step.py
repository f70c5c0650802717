"""`loop step`: through the log event by event, forwards and back, with what each changed and the status after it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.errors import LoopError, UsageError
from events.store import EventLog
from loop import terminal
from loop.audit.links import commands
from loop.audit.walk import Walk
from loop.commands.log import as_json
from loop.commands.show import change_lines, event_lines
from loop.commands.status import render
from loop.moment import resolve
from loop.output import clean, local
from loop.terminal import Terminal

if TYPE_CHECKING:
    from rich.console import Console

VIEWS = {"1": "event", "2": "change", "3": "status"}
FRAME = 4  # lines that are not the body's
KEYS = "→ ← step · n p same type · ] [ problem · g go · / filter · 1 2 3 views · ? help · q quit"
HELP = """\
→ l j   the next event                 ← h k   the one before
n p     the next or previous event of the same type
] [     the next or previous problem: a violation, a lost or failed session,
        a rejected selection, or an event after which status has one more
g       go to a position, a time (14:03, -5m) or the id of a session, pass or event
/       stop only where an expression holds (live > 3), or at types (lock.*); empty: at all
1 2 3   show or hide: the event, what it changed, the status after it
↑ ↓     scroll; space and b by the page     home end   the first and last event
q       quit"""


class _Cancelled(Exception):
    """A key was pressed while something long went on."""


def run(db: Path, *, at: str | None) -> int:
    """Walk from `at` (head without it) until `q`. Raises UsageError without a terminal or events."""
    if not terminal.is_there():
        raise UsageError(
            "loop step needs a terminal for its keys",
            "without one: loop log, loop show N, loop diff N-1 N, loop status --at N, loop when EXPR",
        )
    log = EventLog.read(db)
    try:
        position = resolve(log, at).position
        if log.head().position == 0:
            raise UsageError("there is nothing to step through: the log is empty", "see: loop status")
        with terminal.held() as screen:
            Stepper(log, position, screen).loop()
    finally:
        log.close()
    return 0


class Stepper:
    """What is on the screen, and what each key does to it."""

    def __init__(self, log: EventLog, position: int, screen: Terminal) -> None:
        self.screen = screen
        self.walk = Walk(log, position, self._hear)
        self.views = {"1", "2"}
        self.scroll = 0
        self.height = 1  # lines of the body
        self.message = ""
        self.helping = False
        self.searching = False  # for what a key may stop
        self.prompt: str | None = None  # the key that asked: g or /
        self.typed = ""

    def loop(self) -> None:
        """Draw, wait for a key, obey; until `q`."""
        while True:
            self.draw()
            key = self.screen.key()
            if key == terminal.ENDED or (key == "q" and self.prompt is None):
                return
            if key == terminal.RESIZED:
                continue
            self.message = ""
            self.searching = True
            try:
                if self.prompt is not None:
                    self._edit(key)
                else:
                    self._obey(key)
            except LoopError as error:
                self.message = f"{error.message}  → {error.hint}" if error.hint else error.message
            except _Cancelled:
                self.message = "stopped"
            self.searching = False

    # ── keys ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _obey(self, key: str) -> None:
        step = -1 if key in ("left", "h", "k", "p", "[", "home") else 1
        if key in ("right", "left", "l", "h", "j", "k"):
            what = f"none with {self.walk.filter}" if self.walk.filter else "no event"
            self._moved(self.walk.step(step), what, step)
        elif key in ("n", "p"):
            self._moved(self.walk.same_type(step), f"no {self.walk.look().record.type}", step)
        elif key in ("]", "["):
            self._moved(self.walk.problem(step), "no problem", step)
        elif key in ("home", "end"):
            self.walk.position = 1 if key == "home" else self.walk.head
            self.scroll = 0
        elif key in ("g", "/"):
            self.prompt, self.typed = key, self.walk.filter if key == "/" else ""
        elif key in VIEWS:
            self.views ^= {key}
            self.scroll = 0
        elif key == "?":
            self.helping = not self.helping
            self.scroll = 0
        elif key in ("up", "down", " ", "pagedown", "b", "pageup"):
            page = self.height - 1 if key in (" ", "pagedown", "b", "pageup") else 1
            self.scroll += page if key in ("down", " ", "pagedown") else -page
        elif key == "escape":
            self.helping = False
        else:
            self.message = "? shows what the keys do"

    def _moved(self, moved: bool, what: str, step: int) -> None:
        self.helping = False
        if moved:
            self.scroll = 0
        else:
            self.message = f"{what} {'after' if step > 0 else 'before'} this one"

    def _edit(self, key: str) -> None:
        """One key of an answer to `g` or `/`."""
        if key == "enter":
            asked, self.prompt = self.prompt, None
            if asked == "g" and self.typed.strip():
                self.walk.go(self.typed)
            elif asked == "/":
                self.walk.only(self.typed)
                self.message = f"stops only at {self.walk.filter}" if self.walk.filter else "stops at every event"
            self.scroll = 0
        elif key == "escape":
            self.prompt = None
        elif key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "kill":
            self.typed = ""
        elif len(key) == 1 and key.isprintable():
            self.typed += key

    def _hear(self, position: int) -> None:
        """Long work is at `position`: say so, and stop a search if a key was pressed."""
        width, height = self.screen.size()
        self.screen.say(f"at {position}{'; any key stops' if self.searching else ''}"[:width], height)
        if self.searching and self.screen.pressed():
            raise _Cancelled

    # ── drawing ───────────────────────────────────────────────────────────────────────────────────────────────────

    def draw(self) -> None:
        """The whole screen for where we are."""
        from rich.text import Text

        width, height = self.screen.size()
        paper = _Paper(width)
        body = paper.lines(self._body())
        self.height = max(1, height - FRAME)
        self.scroll = max(0, min(self.scroll, len(body) - self.height))
        shown = body[self.scroll : self.scroll + self.height]
        below = len(body) - self.scroll - len(shown)
        record = self.walk.look().record
        next_commands = Text(" · ".join(commands(record)[:2]) + f" · loop show {record.position}", "dim")
        foot = Text(f"↓ {below} more lines  " if below > 0 else "", "yellow")
        if self.prompt is not None:
            asked = "go to: " if self.prompt == "g" else "only where: "
            foot = Text.assemble((asked, "bold"), self.typed, ("▏", "bold"))
        elif self.message:
            foot.append(clean(self.message), "bold yellow")
        else:
            foot.append(KEYS, "dim")
        lines = [paper.line(self._head()), paper.line(self._bar())]
        lines += shown + [""] * (self.height - len(shown))
        lines += [paper.line(next_commands), paper.line(foot)]
        self.screen.draw(lines[:height])

    def _head(self) -> Any:
        from rich.text import Text

        record = self.walk.look().record
        text = Text.assemble((f"{record.position}", "bold"), (f" of {self.walk.head}  ", "dim"))
        text.append(f"{local(record.at)}  ")
        text.append(record.type, "bold")
        text.append(f"  {clean(record.category, 30)}" if record.category else "", "cyan")
        text.append(f"  {record.session}" if record.session else "", "dim")
        return text

    def _bar(self) -> Any:
        from rich.text import Text

        text = Text()
        for key, name in VIEWS.items():
            text.append(f" {key} {name} ", "reverse" if key in self.views else "dim")
        if self.walk.filter:
            text.append(f"  only where {clean(self.walk.filter, 60)}", "yellow")
        return text

    def _body(self) -> list[Any]:
        from rich.text import Text

        if self.helping:
            return [Text(HELP)]
        look = self.walk.look()
        parts: list[Any] = []
        if "2" in self.views:
            parts += change_lines(look.changes)
        if "1" in self.views:
            event = as_json(look.record)
            del event["hash"], event["version"]
            parts += [Text(), *event_lines(event)] if parts else event_lines(event)
        if "3" in self.views:
            parts += [Text(), render(look.report)] if parts else [render(look.report)]
        return parts


class _Paper:
    """Rich's rendering as lines of text for the terminal, as wide as it is."""

    def __init__(self, width: int) -> None:
        self._width = width

    def _console(self, file: io.StringIO) -> Console:
        from rich.console import Console

        return Console(
            file=file, width=self._width, force_terminal=True, highlight=False, markup=False, emoji=False
        )

    def lines(self, parts: list[Any]) -> list[str]:
        """Everything, wrapped."""
        file = io.StringIO()
        out = self._console(file)
        for part in parts:
            out.print(part)
        return file.getvalue().split("\n")[:-1]

    def line(self, text: Any) -> str:
        """One line, cut where it is too long."""
        file = io.StringIO()
        self._console(file).print(text, no_wrap=True, overflow="ellipsis", end="")
        return file.getvalue().partition("\n")[0]
