"""Commands of the user's config: filling their placeholders, and running one within bounds.

Selectors, gates and hooks are foreign programs. They may hang, flood, fork or not exist, and none of that may
hold up or fail a pass: whatever happens is a `CommandResult`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import signal as signals
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from events.errors import ConfigError

PLACEHOLDERS = frozenset({"category", "task", "session", "backend", "prompt", "run_dir", "resume"})
STDERR_LIMIT = 16 * 1024  # bytes kept of stderr: the last ones, where errors are
POLL = 0.02  # seconds between looks at the process while its pipes are open
DRAIN = 1.0  # seconds to read what an ended command left in its pipes; a child of it may write on for ever
READ = 64 * 1024

_KNOWN = re.compile(r"\{(" + "|".join(sorted(PLACEHOLDERS - {"prompt"})) + r")\}")
_TOKEN = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")

Failure = Literal["not_found", "not_executable", "timeout", "too_large", "os_error"]


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command went. `code` is its exit code, `signal` what ended it instead; both None if it never ran.

    `failure` is None when it ran to its end, whatever its exit code; `text` says in one line what went wrong,
    and is empty for exit code 0. `seconds` is the time it took; `stderr` the last 16 KiB.
    """

    argv: tuple[str, ...]
    code: int | None
    signal: int | None
    stdout: bytes
    stderr: bytes
    seconds: float
    failure: Failure | None
    text: str

    @property
    def ok(self) -> bool:
        return self.failure is None and self.code == 0


def placeholder_problem(template: str, allowed: frozenset[str] = PLACEHOLDERS) -> str | None:
    """What is wrong with the placeholders of one string, or None. `{{` and `}}` are literal braces."""
    for token in _TOKEN.findall(template):
        if token in ("{{", "}}"):
            continue
        if len(token) == 1:
            return f"stray {token} in {template[:80]!r}; a literal brace is written {token * 2}"
        if token[1:-1] not in allowed:
            known = " ".join(f"{{{name}}}" for name in sorted(allowed))
            return f"unknown placeholder {token[:40]} (known: {known}); a literal brace is written {{{{"
    return None


def render(template: str, values: Mapping[str, str]) -> str:
    """One string with its placeholders filled, in one pass: a value that holds braces is not filled again.

    A known placeholder without a value is an empty string. Raises ConfigError for an unknown one.
    """
    if problem := placeholder_problem(template, PLACEHOLDERS | values.keys()):
        raise ConfigError(problem, "mend the template in loop.toml")

    def fill(match: re.Match[str]) -> str:
        token = match[0]
        return token[0] if token in ("{{", "}}") else values.get(token[1:-1], "")

    return _TOKEN.sub(fill, template)


def literal(text: str) -> str:
    """A template that renders to exactly `text`."""
    return text.replace("{", "{{").replace("}", "}}")


def render_loosely(text: str, values: Mapping[str, str]) -> str:
    """A prompt file with its known placeholders filled, in one pass. All other braces stay: prose is full of them."""
    return _KNOWN.sub(lambda match: values.get(match[1], ""), text)


