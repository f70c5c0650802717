"""`loop verify`: the anchor, the JSON, the exit code; and its page in the docs."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest
from stores import NAMES, ROOT, Rows, at, chained, changed, replaced, report_of, schema_1, write

from events.errors import UsageError
from events.store import EventLog
from loop.commands import verify as command


def test_an_anchor_holds_until_the_log_is_rewritten(
    tmp_path: Path, sound: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "loop.db", sound[:300])
    assert command.run(path, anchor=None, as_json=False) == 0
    shown = re.search(r"^anchor (\S+)", capsys.readouterr().out, re.MULTILINE)
    assert shown
    anchor = shown[1]
    grown = write(tmp_path / "grown.db", sound)
    assert command.run(grown, anchor=anchor, as_json=False) == 0
    rewritten = write(tmp_path / "rewritten.db", chained([sound[0]._replace(actor="me"), *sound[1:]]))
    assert command.run(rewritten, anchor=None, as_json=False) == 0, "without an anchor nobody can tell"
    capsys.readouterr()
    assert command.run(rewritten, anchor=anchor, as_json=False) == 4
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "loop show 300" in out
    assert command.run(write(tmp_path / "cut.db", sound[:200]), anchor=anchor, as_json=False) == 4


@pytest.mark.parametrize(
    "text",
    ["", "12", ":", "12:abc", "-1:" + "a" * 64, "1:" + "g" * 64, "1:" + "a" * 65, "٣:" + "a" * 64, "1 :" + "a" * 64],
)
def test_what_is_no_anchor_is_a_mistake_of_usage(text: str) -> None:
    with pytest.raises(UsageError, match="no anchor"):
        command.parse_anchor(text)


def test_json_is_the_contracts(tmp_path: Path, sound: Rows, capsys: pytest.CaptureFixture[str]) -> None:
    rows = replaced(sound, at(sound, "fanout.decided"), lambda row: changed(row, policy="luck"))
    assert command.run(write(tmp_path / "loop.db", rows), anchor=None, as_json=True) == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["schema"], found["ok"], found["events"]) == ("loop.verify/1", False, len(rows))
    assert found["head"] == rows[-1].hash.hex()
    assert found["as_of"] == {"position": len(rows), "at": rows[-1].at}
    assert [check["name"] for check in found["checks"]] == NAMES
    assert all(set(check) == {"name", "ok", "checked", "first_bad", "detail"} for check in found["checks"])


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_store_is_in_order(tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loop.db"
    if there:
        path.touch()
    assert command.run(path, anchor=None, as_json=True) == 0
    found = capsys.readouterr()
    assert json.loads(found.out)["events"] == 0
    assert json.loads(found.out)["ok"] is True
    assert str(path) in found.err
    assert path.exists() == there


# ── docs/audit.md ─────────────────────────────────────────────────────────────────────────────────────────────────────

PAGE = (ROOT / "docs" / "audit.md").read_text()


def test_the_page_says_of_every_check_what_it_proves(tmp_path: Path, sound: Rows) -> None:
    proofs, _, _ = PAGE.partition("## Keep an anchor")
    report = report_of(write(tmp_path / "loop.db", sound[:50]), anchor=(1, "a" * 64), lock_dir=tmp_path)
    assert re.findall(r"^\| `(\w+)` \|", proofs, re.MULTILINE) == [check.name for check in report.checks]


def test_the_example_queries_of_the_page_run_on_any_sqlite(tmp_path: Path) -> None:
    path = schema_1(tmp_path / "loop.db")
    EventLog.open(path).close()
    examples = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert len(examples) == 2
    connection = sqlite3.connect(path)  # the interpreter's own library, not the one the store uses
    for example in examples:
        assert connection.execute(example).fetchall(), example
    connection.close()
