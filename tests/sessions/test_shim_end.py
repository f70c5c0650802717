"""Ways to end: deadlines, silence, stop requests, stragglers, floods, and a shim that is killed."""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loop.sessions import output, proc, rundir

if TYPE_CHECKING:
    from conftest import House

DAEMON = """
import os, sys, time
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
{}
open("daemon", "w").write(str(os.getpid()))
time.sleep(60)
"""
CLOSE_ALL = "os.closerange(0, 1000)"
FORGET = f"if 'again' not in sys.argv: os.execve({sys.executable!r}, ['x', __file__, 'again'], {{}})"
DEAF = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


# ------------------------------------------------------------------------------------------------- our kills


def test_a_deadline_lets_the_worker_clean_up(house: House) -> None:
    session = house.session("trap 'echo bye; exit 7' TERM; sleep 60 & wait", timeout=0.3, grace=5.0).run()
    assert (session.exit["reason"], session.exit["code"]) == ("timeout", 7)
    assert session.text("out.log") == "bye\n"
    assert session.notes == [("stopping", "timeout")]
    assert 0.3 <= session.exit["seconds"] < 3


def test_a_deadline_ends_a_worker_that_ignores_term(house: House) -> None:
    session = house.session(DEAF, timeout=0.3, grace=0.4).run()
    assert (session.exit["reason"], session.exit["signal"], session.exit["code"]) == ("timeout", 9, None)
    assert 0.7 <= session.exit["seconds"] < 3


def test_a_stopped_worker_is_ended_too(house: House) -> None:
    session = house.session("kill -STOP $$", timeout=0.2, grace=0.2).run()
    assert (session.exit["reason"], session.exit["signal"]) == ("timeout", 9)


def test_silence_kills_after_a_warning_at_half_the_time(house: House) -> None:
    session = house.session("echo on; sleep 60", silence=0.6, kill_on_silence=True).run()
    assert session.exit["reason"] == "silence"
    assert session.notes == [("warned", "silence"), ("stopping", "silence")]
    assert 0.6 <= session.exit["seconds"] < 3


def test_silence_only_warns_unless_told_otherwise(house: House) -> None:
    session = house.session("sleep 0.8", silence=0.3).run()
    assert (session.exit["reason"], session.exit["code"]) == (None, 0)
    assert session.notes == [("warned", "silence")], "once a silent spell"


@pytest.mark.parametrize("script", ["for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; echo .; done", "busy"])
def test_output_and_cpu_time_are_no_silence(house: House, script: str) -> None:
    busy = "import time; end = time.time() + 1\nwhile time.time() < end: pass"
    argv = ["/bin/sh", "-c", f"'{sys.executable}' -c '{busy}'; exit 0"] if script == "busy" else script
    session = house.session(argv, silence=0.5, kill_on_silence=True).run()
    assert (session.exit["reason"], session.exit["code"]) == (None, 0)
    assert session.notes == [] if script != "busy" else True


def test_a_stop_request(house: House) -> None:
    session = house.session("trap 'exit 5' TERM; echo on; sleep 60 & wait").launch()
    session.wait_for("out.log")
    rundir.request_stop(str(session.dir), kill=False, by="operator")
    session.wait()
    assert (session.exit["reason"], session.exit["code"]) == ("cancelled", 5)
    (note,) = rundir.read_notes(str(session.dir))
    assert (note["type"], note["why"], note["by"], note["kill"]) == ("stopping", "cancelled", "operator", False)


