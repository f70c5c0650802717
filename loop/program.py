"""What every command runs in: errors become messages and exit codes; a reader that left is none. Light to import."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from events.errors import LoopError

INTERRUPTED = 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class ReaderLeft(Exception):
    """Whoever read our output has gone, as in `loop log | head`: no error, and nothing more to do."""


def execute(command: Callable[[], object], *, as_json: bool) -> NoReturn:
    """Run a command and exit with its code, an int, or 0 for anything else that it returns."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # started with its output closed, as by `>&-`
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    try:
        code = _run(command, as_json)
        sys.stdout.flush()
    except (BrokenPipeError, ReaderLeft):
        _drop_output()  # nobody to tell
        code = 0
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        hint = "make room where its output goes, or where the state directory is: loop doctor"
        code = fail("full", f"nothing more can be written: {error.strerror}", hint, 1, as_json=False)
    sys.exit(code)


def _run(command: Callable[[], object], as_json: bool) -> int:
    try:
        code = command()
    except LoopError as error:
        _debug()
        return fail(error.code, error.message, error.hint, error.exit_code, as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except (BrokenPipeError, ReaderLeft):
        raise
    except Exception as error:
        _debug()
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        hint = "a bug in loop (LOOP_DEBUG=1 shows where), or a damaged log: loop verify"
        return fail("bug", f"{type(error).__name__}: {error}", hint, 1, as_json)
    return code if isinstance(code, int) else 0


def fail(code: str, text: str, hint: str, exit_code: int, as_json: bool) -> int:
    """Say an error, as one JSON object on stdout or as a message with its mend on stderr; the exit code."""
    from loop.output import clean, print_json

    if as_json:
        print_json({"schema": "loop.error/1", "error": {"code": code, "message": text, "hint": hint}})
    else:
        lines = text.splitlines() or [""]
        print(f"loop: {clean(lines[0])}", *(f"  {clean(line)}" for line in lines[1:]), sep="\n", file=sys.stderr)
        if hint:
            print(f"  → {clean(hint)}", file=sys.stderr)
    return exit_code


def _drop_output() -> None:
    """What is still to be written goes nowhere, and the interpreter's own flush at its end raises nothing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def places_apart(args: list[str]) -> tuple[list[str], list[str]]:
    """(`-C DIR` and `--config FILE`, the rest), wherever they stand before a `--`; `replay` has its own --config."""
    end = args.index("--") if "--" in args else len(args)
    places: list[str] = []
    others: list[str] = []
    index = 0
    while index < end:
        own = "replay" in others  # its --config is another config to decide under
        if args[index] in (("-C",) if own else ("-C", "--config")) and index + 1 < end:
            places += args[index : index + 2]
            index += 2
            continue
        (places if args[index].startswith("--config=") and not own else others).append(args[index])
        index += 1
    return places, others + args[end:]


def _debug() -> None:
    if os.environ.get("LOOP_DEBUG"):
        import traceback

        traceback.print_exc()
