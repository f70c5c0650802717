"""The control socket: who acts for a session is asked, and answered, before anything is signalled."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from loop.sessions import handshake, rundir

if TYPE_CHECKING:
    from conftest import House


def test_the_shim_says_who_it_is(house: House) -> None:
    session = house.session("sleep 60").launch()
    claim = session.started() and rundir.read_claim(str(session.dir))
    heard = handshake.ask(str(session.dir))
    assert heard.listening
    assert heard.who is not None
    assert (heard.who["session"], heard.who["token"]) == (session.name, session.spec["token"])
    assert claim is not None
    assert handshake.is_of(heard.who, claim)
    assert not handshake.is_of(heard.who, {**claim, "start": claim["start"] + 1}), "a reused pid is somebody else"
    assert not handshake.is_of(heard.who, {**claim, "boot": "another"})


def test_a_run_directory_longer_than_an_address(house: House) -> None:
    house.state = house.root / ("d" * 100) / ("e" * 100)
    session = house.session("sleep 60").launch()
    session.started()
    assert len(str(session.dir)) > 200
    heard = handshake.ask(str(session.dir))
    assert heard.who is not None
    assert heard.who["pid"] == session.shim


def test_a_stop_takes_effect_at_once_and_not_at_the_next_look(house: House) -> None:
    session = house.session("echo on; sleep 60").launch()
    session.wait_for("out.log")
    time.sleep(2.5)  # by now the shim looks once a second
    begun = time.monotonic()
    handshake.stop(str(session.dir), kill=True, by="operator")
    session.wait_for("notes.jsonl")
    taken = time.monotonic() - begun
    session.wait()
    assert session.exit["reason"] == "cancelled"
    assert taken < 0.4


def test_a_stop_works_without_the_socket(house: House) -> None:
    session = house.session("echo on; sleep 60").launch()
    session.wait_for("out.log")
    (session.dir / handshake.NAME).unlink()
    assert handshake.stop(str(session.dir), kill=True, by="operator") == handshake.NOBODY
    session.wait(5)
    assert session.exit["reason"] == "cancelled"


def test_a_filesystem_without_sockets_costs_nothing_but_time(house: House) -> None:
    session = house.session("echo ran")
    session.dir.mkdir(parents=True)
    (session.dir / handshake.NAME).mkdir()  # the name is taken: it cannot listen
    session.run()
    assert session.text("out.log") == "ran\n"
    assert "control.sock failed" in session.text("shim.log")


def test_after_the_end_nobody_listens(house: House) -> None:
    session = house.session("true").run()
    session.wait_for_shim()
    assert handshake.ask(str(session.dir)) == handshake.NOBODY
    assert not (session.dir / handshake.NAME).exists()


def test_a_killed_shim_leaves_a_socket_on_which_nobody_listens(house: House) -> None:
    session = house.session("sleep 60").launch()
    session.started()
    os.kill(session.shim, signal.SIGKILL)
    session.wait_for_shim()
    assert (session.dir / handshake.NAME).exists()
    assert handshake.ask(str(session.dir)) == handshake.NOBODY
    assert not house.is_free(), "the worker lives on and holds the key"
    for pid in session.marked():
        os.kill(pid, signal.SIGKILL)
    house.wait_until(lambda: not session.marked())


def test_a_shim_that_does_not_answer_counts_as_alive(house: House) -> None:
    session = house.session("sleep 60").launch()
    session.started()
    os.kill(session.shim, signal.SIGSTOP)
    try:
        assert handshake.ask(str(session.dir), 0.2) == handshake.Heard(listening=True, who=None)
    finally:
        os.kill(session.shim, signal.SIGCONT)


def test_no_run_directory_no_listener(tmp_path: Path) -> None:
    assert handshake.ask(str(tmp_path / "none")) == handshake.NOBODY


@pytest.mark.parametrize("rounds", [50])
def test_many_askers_are_all_answered(house: House, rounds: int) -> None:
    session = house.session("sleep 60").launch()
    session.started()
    pids = {(heard.who or {"pid": None})["pid"] for heard in (handshake.ask(str(session.dir)) for _ in range(rounds))}
    assert pids == {session.shim}
