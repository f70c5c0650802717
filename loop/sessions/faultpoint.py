"""Named points between two steps, at which a crash test kills the process. Standard library only.

`FAULTPOINT=NAME:FILE` in the environment arms one: the first process that comes there and can remove FILE dies by
SIGKILL, as it would of a power cut or the OOM killer. The variable is not one of `LOOP_*`, which no child inherits:
the point may lie in a shim or in the pass after a session's end. Unset, a point costs a comparison.

A point is a call with a name of its own, in quotes; tests/crash finds and runs them all.
"""

from __future__ import annotations

import os
import signal

_NAME, _, _FILE = os.environ.get("FAULTPOINT", "").partition(":")


def faultpoint(name: str) -> None:
    """Die here, if this is the point that is armed."""
    if name != _NAME:
        return
    try:
        os.unlink(_FILE)
    except OSError:
        return  # somebody has died of it already
    os.kill(os.getpid(), signal.SIGKILL)