def render_argv(template: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """An argv with its placeholders filled; every word stays one word, whatever a value holds. Raises ConfigError."""
    return [render(word, values) for word in template]


def run_bounded(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout: float,
    limit_bytes: int,
    stdin: bytes = b"",
    extra_env: Mapping[str, str] | None = None,
    over: threading.Event | None = None,
) -> CommandResult:
    """Run `argv` in its own session and process group, never through a shell, and never raise for what it does.

    `env` loses its `LOOP_*` variables; `extra_env` is added after that. After `timeout` seconds, once `over` is set, or
    when stdout passes `limit_bytes`, the whole group is killed. The result comes when the command itself has ended: a
    child that it left behind and that holds its pipes open is not waited for but killed with the group.
    """
    command = tuple(argv)
    started = time.monotonic()
    if not os.path.isdir(cwd):
        return _not_run(command, "os_error", f"no working directory {cwd}")
    if not command or not command[0]:
        return _not_run(command, "not_found", "the command is empty")
    full_env = {name: value for name, value in env.items() if not name.startswith("LOOP_")} | dict(extra_env or {})
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=full_env,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            close_fds=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        return _not_run(command, *_why_not_started(command[0], cwd, error))
    pipes = _Pipes(process, stdin, limit_bytes)
    failure: Failure | None = None
    try:
        with _killed_as_a_group(process):
            failure = pipes.pump(started + timeout, over or threading.Event())
    finally:
        pipes.close()
    seconds = time.monotonic() - started
    returncode = process.returncode
    code, signal = (returncode, None) if returncode >= 0 else (None, -returncode)
    out, err = bytes(pipes.out[:limit_bytes]), bytes(pipes.err)
    text = _summary(command[0], code, signal, failure, err, timeout, limit_bytes)
    return CommandResult(command, code, signal, out, err, seconds, failure, text)


class _Pipes:
    """The three pipes of a running command, served without ever blocking on one of them."""

    def __init__(self, process: subprocess.Popen[bytes], stdin: bytes, limit: int) -> None:
        self.process, self.limit = process, limit
        self.out, self.err = bytearray(), bytearray()
        self.to_write = memoryview(stdin)
        self.selector = selectors.DefaultSelector()
        for stream, events in (
            (process.stdout, selectors.EVENT_READ),
            (process.stderr, selectors.EVENT_READ),
            (process.stdin, selectors.EVENT_WRITE),
        ):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self.selector.register(stream, events)

    def pump(self, deadline: float, over: threading.Event) -> Failure | None:
        """Serve the pipes until the command has ended (None), its time is up or `over`, or its stdout is too long."""
        ended = False
        while True:
            if not ended and has_ended(self.process):
                # What it wrote before its end is in the pipes by now.
                ended, deadline = True, time.monotonic() + DRAIN
            left = deadline - time.monotonic()
            for key, _ in self.selector.select(0 if ended else max(0.0, min(left, self._patience()))):
                self._serve(key.fileobj)
            if len(self.out) > self.limit:
                return "too_large"
            if ended and (left <= 0 or not self._more_to_read()):
                return None
            if left <= 0 or over.is_set():
                return "timeout"

    def _patience(self) -> float:
        # Once both outputs are closed the end is a moment away, and nothing will wake the selector.
        return POLL if self._open_outputs() else POLL / 10

    def _open_outputs(self) -> list[object]:
        return [key.fileobj for key in self.selector.get_map().values() if key.fileobj is not self.process.stdin]

    def _more_to_read(self) -> bool:
        return any(key.fileobj is not self.process.stdin for key, _ in self.selector.select(0))

    def _serve(self, stream: object) -> None:
        if stream is self.process.stdin:
            self._write()
            return
        source = self.process.stdout if stream is self.process.stdout else self.process.stderr
        assert source is not None
        try:
            chunk = os.read(source.fileno(), READ)
        except BlockingIOError:
            return
        if not chunk:
            self._drop(source)
        elif source is self.process.stdout:
            self.out += chunk
        else:
            self.err += chunk
            del self.err[:-STDERR_LIMIT]

    def _write(self) -> None:
        assert self.process.stdin is not None
        try:
            self.to_write = self.to_write[os.write(self.process.stdin.fileno(), self.to_write[:READ]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not care to read; that is no failure
            self.to_write = memoryview(b"")
        if not self.to_write:
            self._drop(self.process.stdin)

    def _drop(self, stream: IO[bytes]) -> None:
        self.selector.unregister(stream)
        stream.close()

    def close(self) -> None:
        self.selector.close()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child has ended, without reaping it where the platform can: so long its group id is not reused."""
    if hasattr(os, "waitid"):
        try:
            return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # reaped by someone else, as when SIGCHLD is ignored
            return True
    return process.poll() is not None


@contextlib.contextmanager
def _killed_as_a_group(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """At the end of the block, also by an exception or Ctrl-C, kill what is left of the group and reap the leader."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signals.SIGKILL)
        process.wait()


def _not_run(argv: tuple[str, ...], failure: Failure, text: str) -> CommandResult:
    return CommandResult(argv, None, None, b"", b"", 0.0, failure, text)


def _why_not_started(program: str, cwd: Path, error: OSError | ValueError) -> tuple[Failure, str]:
    if isinstance(error, FileNotFoundError):
        if "/" in program and (cwd / program).exists():
            return "not_found", f"{program} is there, but the interpreter its #! line names is not"
        where = f"in {cwd}" if "/" in program else "on PATH"
        return "not_found", f"no program {program} {where}"
    if isinstance(error, PermissionError | NotADirectoryError):
        return "not_executable", f"{program} is not executable; chmod +x may be missing"
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return "not_executable", f"{program} has no #! line and is no program"
    return "os_error", f"{program} could not be started: {error}"


def _summary(
    program: str,
    code: int | None,
    signal: int | None,
    failure: Failure | None,
    stderr: bytes,
    timeout: float,
    limit: int,
) -> str:
    if failure == "timeout":
        return f"{program} gave no end within {timeout:g} s and was killed"
    if failure == "too_large":
        return f"{program} printed more than {limit} bytes and was killed"
    if code == 0:
        return ""
    how = f"exit code {code}" if signal is None else f"ended by signal {signal}"
    lines = stderr.decode("utf-8", "replace").strip().splitlines()
    said = "".join(c for c in lines[-1] if c.isprintable())[:200] if lines else ""
    return f"{program}: {how}" + (f": {said}" if said else "")
