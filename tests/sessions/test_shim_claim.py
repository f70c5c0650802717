"""One run directory, one claimant: shims that race, a reconciler that voids, drafts that a crash left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from loop.sessions import proc, rundir, start

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import House, Session


def ready(session: Session) -> list[str]:
    """The command line of a shim for `session`, whose run directory is made."""
    session.dir.mkdir(parents=True)
    rundir.write_json(str(session.dir), "spec.json", session.spec)
    return [sys.executable, "-I", "-S", start.SHIM, str(session.dir)]


def test_of_many_shims_for_one_directory_one_acts(house: House) -> None:
    session = house.session(f"echo ran >> {house.root}/count")
    argv = ready(session)
    shims = [subprocess.Popen(argv, stdin=subprocess.PIPE) for _ in range(6)]
    for shim in shims:
        shim.communicate(b"{}")
    assert [shim.returncode for shim in shims] == [0] * 6
    session.wait()
    assert (house.root / "count").read_text() == "ran\n"
    assert len(house.witness()) == 2
    claim = rundir.read_claim(str(session.dir))
    assert claim is not None
    assert claim["pid"] in [shim.pid for shim in shims]
    assert claim["by"] == "shim"


def test_a_late_shim_finds_its_request_voided(house: House) -> None:
    session = house.session("echo never")
    argv = ready(session)
    assert rundir.claim(str(session.dir), by="reconciler")
    before = sorted(os.listdir(session.dir))
    done = subprocess.run(argv, input=b"{}", capture_output=True)
    assert done.returncode == 0
    assert sorted(os.listdir(session.dir)) == before
    assert house.witness() == []
    with pytest.raises(start.LaunchError, match="claimed"):
        session.launch()


def test_a_reconciler_comes_too_late(house: House) -> None:
    session = house.session("true").run()
    assert not rundir.claim(str(session.dir), by="reconciler")
    claim = rundir.read_claim(str(session.dir))
    assert claim is not None
    assert (claim["by"], claim["pid"]) == ("shim", session.shim)


def test_a_claim_makes_a_missing_directory(tmp_path: Path) -> None:
    run_dir = tmp_path / "state" / "runs" / "s1"
    assert rundir.claim(str(run_dir), by="reconciler")
    assert not rundir.claim(str(run_dir), by="reconciler")
    found = rundir.read_claim(str(run_dir))
    assert found is not None
    assert (found["pid"], found["start"], found["boot"]) == (os.getpid(), proc.start_time(os.getpid()), proc.boot_id())
    assert os.listdir(run_dir) == ["claim"]
    assert run_dir.stat().st_mode & 0o777 == 0o700


def test_a_linked_draft_that_a_crash_left_is_not_written_through(tmp_path: Path) -> None:
    assert rundir.claim(str(tmp_path), by="shim")
    os.link(tmp_path / "claim", tmp_path / f"claim.{os.getpid()}")
    before = (tmp_path / "claim").read_bytes()
    assert not rundir.claim(str(tmp_path), by="reconciler")
    assert (tmp_path / "claim").read_bytes() == before


def test_a_directory_without_a_claim_may_be_used_again(house: House) -> None:
    session = house.session("echo once")
    ready(session)
    session.run()
    assert session.text("out.log") == "once\n"


def test_a_spec_is_never_seen_half(tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        for number in range(300):
            rundir.request_stop(str(tmp_path), kill=bool(number % 2), by="x" * number * 100)
        stop.set()

    with ThreadPoolExecutor() as pool:
        written = pool.submit(write)
        while not stop.is_set():
            rundir.read_stop(str(tmp_path))
        written.result()
    assert os.listdir(tmp_path) == ["stop.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema": "loop.exit/2"}', '{"schema": "loop.exit/1"}', "[" * 99999]
)
def test_a_damaged_file_is_an_error_and_no_guess(tmp_path: Path, text: str) -> None:
    (tmp_path / "exit.json").write_text(text)
    with pytest.raises(rundir.RunDirError, match=r"exit\.json"):
        rundir.read_exit(str(tmp_path))


def test_a_note_cut_short_is_left_out(tmp_path: Path) -> None:
    rundir.append_note(str(tmp_path), {"type": "warned", "why": "silence", "at": proc.wall_now(), "seconds": 3.0})
    with open(tmp_path / "notes.jsonl", "a") as file:
        file.write(json.dumps({"type": "stopping"})[:9])
    assert [note["why"] for note in rundir.read_notes(str(tmp_path))] == ["silence"]
    assert rundir.read_notes(str(tmp_path / "none")) == []


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a\0"])
def test_an_id_that_is_no_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        rundir.path_of("/state", name)
