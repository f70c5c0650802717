"""Flipped bytes: `loop verify` says where, and every other command works or gives one clear error."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from events.errors import LoopError
from events.store import EventLog, Filter
from loop.commands import log as log_command
from loop.commands import status as status_command
from projections import snapshots
from projections.state import State
from tests.audit.stores import Rows, at, failing, report_of, snapshot, write
from tests.e2e.e2e_project import Project

PAGE = 4096


def flip(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes that lie in the file exactly once."""
    raw = path.read_bytes()
    assert len(old) == len(new)
    assert raw.count(old) == 1
    path.write_bytes(raw.replace(old, new))


def unless_refused(ask: Callable[[], Any]) -> Any:
    """What it gives; None where it refuses with an error of ours that says what to do."""
    try:
        return ask()
    except LoopError as error:
        if not error.hint:
            raise
        return None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"outcome":"', b'"outcome":\xff'),  # no text any more
        (b'"outcome":"', b'"outcome"_"'),  # no JSON any more
        (b'"outcome":"', b'"outcoma":"'),  # JSON that no fold knows
    ],
)
def test_a_flipped_byte_in_the_data_of_a_row_is_found_at_its_position(
    project: Project, sound: Rows, old: bytes, new: bytes
) -> None:
    project.configure("code")
    project.db.parent.mkdir()
    bad = at(sound, "session.ended", 300)
    data = sound[bad - 1].data.encode()
    write(project.db, sound)
    raw = project.db.read_bytes()
    project.db.write_bytes(raw.replace(data, data.replace(old, new, 1)))
    found = project.json("verify", code=4)
    firsts = {check["name"]: check["first_bad"] for check in found["checks"] if not check["ok"]}
    assert firsts["chain"] == firsts["readable"] == bad
    for command in (["status"], ["log"], ["sessions"], ["plan"], ["tick"]):
        done = project.loop(*command, code=None)
        assert done.returncode in (0, 1), command
        if done.returncode:
            told, mend = done.stderr.splitlines()
            assert str(bad) in told or "UTF-8" in told, command
            assert "loop verify" in mend, command
    assert project.starts() == [], "nothing is decided on what cannot be read"
    assert project.json("status", "--at", str(bad - 1))["as_of"]["position"] == bad - 1, "what lies before is whole"


def test_a_flipped_byte_in_a_hash_is_found_at_its_position(tmp_path: Path, sound: Rows) -> None:
    path = write(tmp_path / "loop.db", sound)
    hash = sound[399].hash
    flip(path, hash, bytes([hash[0] ^ 1]) + hash[1:])
    assert failing(report_of(path)) == {"chain": 400}


def test_a_flipped_byte_in_a_snapshot_is_found_and_nobody_believes_it(tmp_path: Path, sound: Rows) -> None:
    path = write(tmp_path / "loop.db", sound, keep_snapshots=(550,))
    piece = snapshot(sound, 550)[2000:2040]
    flip(path, piece, bytes(byte ^ 0x10 for byte in piece))
    assert failing(report_of(path)) == {"snapshots": 550}
    log = EventLog.read(path)
    found = log.load_snapshot(snapshots.version(), len(sound))
    assert found is not None
    with pytest.raises(zlib.error):
        zlib.decompress(found[1])
    assert snapshots.load(log).dump() == State().fold(log.events()).dump()


def test_a_damaged_page_ends_the_reading_there_and_what_lies_before_is_still_judged(
    tmp_path: Path, sound: Rows
) -> None:
    path = write(tmp_path / "loop.db", sound)
    raw = path.read_bytes()
    page = raw.index(sound[399].hash) // PAGE * PAGE
    path.write_bytes(raw[:page] + b"\xff" * 64 + raw[page + 64 :])
    report = report_of(path)
    found = failing(report)
    assert not report.ok
    assert "file" in found
    assert found["readable"] is not None
    assert 350 < found["readable"] <= 400
    assert report.position == found["readable"] - 1
    assert "chain" not in found, "what could be read is whole"


def test_a_flipped_byte_in_an_index_is_found(tmp_path: Path, sound: Rows) -> None:
    """No reading of the log in order comes upon it."""
    path = write(tmp_path / "loop.db", sound)
    raw = path.read_bytes()
    id = sound[299].id.encode()
    first, second = raw.index(id), raw.rindex(id)  # in its row and in the index of ids
    in_index = next(place for place in (first, second) if raw[place // PAGE * PAGE] in (2, 10))
    path.write_bytes(raw[:in_index] + b"~" + raw[in_index + 1 :])
    assert failing(report_of(path)) == {"file": None}


def test_whatever_page_is_damaged_verify_fails_and_no_command_crashes(
    tmp_path: Path, sound: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "loop.db", sound[:150], keep_snapshots=(140,))
    whole = path.read_bytes()
    refused = 0
    for page in range(len(whole) // PAGE):
        for offset in (0, PAGE // 2):
            place = page * PAGE + offset
            path.write_bytes(
                whole[:place] + bytes(byte ^ 0xA5 for byte in whole[place : place + 64]) + whole[place + 64 :]
            )
            report = unless_refused(lambda: report_of(path))
            if report is None:
                refused += 1
            else:
                used = any(whole[place : place + 64])
                assert not report.ok or not used or offset, (page, offset)
            unless_refused(lambda: status_command.run(path, at=None, as_json=True, watch=None, check=False))
            unless_refused(lambda: log_command.run(path, log_command.Query(), json_lines=True, follow=False))
            capsys.readouterr()
    assert refused < 10, "only where the schema itself is damaged is there nothing to report on"
    path.write_bytes(whole)
    assert report_of(path).ok
    assert len(EventLog.read(path).select(Filter())) == 150
