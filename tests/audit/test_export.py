"""`export`, `import --into`: the same state and a chain that verifies, whole, redacted or a range; damage is named."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from histories import history
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import Rows, failing, records, report_of, write

from events import audit
from events.errors import ImportFailed, StoreImported, UsageError
from events.store import EventLog, Head
from loop.audit.walk import Walk
from loop.commands.show import show
from loop.moment import resolve
from loop.transfer.exporting import lines, positions
from loop.transfer.format import LONGEST, event_line, header_line, read_header
from loop.transfer.importing import STORE, import_file
from projections import snapshots
from tests.conftest import FakeClock
from tests.e2e.e2e_project import LOOP, Project

MARKER = "SWORDFISH-7731"


def exported(path: Path, at: str | None = None, *, redact: bool = False) -> list[str]:
    log = EventLog.read(path)
    try:
        return list(lines(log, *positions(log, at), redact=redact))
    finally:
        log.close()


def taken_in(text: list[str], into: Path) -> Path:
    raw = "".join(line + "\n" for line in text).encode()
    import_file(io.BytesIO(raw), "file", into, FakeClock())
    return into / STORE


def stored(path: Path) -> Rows:
    log = EventLog.read(path)
    try:
        return [row for page in audit.pages(log, 0, 10**9) for row in page]
    finally:
        log.close()


def state_of(path: Path, upto: int | None = None) -> str:
    log = EventLog.read(path)
    try:
        return snapshots.load(log, upto).dump()
    finally:
        log.close()


@pytest.fixture
def path(tmp_path: Path, sound: Rows) -> Path:
    return write(tmp_path / "loop.db", sound)


# ── round trips ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 10_000), st.booleans(), st.data())
@settings(max_examples=20)
def test_every_history_comes_back_with_its_state_and_verifies(
    tmp_path_factory: pytest.TempPathFactory, seed: int, redact: bool, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("round")
    rows = records(history(seed, 200).events)
    path = write(directory / "loop.db", rows)
    whole = taken_in(exported(path, redact=redact), directory / "whole")
    assert state_of(whole) == state_of(path)
    assert failing(report_of(whole)) == {}
    if redact:
        assert [row._replace(private=None, salt=None) for row in rows] == stored(whole)
    else:
        assert stored(whole) == rows
    first = data.draw(st.integers(2, len(rows)))
    last = data.draw(st.integers(first, len(rows)))
    part = taken_in(exported(path, f"{first}:{last}", redact=redact), directory / "part")
    assert state_of(part) == state_of(path, last)
    report = report_of(part)
    assert failing(report) == {}, report
    assert "no genesis" in next(check.detail for check in report.checks if check.name == "chain")
    again = exported(whole, redact=redact)
    assert json.loads(again[0])["head"] == json.loads(exported(path)[0])["head"]
    assert again[1:] == exported(path, redact=redact)[1:]


def test_a_redacted_export_has_no_private_text_and_decides_again(tmp_path: Path, sound: Rows) -> None:
    from stores import chained

    rows = chained([row._replace(private=json.dumps({"text": MARKER}), salt=b"s" * 16) for row in sound])
    path = write(tmp_path / "loop.db", rows)
    assert MARKER in "".join(exported(path))
    text = exported(path, redact=True)
    assert MARKER not in "".join(text)
    report = report_of(taken_in(text, tmp_path / "into"))
    assert failing(report) == {}
    checks = {check.name: check for check in report.checks}
    assert checks["decisions"].checked > 10
    assert f"{len(rows)} private parts redacted" in checks["chain"].detail


def test_a_redacted_store_that_is_exported_again_stays_redacted(path: Path, tmp_path: Path) -> None:
    text = exported(path, redact=True)
    assert exported(taken_in(text, tmp_path / "into")) == text


def test_a_change_in_an_imported_range_or_redacted_log_is_found(path: Path, tmp_path: Path) -> None:
    from stores import tamper

    for name, at, redact in (("range", "400:600", False), ("redacted", None, True)):
        store = taken_in(exported(path, at, redact=redact), tmp_path / name)
        tamper(store, "UPDATE events SET actor = 'other' WHERE position = 500")
        assert failing(report_of(store)) == {"chain": 500}


def test_a_range_is_read_only_where_it_is(path: Path, tmp_path: Path) -> None:
    log = EventLog.read(taken_in(exported(path, "400:600"), tmp_path / "into"))
    assert resolve(log, "399").state(log).position == 399
    assert (log.head().position, log.store_id) == (600, "lworld")
    for text in ("398", "601", "2020-01-01T00:00:00Z"):
        with pytest.raises(UsageError):
            resolve(log, text)
    walk = Walk(log, 600, lambda position: None)
    walk.go("400")
    assert walk.look().record.position == 400
    assert not walk.step(-1)
    log.close()


def test_an_event_of_a_range_whose_cause_lies_before_it_is_shown_all_the_same(
    path: Path, tmp_path: Path, sound: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in sound[300:] if row.cause is not None)
    store = taken_in(exported(path, f"{row.position}:{row.position + 50}"), tmp_path / "into")
    assert show(store, str(row.position), as_json_object=True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["causes"], shown["causes_truncated"]) == ([], True)
    assert show(store, str(row.position), as_json_object=False) == 0
    assert f"{row.cause} and what led to it" in capsys.readouterr().out
    with pytest.raises(UsageError) as refused:
        show(store, "1", as_json_object=True)
    assert refused.value.hint == f"it goes from {row.position} to {row.position + 50}"


def test_in_an_imported_store_now_is_its_last_event(path: Path, tmp_path: Path, sound: Rows) -> None:
    log = EventLog.read(taken_in(exported(path), tmp_path / "into"))
    moment = resolve(log, None, FakeClock(4_000_000_000_000_000))
    assert moment.at == sound[-1].at
    assert moment.since is not None
    assert moment.since < moment.now
    log.close()


# ── ranges ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_range_is_named_by_positions_times_or_its_open_ends(path: Path, sound: Rows) -> None:
    log, head = EventLog.read(path), len(sound)
    time = f"{sound[449].at}:{sound[499].at}"
    first = next(row.position for row in sound if row.at >= sound[449].at)
    last = [row.position for row in sound if row.at <= sound[499].at][-1]
    named = {"5:9": (5, 9), ":9": (1, 9), "9:": (9, head), ":": (1, head), time: (first, last)}
    assert {text: positions(log, text) for text in named} == named
    for text in ("9:5", "9", f"1:{head + 1}", "nobody:9"):
        with pytest.raises(UsageError):
            positions(log, text)
    log.close()


# ── damage ────────────────────────────────────────────────────────────────────────────────────────────────────────────

Change = Callable[[list[bytes]], list[bytes]]


def on_line(number: int, old: bytes, new: bytes) -> Change:
    def change(text: list[bytes]) -> list[bytes]:
        assert old in text[number - 1]
        return [*text[: number - 1], text[number - 1].replace(old, new, 1), *text[number:]]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: [], "line 1: the file is empty"),
        (lambda text: text[:-1], "was cut off"),
        (lambda text: [*text[:-1], text[-1][:-1]], "line 301: it is the last and has no end"),
        (lambda text: [*text[:50], text[51], text[50], *text[52:]], "line 51: position 51 comes too early"),
        (lambda text: [*text[:50], text[49], *text[50:]], "line 51: position 49 comes again"),
        (lambda text: [*text[:50], *text[51:]], "line 51: position 51 comes too early"),
        (lambda text: [*text, text[-1]], "line 302: position 300 comes again"),
        (lambda text: [*text[:99], b"{" + b"x" * LONGEST + b"}\n", *text[99:]], "line 100: it is longer than 16 MiB"),
        (on_line(77, b'"actor":"test"', b'"actor":"tesT"'), "line 77: event 76 does not follow"),
        (on_line(77, b'"actor":"test"', b'"actor":"\xff"'), "line 77: it is not UTF-8"),
        (on_line(77, b'"version":1', b'"version":NaN'), "line 77: NaN is no JSON"),
        (on_line(77, b'"version":1', b'"version":true'), "line 77: version is True"),
        (on_line(77, b'"data":"{', b'"data":"{\\"n\\":NaN,'), "line 77: NaN is no JSON"),
        (on_line(77, b'"version":1', b'"version":1,"more":1'), "line 77: an event has the fields"),
        (on_line(1, b'"release":"', b'"release":"x'), "line 1: the header was changed"),
        (on_line(1, b"loop.export/1", b"loop.export/9"), "line 1: this is no export of loop"),
        (lambda text: [b"[" * 100_000 + b"\n"], "line 1: it is nested too deeply"),
    ],
)
def test_a_damaged_file_is_named_by_line_and_nothing_is_left(
    sound: Rows, tmp_path: Path, change: Change, said: str
) -> None:
    path = write(tmp_path / "loop.db", sound[:300])
    text = change([line.encode() + b"\n" for line in exported(path)])
    place = tmp_path / "place"
    place.mkdir()
    with pytest.raises(ImportFailed) as caught:
        import_file(io.BytesIO(b"".join(text)), "file", place / "into", FakeClock())
    assert said in caught.value.message
    assert list(place.iterdir()) == []


def test_a_flipped_bit_in_the_state_of_a_range_is_found(path: Path, tmp_path: Path) -> None:
    head, *rest = exported(path, "400:600")
    changed = head.replace('"position":399,"at"', '"position":398,"at"', 1)
    assert changed != head
    with pytest.raises(ImportFailed, match="line 1: the header was changed"):
        taken_in([changed, *rest], tmp_path / "into")


def test_what_only_a_newer_loop_can_have_written_says_so(path: Path, tmp_path: Path, sound: Rows) -> None:
    from stores import chained

    rows = chained([*sound[:50], sound[50]._replace(type="session.unheard")])
    with pytest.raises(ImportFailed, match=r"line 52: .*session\.unheard") as caught:
        taken_in(exported(write(tmp_path / "newer.db", rows)), tmp_path / "into")
    assert "upgrade" in caught.value.hint


def test_a_row_that_no_store_holds_is_named(tmp_path: Path, sound: Rows) -> None:
    from stores import chained

    rows = chained([*sound[:50], sound[50]._replace(id=sound[49].id)])
    path = write(tmp_path / "twice.db", rows[:50])
    log = EventLog.read(path)
    text = list(lines(log, 1, 50, redact=False))
    log.close()
    header = read_header(text[0])
    text[0] = header_line(header._replace(head=Head(51, rows[50].at, rows[50].hash)))
    with pytest.raises(ImportFailed, match="line 52: event 51 is none that a store holds"):
        taken_in([*text, event_line(rows[50], None)], tmp_path / "into")


def test_an_import_touches_nothing_that_is_there(path: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").write_text("x")
    with pytest.raises(ImportFailed, match="is not empty"):
        taken_in(exported(path), tmp_path / "mine")
    assert [item.name for item in (tmp_path / "mine").iterdir()] == ["note"]
    taken_in(exported(path), tmp_path / "new")
    with pytest.raises(StoreImported, match="for reading"):
        EventLog.open(tmp_path / "new" / STORE)


# ── the commands ──────────────────────────────────────────────────────────────────────────────────────────────────────


def loop(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOOP, *words], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["loop.toml", ".loop/loop.db", ".loop/loop.db.id"])
def test_an_export_replaces_an_earlier_one_and_nothing_else(tmp_path: Path, name: str) -> None:
    project = Project(tmp_path).configure("code")
    project.loop("tick")
    project.settle()
    before = (tmp_path / name).read_bytes()
    refused = project.loop("export", "-o", name, code=2)
    assert "is no export" in refused.stderr
    assert (tmp_path / name).read_bytes() == before
    (tmp_path / "all.jsonl").touch()
    for _ in range(2):
        project.loop("export", "-o", "all.jsonl")
    project.assert_sound()


def test_a_bug_report_travels_whole(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    project = Project(tmp_path / "mine").configure("code", "docs", env={"WORD": MARKER})
    project.loop("tick")
    project.settle()
    project.loop("pause", "--reason", MARKER)
    done = loop("-C", str(project.directory), "export", "--redact", "-o", "report.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    file = tmp_path / "report.jsonl"
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert MARKER not in file.read_text()
    done = loop("import", "report.jsonl", "--into", "there", "--json", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["redacted"]) == (0, True)
    assert failing(report_of(tmp_path / "there" / STORE)) == {}
    status = json.loads(loop("-C", "there", "status", "--json", cwd=tmp_path).stdout)
    assert status["as_of"] == json.loads(done.stdout)["as_of"]
    for words in (("tick",), ("plan",), ("run",), ("start", "code"), ("pause",), ("stop",)):
        refused = loop("-C", "there", *words, cwd=tmp_path)
        assert refused.returncode == 6, (words, refused.stderr)
        assert "copy for reading" in refused.stderr
    again = loop("import", "report.jsonl", "--into", "mine", cwd=tmp_path)
    assert (again.returncode, "is not empty" in again.stderr) == (1, True)
    piped = loop("-C", str(project.directory), "export", cwd=tmp_path).stdout
    assert MARKER in piped
    assert all(type(json.loads(line)) is dict for line in piped.splitlines())
