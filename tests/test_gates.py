"""Gates as they are really asked: programs that answer, hang, crash, are not there."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from events.catalog import GateAnswered
from events.envelope import to_json
from loop.command import CommandResult
from loop.config import Config
from loop.config_file import load
from loop.gates import OUTPUT_LIMIT, TEXT_KEPT, answer, asking


def config(directory: Path, timeout: str = "30s", **gates: list[str]) -> Config:
    lines = ["[selector]", "builtin = true", f'timeout = "{timeout}"']
    for name, gate in gates.items():
        lines += [f"[categories.{name}]", 'command = ["true"]', f"gate = {to_json(gate)}"]
    path = directory / "loop.toml"
    path.write_text("\n".join(lines) + "\n")
    return load(path)


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def ask(made: Config, *, dry_run: bool = False) -> dict[str, GateAnswered]:
    with asking(made, os.environ, dry_run=dry_run) as answers:
        pass
    return dict(answers)


@pytest.mark.parametrize(
    ("script", "said", "code"),
    [("exit 0", "work", 0), ("exit 1", "no_work", 1), ("exit 2", "error", 2), ("kill -9 $$", "error", None)],
)
def test_the_exit_code_is_the_answer(tmp_path: Path, script: str, said: str, code: int | None) -> None:
    found = ask(config(tmp_path, code=sh(script)))["code"]
    assert (found.answer, found.exit_code) == (said, code)


def test_a_gate_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    found = ask(config(tmp_path, code=["./has-work"]))["code"]
    assert (found.answer, found.exit_code) == ("error", None)
    assert "./has-work" in (found.text or "")


def test_a_gate_that_hangs_is_ended_in_time_with_all_that_it_started(tmp_path: Path) -> None:
    begun = time.monotonic()
    found = ask(config(tmp_path, "300ms", code=sh("sleep 60 & echo $! > child; wait")))["code"]
    assert (found.answer, found.exit_code) == ("error", None)
    assert "0.3 s" in (found.text or "")
    assert 0.3 <= found.seconds <= time.monotonic() - begun < 5
    child = int((tmp_path / "child").read_text())
    stat = Path(f"/proc/{child}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_gate_that_floods_is_an_error(tmp_path: Path) -> None:
    assert ask(config(tmp_path, code=sh(f"head -c {OUTPUT_LIMIT + 1} /dev/zero")))["code"].answer == "error"


def test_one_that_was_cut_short_has_said_nothing_whatever_its_exit_code() -> None:
    result = CommandResult(("gate",), 0, None, b"", b"", 0.1, "too_large", "printed more than 9 bytes")
    found = answer(result)
    assert (found.answer, found.exit_code, found.text) == ("error", None, "printed more than 9 bytes")


def test_what_it_prints_is_kept_and_bounded_and_of_an_error_the_last_line(tmp_path: Path) -> None:
    gates = {"some": sh("echo 3 open issues"), "many": sh("yes | head -c 9000"), "bad": sh("echo boom >&2; exit 7")}
    found = ask(config(tmp_path, **gates))
    assert found["some"].text == "3 open issues"
    assert len(found["many"].text or "") == TEXT_KEPT
    assert (found["bad"].text or "").endswith("boom")


def test_all_are_asked_at_once_and_while_the_selector_is(tmp_path: Path) -> None:
    """Each waits until all three, and whoever is in the block, are there: one after another none would ever end."""
    meet = 'touch "here-{category}"; while [ "$(ls -d here-* | wc -l)" -lt 4 ]; do sleep 0.02; done'
    made = config(tmp_path, "20s", **dict.fromkeys(("a", "b", "c"), sh(meet)))
    with asking(made, os.environ, dry_run=False) as answers:
        (tmp_path / "here-selector").touch()
    assert {name: each.answer for name, each in answers.items()} == dict.fromkeys("abc", "work")


def test_it_runs_beside_the_config_without_our_variables_and_knows_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOP_SESSION", "s1")
    made = config(tmp_path, code=sh('echo "$PWD $LOOP_SESSION-$LOOP_DRY_RUN {category}"'))
    assert ask(made)["code"].text == f"{tmp_path} - code"
    assert ask(made, dry_run=True)["code"].text == f"{tmp_path} -1 code"


def test_nobody_asks_the_gate_of_what_only_starts_by_hand(tmp_path: Path) -> None:
    made = config(tmp_path, code=["true"])
    path = made.path
    path.write_text(path.read_text() + "parallel = false\n")
    assert ask(load(path)) == {}


def test_an_interrupt_ends_the_gates_and_waits_for_none(tmp_path: Path) -> None:
    made = config(tmp_path, code=sh("touch begun; sleep 60"))
    begun = time.monotonic()

    def interrupted() -> Any:
        with asking(made, os.environ, dry_run=False):
            while not (tmp_path / "begun").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begun < 10
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("gate")] == []
