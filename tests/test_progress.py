"""The bar of long work: on a terminal, once it takes long, and nothing of it stays; elsewhere nothing at all."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from tests.audit.stores import ROOT

PROGRAM = """
import sys
from loop import progress
progress.PATIENCE = float(sys.argv[1])
with progress.progress("searching") as hear:
    if hear is None:
        print("nobody hears")
    else:
        hear(250, 1000)
        hear(1000, 1000)
"""


def shown(patience: float) -> str:
    """What stands on a terminal that is the program's stderr."""
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(patience)], stderr=slave, env=environ, timeout=60)
    os.close(slave)
    raw = b""
    try:
        while part := os.read(master, 65_536):
            raw += part
    except OSError:  # EIO: all has been read
        pass
    os.close(master)
    assert done.returncode == 0, raw
    return raw.decode()


def test_at_a_terminal_it_says_how_far_it_is_and_leaves_nothing_behind() -> None:
    text = shown(patience=-1)
    assert "searching" in text
    assert "1000/1000" in text
    assert text.endswith("\x1b[2K"), "the line is empty again"


def test_what_is_soon_over_shows_none() -> None:
    assert shown(patience=3_600) == ""


def test_elsewhere_it_is_silent() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "-1"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.stdout, done.stderr) == ("nobody hears\n", "")
