"""Reading a session's result from its run directory: bounded, whatever it printed, and never raising for it.

What to read by is in the run directory itself (`Reader`): the config may have changed since the start.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, get_args

from events.errors import ConfigError
from loop.presets.preset import Output, Refusal, Result, count, instant, table, text, token
from loop.presets.registry import preset
from loop.sessions.output import HEAD, TAIL
from loop.sessions.rundir import Reader
from loop.text import visible

MAX_LINE = 1 << 20  # bytes of one line that is read
END = 16 << 10  # bytes of each stream's end that patterns are tried on
MAX_PATTERN_LINE = 2000  # characters of one line that they see
MAX_SUMMARY, MAX_REASON = 2000, 64  # characters


NOTHING = Result()


@dataclass(frozen=True, slots=True)
class Reading:
    """A session's result, and the pattern that the end of its output matches, where there is nothing better."""

    result: Result = NOTHING
    pattern: str | None = None


def read(run_dir: str, session: str, reader: Reader, ended_at: float, exit_code: int | None = None) -> Reading:
    """What the output of a session that ended with `exit_code` says.

    A parser that is gone or fails on it leaves its patterns; it is then unknown.
    """
    lines = _Lines(os.path.join(run_dir, "out.log"))
    result = NOTHING
    if reader["parser"] is not None:
        try:
            output = Output(lines, lambda: lines.whole, session, ended_at, exit_code, reader.get("resumed"))
            result = _parsed(reader["parser"], output)
        except ConfigError as error:
            result = Result(summary=error.message)
    matched = None
    if result.error is not None:
        if (matched := _match(reader["limit_patterns"], [result.error])) is not None:
            result = replace(result, limited=True, reason="rate_limit" if result.outcome else result.reason)
            result = replace(result, outcome="limited") if result.outcome else result
    elif result.outcome is None:
        matched = _match(reader["limit_patterns"], _end_lines(run_dir))
    summary = None if result.summary is None else visible(result.summary, MAX_SUMMARY).strip() or None
    return Reading(replace(result, summary=summary), matched)


def _parsed(name: str, output: Output) -> Result:
    """Raises ConfigError where the parser is gone, or fails."""
    parse = preset(name).parse
    if parse is None:
        return NOTHING
    try:
        found = parse(output)
    except Exception as error:  # a plug-in's; the session must end in the log all the same
        raise ConfigError(f"the parser of preset {name!r} failed: {type(error).__name__}: {error}", "mend it") from None
    if not isinstance(found, Result):
        raise ConfigError(f"the parser of preset {name!r} gave no Result but {type(found).__name__}", "mend it")
    return _sound(found)


def _sound(result: Result) -> Result:
    """What of a result the log can hold: a plug-in's may have been made of anything."""
    used = table(result.usage).items()
    reason = text(result.reason)
    return Result(
        outcome=result.outcome if result.outcome in get_args(Refusal) else None,
        reason=None if reason is None else visible(reason, MAX_REASON),
        error=text(result.error),
        resets_at=instant(result.resets_at),
        usage={str(name): count(number) for name, number in used} or None,
        resume_token=token(result.resume_token),
        summary=text(result.summary),
        limited=result.limited is True or result.outcome == "limited",
    )


class _Lines:
    """The JSON objects of a log, a line each. Once they were gone through, `whole` says whether all were there."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.whole = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if (file := _open(self._path)) is None:
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            parts = [(0, size)] if size <= HEAD + TAIL else [(0, HEAD), (size - TAIL, size)]
            self.whole = len(parts) == 1
            for begin, end in parts:
                file.seek(begin)
                yield from self._records(file, end - begin)

    def _records(self, file: BinaryIO, left: int) -> Iterator[dict[str, Any]]:
        inside = False  # a line that is too long, of which the rest comes
        while left > 0 and (line := file.readline(min(left, MAX_LINE))):
            left -= len(line)
            begun, inside = inside, not line.endswith(b"\n")
            if begun or (inside and len(line) == MAX_LINE):
                self.whole = False
            elif line.lstrip().startswith(b"{"):
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(value, dict):
                    yield value


def _open(path: str) -> BinaryIO | None:
    """A plain file of the run directory, or None: a session may have put anything in its place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    return os.fdopen(fd, "rb")


def _end_lines(run_dir: str) -> list[str]:
    """The last lines of both streams."""
    lines: list[str] = []
    for name in ("out.log", "err.log"):
        if (file := _open(os.path.join(run_dir, name))) is not None:
            with file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - END))
                lines += file.read(END).decode("utf-8", "replace").splitlines()
    return lines


def _match(patterns: Sequence[str], lines: Sequence[str]) -> str | None:
    """The first of the patterns that a line has."""
    for pattern in patterns:
        found = re.compile(pattern, re.IGNORECASE)
        if any(found.search(line[:MAX_PATTERN_LINE]) for line in lines):
            return pattern
    return None
