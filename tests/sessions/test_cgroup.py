"""The control group of a session, where one can be made: what left every other sign behind is still found in it."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loop.sessions import cgroup, proc

if TYPE_CHECKING:
    from conftest import House, Session

# Clears its environment, closes every inherited file and leaves its process group and its session.
ESCAPEE = """python3 - <<'END'
import os, time
if os.fork() == 0:
    os.setsid()
    os.closerange(0, 256)
    os.execve("/bin/sleep", ["sleep", "300"], {})
END
echo away > escaped; exec sleep 60"""


@pytest.fixture
def grouped(tmp_path: Path) -> None:
    """Skips where this user cannot make a control group."""
    probe = tmp_path / "probe"
    probe.mkdir()
    if cgroup.create(str(probe)) is None:
        pytest.skip("no control group can be made here")
    cgroup.remove(str(probe))
    assert list(probe.iterdir()) == []


def escaped(house: House) -> tuple[Session, int]:
    """A session whose shim and worker are dead, and the process that they left."""
    session = house.session(ESCAPEE).launch()
    house.wait_until((house.root / "escaped").exists)
    worker = session.started()["pid"]
    os.kill(session.shim, signal.SIGKILL)
    session.wait_for_shim()
    os.kill(worker, signal.SIGKILL)
    house.wait_until(lambda: not proc.alive(worker, session.started()["start"], proc.boot_id()))
    (left,) = cgroup.members(str(session.dir))
    assert Path(f"/proc/{left}/environ").read_bytes() == b""
    assert house.is_free(), "it does not hold the lock"
    return session, left


@pytest.mark.usefixtures("grouped")
def test_a_process_without_marker_lock_or_shim_is_found_in_the_group(house: House) -> None:
    session, left = escaped(house)
    assert session.marked() == [left]
    assert proc.end_all(session.marked, 1.0) == 1
    group = os.readlink(session.dir / "cgroup")
    cgroup.remove(str(session.dir))
    assert not os.path.lexists(session.dir / "cgroup")
    assert not os.path.exists(group)


@pytest.mark.usefixtures("grouped")
def test_the_copy_of_a_run_directory_names_nobody(house: House) -> None:
    session, left = escaped(house)
    copy = house.root / "copy" / session.name
    shutil.copytree(session.dir, copy, symlinks=True, ignore=shutil.ignore_patterns("*.sock"))
    assert proc.marked(str(copy)) == []
    assert proc.marked(str(session.dir)) == [left]
    proc.end_all(session.marked, 0.0)
    cgroup.remove(str(session.dir))


@pytest.mark.usefixtures("grouped")
def test_worker_and_hooks_are_in_the_group_the_shim_is_not_and_nothing_stays(house: House) -> None:
    where = "cat /proc/self/cgroup > {}"
    hooks = {name: ["/bin/sh", "-c", where.format(name)] for name in ("before", "after")}
    session = house.session(where.format("worker") + "; cat /proc/$PPID/cgroup > shim", **hooks).run()
    places = {name: (house.root / name).read_text() for name in ("before", "worker", "after", "shim")}
    assert {name for name, text in places.items() if f"loop-{session.name}." in text} == {"before", "worker", "after"}
    assert "cgroup" not in session.seen_at_the_end()["files"]


def test_without_control_groups_a_session_runs_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = house.root / "run"
    run_dir.mkdir()

    def none() -> str:
        raise ValueError("no cgroup v2 is mounted")

    monkeypatch.setattr(cgroup, "_own", none)
    assert cgroup.create(str(run_dir)) is None
    monkeypatch.setattr(cgroup, "_own", lambda: str(house.root / "gone"))
    assert cgroup.create(str(run_dir)) is None
    assert list(run_dir.iterdir()) == []
    assert cgroup.members(str(run_dir)) == []
    cgroup.remove(str(run_dir))