def test_a_stop_request_without_grace_also_while_the_grace_runs(house: House) -> None:
    session = house.session(DEAF, grace=60.0).launch()
    session.wait_for("out.log")
    rundir.request_stop(str(session.dir), kill=False, by="operator")
    session.wait_for("notes.jsonl")
    assert not (session.dir / "exit.json").exists()
    rundir.request_stop(str(session.dir), kill=True, by="operator")
    session.wait(5)
    assert (session.exit["reason"], session.exit["signal"]) == ("cancelled", 9)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_shim_is_a_stop_request(house: House, number: signal.Signals) -> None:
    session = house.session("sleep 60", after=["/bin/sh", "-c", "echo after"]).launch()
    session.started()
    os.kill(session.shim, number)
    session.wait(5)
    assert (session.exit["reason"], session.exit["signal"]) == ("cancelled", 15)
    assert session.text("after.log") == "after\n", "what was obeyed once does not cancel the clean-up"
    assert session.notes == [("stopping", "cancelled")]


def test_a_stop_request_before_the_worker(house: House) -> None:
    session = house.session("echo never")
    session.dir.mkdir(parents=True)
    rundir.request_stop(str(session.dir), kill=False, by="operator")
    session.run()
    assert (session.exit["stage"], session.exit["reason"], session.error()) == ("spawn", "cancelled", "cancelled")
    assert session.notes == []
    during = house.session("echo never", before=["/bin/sleep", "60"]).launch()
    during.wait_for("claim")
    rundir.request_stop(str(during.dir), kill=True, by="operator")
    during.wait(5)
    assert during.exit["reason"] == "cancelled"
    assert during.exit["stage"] in ("before", "spawn")


# ------------------------------------------------------------------------------------------------ stragglers


@pytest.mark.parametrize("trick", ["", CLOSE_ALL, "signal.signal(15, signal.SIG_IGN)", FORGET])
def test_a_daemon_left_behind_is_ended_before_the_key_is_free(house: House, trick: str) -> None:
    (house.root / "daemon.py").write_text("import signal" + DAEMON.format(trick))
    session = house.session(f"{sys.executable} daemon.py; while ! test -s daemon; do sleep 0.01; done").run()
    pid = int((house.root / "daemon").read_text())
    assert not os.path.exists(f"/proc/{pid}")
    assert session.exit["code"] == 0
    assert session.end["stragglers"] == 1
    assert session.seen_at_the_end()["free"] is True


def test_a_daemon_of_the_before_hook_lives_as_long_as_the_session(house: House) -> None:
    (house.root / "daemon.py").write_text(DAEMON.format(""))
    hook = f"{sys.executable} daemon.py; while ! test -s daemon; do sleep 0.01; done"
    session = house.session("kill -0 $(cat daemon)", before=["/bin/sh", "-c", hook]).run()
    assert session.exit["code"] == 0
    assert session.end["stragglers"] == 1
    assert not os.path.exists(f"/proc/{(house.root / 'daemon').read_text()}")


def test_a_worker_that_forks_on_and_on_is_ended(house: House) -> None:
    hydra = "import os, sys, time\nwhile True:\n  time.sleep(.002)\n  if os.fork(): os._exit(0)\n  os.setsid()"
    session = house.session([sys.executable, "-c", hydra]).run()
    assert session.exit["code"] == 0
    assert session.end["stragglers"] >= 1
    assert session.marked() == []


def test_orphans_that_end_by_themselves_are_no_stragglers(house: House) -> None:
    session = house.session("(sleep 0.05 &) ; (sleep 0.1 &) ; sleep 0.4").run()
    assert session.end["stragglers"] == 0


# --------------------------------------------------------------------------------------------------- output


def test_a_flood_is_bounded_on_disk_and_keeps_its_offsets(house: House) -> None:
    flood = "echo first; head -c 300000000 /dev/zero | tr '\\0' x; echo; echo last"
    session = house.session(flood).run()
    log = session.dir / "out.log"
    size = log.stat().st_size
    assert session.exit["out_bytes"] == 300_000_012
    if size != 300_000_012:
        pytest.skip("this filesystem cannot punch holes; the hard cap has a test of its own")
    assert log.stat().st_blocks * 512 <= output.HEAD + output.TAIL + 2 * output.BLOCK
    assert session.exit["truncated"] is True
    assert session.notes == [("warned", "output_truncated")]
    with open(log, "rb") as file:
        assert file.read(7) == b"first\nx"
        file.seek(output.HEAD - 1)
        assert file.read(2) == b"x\0"
        file.seek(size - output.TAIL)
        tail = file.read()
    assert tail == b"x" * (output.TAIL - 6) + b"\nlast\n"


