"""Sessions of presets under the real commands. The agent is a script that prints what a real one once printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))

from e2e_project import Project, kill

from loop.sessions import proc

RECORDED = Path(__file__).resolve().parent / "recorded"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    for run_dir in made.run_dirs():
        for pid in proc.marked(run_dir.name):
            kill(pid)


def ended(project: Project, backend: str, category: str = 'prompt = "do it"') -> dict[str, Any]:
    """The end of one session on this backend."""
    extra = f"[respawn]\nlimit = 0\n[backends.b]\n{backend}"
    project.configure("code", category=category, env={"RECORDED": str(RECORDED)}, extra=extra)
    project.loop("start", "code")
    project.settle()
    data: dict[str, Any] = project.events("session.ended")[-1]["data"]
    return data


def replay(project: Project, name: str, code: int) -> str:
    """The lines of a backend that prints a recorded output and ends with `code`."""
    script = project.directory / "replay.sh"
    script.write_text(f'#!/bin/sh\ncat "$RECORDED/{name}.out"\ncat "$RECORDED/{name}.err" >&2\nexit {code}\n')
    script.chmod(0o755)
    return f'preset = "{name.partition("-")[0]}"\ncommand = ["./replay.sh", "{{prompt}}"]'


def test_a_refused_session_closes_its_pool_until_the_reset(project: Project) -> None:
    end = ended(project, replay(project, "claude-a_rate_limit", 1))
    assert (end["outcome"], end["reason"]) == ("limited", "rate_limit")
    limit = project.events("backend.limited")[0]["data"]
    assert limit["until"] == end["resets_at"] is not None
    assert end["resume_token"]


def test_usage_and_the_resume_token_are_in_the_log_and_the_words_are_private(project: Project) -> None:
    end = ended(project, replay(project, "claude-an_answer", 0))
    assert (end["outcome"], end["usage"]["input_tokens"], end["usage"]["cost_micros"]) == ("unproven", 100, 548)
    event = project.events("session.ended")[0]
    assert event["private"]["summary"].startswith("All is well.")
    assert "All is well" not in str(event["data"])


def test_a_shell_line_is_productive_by_its_exit_code_and_earns_no_respawn(project: Project) -> None:
    end = ended(project, 'preset = "shell"', 'prompt = "test -n $LOOP_CATEGORY"')
    assert (end["outcome"], end["reason"], end["proved"]) == ("productive", "exit_code", False)
    end = ended(project, 'preset = "shell"', 'prompt = "exit 3"')
    assert (end["outcome"], end["exit_code"]) == ("failed", 3)


def test_a_session_of_an_older_loop_has_no_reader_and_ends_all_the_same(project: Project) -> None:
    from loop.sessions import rundir

    ended(project, 'preset = "shell"', 'prompt = "true"')
    run_dir = str(project.run_dirs()[0])
    spec = rundir.read_spec(run_dir)
    assert spec is not None
    assert spec["reader"] == {"parser": None, "limit_patterns": []}
    del spec["reader"]
    os.chmod(run_dir, 0o700)
    rundir.write_json(run_dir, "spec.json", spec)
    assert rundir.read_spec(run_dir) == spec
