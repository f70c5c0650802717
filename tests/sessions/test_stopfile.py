"""`STOP`: whatever is there under that name counts, and nothing of it can hold up who looks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from loop.sessions import stopfile


def listening(path: Path) -> None:
    held = socket.socket(socket.AF_UNIX)
    os.chdir(path.parent)  # the name of a socket is short
    held.bind(path.name)
    held.close()


def test_where_there_is_none_nothing_is_asked_for(tmp_path: Path) -> None:
    assert stopfile.read(str(tmp_path)) is None
    assert stopfile.problem(str(tmp_path)) is None
    assert stopfile.read(str(tmp_path / "no such directory")) is None


@pytest.mark.parametrize(
    ("content", "kill"),
    [
        (b"", False),
        (b"kill", True),
        (b"  KILL\r\n", True),
        (b"kill it", False),
        (b"please stop\n", False),
        (b"\xff\x00kill", False),
        (b"kill" + b" " * 100_000, True),
    ],
)
def test_only_the_one_word_takes_the_grace_away(tmp_path: Path, content: bytes, kill: bool) -> None:
    (tmp_path / "STOP").write_bytes(content)
    asked = stopfile.read(str(tmp_path))
    assert asked == {"schema": "loop.stop/1", "kill": kill, "by": "STOP"}


@pytest.mark.timeout(5)
@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("/dev/zero"),
        listening,
    ],
    ids=["directory", "fifo", "dangling", "circle", "endless", "socket"],
)
def test_what_cannot_be_read_stops_with_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "STOP")
    asked = stopfile.read(str(tmp_path))
    assert asked is not None
    assert not asked["kill"]
    assert stopfile.problem(str(tmp_path)) == "STOP is there: every session is stopped, none is started"