def test_without_holes_the_log_has_a_hard_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "punch_hole", lambda fd, offset, length: False)
    log = output.BoundedLog(str(tmp_path / "out.log"))
    writer = os.open(tmp_path / "out.log", os.O_WRONLY | os.O_APPEND)  # the worker's own descriptor
    written, chunk = 0, b"." * 1023 + b"\n"
    os.write(writer, b"first\n")
    for _ in range(100_000):
        written += os.write(writer, chunk)
        if written % (1 << 20) == 0:
            log.tend()
            assert (tmp_path / "out.log").stat().st_size <= output.HEAD + output.TAIL + 2 * output.BLOCK
    os.write(writer, b"last\n")
    log.tend()
    text = (tmp_path / "out.log").read_bytes()
    assert text.startswith(b"first\n")
    assert text.endswith(b".\nlast\n")
    assert b" bytes left out]\n" in text
    assert log.truncated
    assert abs(log.size - written) < 1000, "what was written is told, not what is kept"
    os.close(writer)
    log.close()


def test_output_is_the_worker_s_own_file_and_survives_the_shim(house: House) -> None:
    session = house.session("echo one; while ! test -e go; do sleep 0.02; done; echo two; sleep 60").launch()
    session.wait_for("out.log")
    worker = session.started()
    os.kill(session.shim, signal.SIGKILL)
    (house.root / "go").touch()
    house.wait_until(lambda: session.text("out.log") == "one\ntwo\n")
    assert not proc.alive(worker["shim_pid"], worker["shim_start"], worker["boot"])
    assert proc.alive(worker["pid"], worker["start"], worker["boot"])
    assert not house.is_free(), "the worker itself holds the key"
    assert proc.end_all(session.marked, 0.5) >= 1
    assert house.is_free()
    assert not (session.dir / "exit.json").exists()


# ---------------------------------------------------------------------------------------------- bad weather


def test_a_run_directory_that_vanishes_keeps_no_key(house: House) -> None:
    session = house.session("mv $LOOP_RUN_DIR gone; sleep 0.2; exit 3").launch()
    session.wait_for_shim()
    assert [line[0] for line in house.witness()] == ["A", "R"]
    assert house.is_free()
    assert "exit.json failed" in (house.root / "gone" / "shim.log").read_text()


def test_a_full_disk_keeps_neither_worker_nor_key(house: House) -> None:
    session = house.session("while ! test -e go; do sleep 0.02; done; setsid sleep 60 & exit 3").launch()
    session.started()
    # From here on every write of the shim to a file fails, as on a full disk.
    resource.prlimit(session.shim, resource.RLIMIT_FSIZE, (0, 0))
    (house.root / "go").touch()
    session.wait_for_shim()
    assert session.marked() == []
    assert house.is_free()
    assert [line[0] for line in house.witness()] == ["A"]
    assert not (session.dir / "exit.json").exists()


def test_a_note_that_cannot_be_written_does_not_save_the_worker(house: House) -> None:
    session = house.session(DEAF, timeout=0.6, grace=0.2).launch()
    session.started()
    resource.prlimit(session.shim, resource.RLIMIT_FSIZE, (0, 0))
    session.wait_for_shim()
    assert session.marked() == []
    assert house.is_free()


def test_a_witness_that_cannot_be_written_starts_nothing(house: House) -> None:
    if os.geteuid() == 0:
        pytest.skip("root writes everywhere")
    house.key("code").chmod(0o400)
    session = house.session("echo never").run()
    assert session.error() == "os_error"
    assert house.is_free()
