"""The README's five minutes, followed to the letter; the agents replay what real ones once printed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from five_minutes import Reader, blocks

from loop.sessions import proc

RECORDED = Path(__file__).resolve().parent / "recorded"
AGENT = """#!/bin/sh
case "$*" in
--version) echo "{name} 1.0"; exit 0;;
"auth status"|"login status") exit 0;;
esac
cat "$LOOP_CONTEXT" > context-"$LOOP_SESSION"
for prompt; do :; done
printf '%s\\n' "$prompt" > prompt-"$LOOP_SESSION"
cat {recorded}/{name}-productive.out
printf '{{"outcome": "productive", "grade": 0.7}}' > "$LOOP_OUTCOME"
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    agents = tmp_path / "agents"
    agents.mkdir()
    for name in ("claude", "codex", "gptme"):
        (agents / name).write_text(AGENT.format(name=name, recorded=RECORDED))
        (agents / name).chmod(0o755)
    made = Reader(tmp_path, {"PATH": f"{agents}:{os.environ['PATH']}"})
    yield made
    runs = made.directory / ".loop" / "runs"
    for run_dir in runs.iterdir() if runs.exists() else ():
        for pid in proc.marked(str(run_dir)):
            os.kill(pid, 9)


def test_the_five_minutes_to_the_letter(reader: Reader) -> None:
    said = reader.sh(blocks("sh")[0])
    assert "found  claude, codex, gptme" in said
    assert "claude 1.0, logged in" in said
    ends = reader.ends(60)
    assert len(ends) >= 2
    assert {end["data"]["outcome"] for end in ends} == {"productive"}
    assert all(end["data"]["usage"]["input_tokens"] == 200 for end in ends)
    usage = reader.json("usage --by backend")
    assert usage["total"]["tokens"]["told"] == len(ends)
    asked = next(reader.directory.glob("prompt-*")).read_text()
    assert "Your category of work: code" in asked or "Your category of work: triage" in asked
    assert '{"outcome": "productive"' in asked
    assert next(reader.directory.glob("context-*")).stat().st_size > 100
    assert reader.json("verify")["ok"]


def test_a_second_account_is_a_second_backend(reader: Reader) -> None:
    reader.sh("loop init")
    with (reader.directory / "loop.toml").open("a") as file:
        file.write(blocks("toml")[0])
    reader.sh("loop config check")
    reader.sh("loop tick")
    reader.ends(60)
    assert "second" in {item["name"] for item in reader.json("backends")["items"]}
    assert any(line["scope"] == "backend:second" for line in reader.json("usage --by backend")["budgets"])


def test_the_hook_of_the_page_makes_commits_count(reader: Reader) -> None:
    git = "git -c user.name=T -c user.email=t@example.invalid"
    reader.sh("git init -q . && loop init && loop doctor")
    reader.sh(blocks("sh")[1])
    script = reader.directory.parent / "agents" / "claude"
    script.write_text(f"#!/bin/sh\n{git} commit -q --allow-empty -m 'a piece of work'\n")
    config = (reader.directory / "loop.toml").read_text()
    evidence = config.replace("[categories.code]\n", '[categories.code]\nevidence = "git"\nbackends = ["claude"]\n')
    (reader.directory / "loop.toml").write_text(evidence)
    reader.sh("loop start code")
    [end, *_] = reader.ends(60)
    assert (end["data"]["outcome"], end["data"]["evidence"]["what"]) == ("productive", "1 commit")
    log = subprocess.run(
        ["git", "-C", str(reader.directory), "log", "--format=%B"], capture_output=True, text=True, check=True
    )
    assert f"Loop-Session: {end['session']}" in log.stdout
