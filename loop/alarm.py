"""The one notice that needs no store: that the store takes no word, so that nothing is started.

What was told cannot be recorded then. The time of the file `store-told` in the state directory says when it may be told
again; where that cannot be kept either, as on a read-only file system, each pass tells it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from events.clock import SystemClock
from events.envelope import to_text
from events.errors import ConfigError, StoreBusy, StoreError
from loop.config_file import load
from loop.controller import kernel_lock
from loop.home import Home
from loop.notices import HOUR, RETRY, SCHEMA, execute
from loop.output import message

MARK = "store-told"
BROKEN = (StoreError, StoreBusy)  # who holds the write lock for longer than anybody waits is stuck


@contextlib.contextmanager
def alarmed(home: Home, environ: Mapping[str, str]) -> Iterator[None]:
    """Tell of a store that ends the block, and raise its error on."""
    try:
        yield
    except BROKEN as error:
        alarm(home, environ, error, SystemClock().now())
        raise


def alarm(home: Home, environ: Mapping[str, str], error: StoreError | StoreBusy, now: int, quiet_until: int = 0) -> int:
    """Run `loop.notify` of the config file, unless that was done within the hour; raises nothing.

    `now` and the result are microseconds: until when there is nothing more to tell. Who cannot rely on the state
    directory gives it back with the next call.
    """
    if _is_quiet(now, quiet_until):
        return quiet_until
    mark = home.state / MARK
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            until = os.stat(mark).st_mtime_ns // 1000
            if _is_quiet(now, until):
                return until
        with contextlib.suppress(OSError):
            if home.state.is_dir() and not held.enter_context(kernel_lock(mark)):
                return now  # another is telling it
        until = now + (HOUR if _tell(home, environ, error, now) else RETRY)
        with contextlib.suppress(OSError):
            os.utime(mark, ns=(until * 1000, until * 1000))
        return until


def _is_quiet(now: int, until: int) -> bool:
    return now < until <= now + HOUR  # a clock that was set back must not silence it for longer


def _tell(home: Home, environ: Mapping[str, str], error: StoreError | StoreBusy, now: int) -> bool:
    """Whether it is told, or nobody wants it told; a failure is said on stderr, as it cannot be recorded."""
    try:
        command = load(home.config).loop.notify
    except ConfigError:
        return True
    if command is None:
        return True
    body = {
        "schema": SCHEMA,
        "kind": "pass_failed",
        "subject": "store",
        "text": f"{error.message}: nothing is started",
        "command": "loop doctor",
        "at": to_text(now),
        "position": None,
        "times": 1,
        "store": None,
    }
    result = execute(list(command), home, environ, body)
    if not result.ok:
        message(f"the notice of it failed: {result.text}")
    return result.ok
