"""A disk that fills up: one clear error, nothing half written, and all goes on once there is space.

Two ways that need no rights fill it here: a limit on the size of files, at which the kernel refuses the write as it
does on a full disk, and, where the kernel lets anybody mount one, a file system of one megabyte (ENOSPC itself).
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from events.store import EventLog
from tests.audit.stores import failing, report_of
from tests.e2e.e2e_project import LOOP, ROOT, Project

# Appends until it is refused, says what was acknowledged, gets space, appends again.
APPENDER = """
import os, resource, signal, sys
from pathlib import Path
from events.catalog import LoopPaused
from events.errors import StoreError
from events.store import EventLog
path, limit = Path(sys.argv[1]), int(sys.argv[2])
log = EventLog.open(path)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
ballast = path.parent / "ballast"
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
else:
    ballast.write_bytes(bytes(200_000))
acknowledged = 1
try:
    while True:
        with log.transaction() as transaction:
            for _ in range(3):
                last = transaction.append(LoopPaused(reason="x" * 30_000), actor="test").position
        acknowledged = last
except StoreError as error:
    print("refused", acknowledged, bool(error.hint), error.message)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
else:
    ballast.unlink()
with log.transaction() as transaction:
    print("again", transaction.append(LoopPaused(), actor="test").position)
"""


def filled(path: Path, limit: int, *before: str) -> int:
    """Run APPENDER, check what it says, and return the last position that was acknowledged."""
    done = subprocess.run(
        [*before, sys.executable, "-c", APPENDER, str(path), str(limit)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    refused, again = done.stdout.splitlines()
    word, acknowledged, hint, *message = refused.split(" ")
    assert (word, hint) == ("refused", "True")
    assert str(path) in " ".join(message)
    assert int(acknowledged) % 3 == 1, "a transaction came through in part"
    assert again == f"again {int(acknowledged) + 1}"
    return int(acknowledged)


@pytest.mark.parametrize("limit", [150_000, 400_000, 1_000_000])
def test_a_full_disk_is_one_clear_error_and_nothing_half_written(tmp_path: Path, limit: int) -> None:
    path = tmp_path / ".loop" / "loop.db"
    acknowledged = filled(path, limit)
    log = EventLog.read(path)
    assert [event.position for event in log.events()] == list(range(1, acknowledged + 2))
    log.close()
    assert failing(report_of(path)) == {}


def test_a_file_system_without_space_is_one_clear_error_and_nothing_half_written(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = f'mount -t tmpfs -o size=1m small {place} && exec "$@"'
    small = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*small, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this kernel lets nobody mount a file system of his own")
    assert filled(place / ".loop" / "loop.db", 0, *small) > 1


def test_a_pass_on_a_full_disk_starts_nothing_and_the_next_one_does(project: Project) -> None:
    project.configure("code", slots=1, env={"SAY": '{"outcome": "noop"}', "NAP": "0"})
    project.loop("pause")
    project.loop("resume")
    limited = textwrap.dedent(f"""
        import os, resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = os.path.getsize({str(project.db)!r} + "-wal") if os.path.exists({str(project.db)!r} + "-wal") else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9_000, resource.RLIM_INFINITY))
        os.execv(sys.argv[1], sys.argv[1:])
    """)
    before = project.events()
    done = subprocess.run(
        [sys.executable, "-c", limited, *LOOP, "tick"],
        cwd=project.directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(project.db) in done.stderr
    assert "space" in done.stderr
    assert project.starts() == []
    assert project.events()[: len(before)] == before
    project.loop("tick")
    project.settle()
    assert len(project.starts()) == 1
    project.assert_sound()
    project.json("verify")


def test_the_limit_on_file_size_is_the_kernels_own(tmp_path: Path) -> None:
    """The premise of two tests above: a write past the limit fails, and nobody is killed."""
    script = """
        import resource, signal, os
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        fd = os.open("file", os.O_CREAT | os.O_WRONLY)
        os.write(fd, b"x" * 10)
        try:
            os.write(fd, b"x")
        except OSError as error:
            print(error.errno)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(errno.EFBIG)
