"""What every command prints with: results on stdout, messages on stderr, nothing from outside unescaped.

Text of sessions, selectors and configs is hostile: it enters tables only as `rich.text.Text` through `clean`, never as
markup, and without control characters or marks that turn the writing around.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from events.envelope import to_micros
from loop.text import visible

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

WIDTH = 80  # columns where stdout is no terminal
WHOLE = 24  # columns of a table's cell that no other cell takes


_places: list[str] = []  # the -C and --config that this command was given


def say_places(directory: Path | None, config: Path | None) -> None:
    """Where this command was told to work: what it prints to go on with has that, too."""
    given = {"-C": directory, "--config": config}
    _places[:] = [word for option, path in given.items() if path is not None for word in (option, str(path))]


def clean(text: object, limit: int | None = None) -> str:
    """Anything from outside as one harmless line; see `loop.text.visible`."""
    return visible(str(text), limit)


def console(*, stderr: bool = False) -> Console:
    """A rich console for stdout or stderr; colours and width as the terminal allows, NO_COLOR respected."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich would exit 1; who reads our output may leave when he has enough

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else WIDTH
    return Piped(file=stream, width=width, highlight=False, markup=False, emoji=False)


def uncrushed(table: Table) -> Table:
    """The table, with columns that stay whole up to WHOLE: a terminal too narrow for them cuts off the right end.

    Otherwise rich takes a bit of every column, first of those that may wrap, until no name can be told from another.
    """
    from rich.cells import cell_len

    for column in table.columns:
        if column.no_wrap:
            column.min_width = min(WHOLE, max(cell_len(str(cell)) for cell in (column.header, *column.cells)))
    return table


def print_commands(out: Console, *commands: str) -> None:
    """Commands to go on with, each on a line of its own, neither broken nor cut off, so that it can be copied."""
    from rich.text import Text

    for command in commands:
        out.print(Text(f"→ {clean(here(command))}", "dim"), soft_wrap=True)


def here(command: str) -> str:
    """A `loop …` command for this project, wherever it is copied to."""
    program, _, rest = command.partition(" ")
    return f"loop {shlex.join(_places)} {rest}" if _places and program == "loop" else command


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, readable and in UTF-8; lone surrogates become \\u escapes."""
    try:
        text = json.dumps(value, ensure_ascii=False, indent=2)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    print(text)


def print_line(value: Mapping[str, Any]) -> None:
    """One JSON object on one line: for `log` and `export`."""
    print(json.dumps(value, ensure_ascii=True, separators=(",", ":")))


def message(text: str) -> None:
    """A line for a person, on stderr."""
    print(clean(text), file=sys.stderr)


def as_of(position: int, at: str | None) -> dict[str, Any]:
    """The `as_of` of every JSON answer."""
    return {"position": position, "at": at}


def local(at: str | None, now: str | None = None) -> str:
    """A stored time as local text: the time of day, with the date where it is another day than `now`'s."""
    if at is None:
        return "–"
    moment = datetime.fromtimestamp(to_micros(at) / 1e6).astimezone()
    today = None if now is None else datetime.fromtimestamp(to_micros(now) / 1e6).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """A duration for tables: `12 s`, `3 min`, `2 h 05`, `4 d 3 h`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60} min"
    if whole < 86_400:
        return f"{whole // 3_600} h {whole % 3_600 // 60:02d}"
    return f"{whole // 86_400} d {whole % 86_400 // 3_600} h"


def share(value: float | None) -> str:
    """A share or rate as a percentage; `no data` where there is none."""
    return "no data" if value is None else f"{value * 100:.0f} %"
