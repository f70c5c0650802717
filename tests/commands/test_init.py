"""`loop init`: what it writes works at once, and nothing of anybody's is lost."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from events.errors import ConfigError, StoreError, UsageError
from events.store import EventLog, Filter
from loop.commands import doctor, init
from loop.config_file import load, parse, prompt_of
from loop.config_report import warnings
from loop.controller import Loop
from loop.home import at
from loop.passes import Fire


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    return directory


def run_init(directory: Path, selector: list[str] | None = None, force: bool = False) -> int:
    return init.run(directory, selector=selector, force=force, as_json=False, environ=os.environ)


def answering(directory: Path, payload: object, before: str = "") -> list[str]:
    """A selector that prints `payload`."""
    text = payload if isinstance(payload, str) else json.dumps(payload)
    (directory / "answer").write_text(text)
    program = directory / "selector"
    program.write_text(f"#!/bin/sh\n{before}\ncat answer\n")
    program.chmod(0o755)
    return ["./selector", "--json"]


def everything_in(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


# ── what it writes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_it_writes_a_config_and_a_store_and_says_what_comes_next(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_init(project) == 0
    config = load(project / "loop.toml")
    assert config.loop.slots == 2
    assert config.selector.builtin
    assert sorted(config.categories) == ["code", "triage"]
    assert warnings(config) == []
    with_store = EventLog.read(project / ".loop" / "loop.db")
    assert [event.type for event in with_store.events()] == ["store.migrated"]
    with_store.close()
    assert stat.S_IMODE((project / ".loop").stat().st_mode) == 0o700
    out = capsys.readouterr().out
    for said in ("loop.toml", "loop.db", "code, triage", "loop doctor", "loop plan", "loop run"):
        assert said in out


def test_its_json_names_the_files_and_the_position(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init.run(project, selector=None, force=False, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["schema"] == "loop.init/1"
    assert answer["as_of"]["position"] == 1
    assert answer["as_of"]["at"].endswith("Z")
    assert answer["config"] == str(project / "loop.toml")
    assert answer["store"] == str(project / ".loop" / "loop.db")
    assert answer["categories"] == ["code", "triage"]


def test_every_key_that_the_template_offers_is_one(project: Path) -> None:
    """Taking the # away from every offered key leaves a valid config: the template cannot fall behind the models."""
    offered = re.sub(r"^#(?=[a-z_]+ = )", "", init.config_text(None, None), flags=re.MULTILINE)
    assert offered.count("\n#") < init.config_text(None, None).count("\n#")
    parse(offered, project / "loop.toml")


def test_the_category_keys_in_its_comments_are_keys_too(project: Path) -> None:
    text = init.config_text(None, None)
    keys = re.findall(r"^#   ([a-z_]+) = (.*?)(?:   .*)?$", text[text.index("# The kinds of work") :], re.MULTILINE)
    assert len(keys) >= 13
    for key, value in keys:
        if key not in ("command", "prompt_file"):  # shown twice, and a file that must exist
            tomllib.loads(f"{key} = {value}")
        table = f"[selector]\nbuiltin = true\n[backends.default]\n[categories.x]\n{key} = {value}\n"
        command = "" if key == "command" else 'command = ["true"]\n'
        parse(table + command, project / "loop.toml")


def test_what_it_writes_passes_the_doctor(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_init(project)
    environ = {"PATH": os.environ["PATH"]}
    assert doctor.run(at(project / "loop.toml"), fix=False, as_json=False, environ=environ) == 0


def test_a_pass_right_after_it_runs_sessions_that_end_productive(project: Path) -> None:
    run_init(project)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}
    with Loop(at(project / "loop.toml"), environ) as loop:
        result = loop.fire(Fire("manual"))
        assert sorted(each.category for each in result.started) == ["code", "triage"]
        ended = wait_for_the_end(project)
    assert {end["outcome"] for end in ended} == {"productive"}
    assert len(ended) >= 2


def wait_for_the_end(project: Path) -> list[dict[str, Any]]:
    """The ends of all sessions, respawns included, once a session-end pass has followed each and nothing lives."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        log = EventLog.read(project / ".loop" / "loop.db")
        requested, ended, passes = (
            log.select(Filter(types=(type,))) for type in ("session.requested", "session.ended", "tick.finished")
        )
        log.close()
        if len(requested) == len(ended) and len(passes) > len(ended):
            return [json.loads(row.data) for row in ended]
        time.sleep(0.05)
    raise AssertionError("sessions did not end")


# ── what it leaves alone ──────────────────────────────────────────────────────────────────────────────────────────────


def test_an_existing_config_is_refused_and_nothing_is_written(project: Path) -> None:
    (project / "loop.toml").write_text("# mine\n")
    with pytest.raises(UsageError, match=r"loop\.toml exists") as refused:
        run_init(project)
    assert "--force" in refused.value.hint
    assert everything_in(project) == {"loop.toml": b"# mine\n"}


def test_force_keeps_every_earlier_config(project: Path) -> None:
    (project / "loop.toml").write_text("# mine\n")
    run_init(project, force=True)
    (project / "loop.toml").write_text("# second\n")
    run_init(project, force=True)
    assert (project / "loop.toml.bak").read_text() == "# mine\n"
    assert (project / "loop.toml.bak2").read_text() == "# second\n"
    load(project / "loop.toml")


def test_force_keeps_the_log_where_it_is(project: Path) -> None:
    """A new config that named another store would hide the sessions that still run under the old one."""
    (project / "loop.toml").write_text('[loop]\nstate = "var/state"\n')
    run_init(project, force=True)
    assert load(project / "loop.toml").state == project / "var" / "state"
    assert (project / "var" / "state" / "loop.db").exists()
    assert not (project / ".loop").exists()


def test_a_link_to_a_config_stays_one(project: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n")
    (project / "loop.toml").symlink_to(real)
    run_init(project, force=True)
    assert (project / "loop.toml").is_symlink()
    assert "[selector]" in real.read_text()


def test_a_lost_store_is_not_begun_anew(project: Path) -> None:
    (project / ".loop" / "locks").mkdir(parents=True)
    (project / ".loop" / "locks" / "code.lock").touch()
    with pytest.raises(StoreError, match="lost or moved"):
        run_init(project)
    assert not (project / "loop.toml").exists()


def test_a_directory_that_is_not_there_is_said(project: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        run_init(project / "nowhere")


# ── with a selector ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_selector_is_asked_once_and_every_name_becomes_a_category(project: Path) -> None:
    payload = {
        "selected": {"category": "code", "id": "t-1"},
        "alternatives": [{"category": "v1.2"}],
        "all_scores": {"idle": 0, "bad": -2.5, "triage": 3},
    }
    selector = answering(project, payload, before='echo "$LOOP_DRY_RUN" >> asked')
    run_init(project, selector)
    config = load(project / "loop.toml")
    assert config.selector.command == tuple(selector)
    assert list(config.categories) == ["code", "v1.2", "triage", "idle", "bad"]
    assert (project / "asked").read_text() == "1\n"
    assert all(config.command_of(name, "default")[0] == "sh" for name in config.categories)
    assert doctor.run(at(project / "loop.toml"), fix=False, as_json=True, environ={"PATH": os.environ["PATH"]}) == 0


@pytest.mark.parametrize(
    "name", ["tier1-selected", "tier3-synthetic", "diversity-scores-list", "diversity-scores-map", "all-negative"]
)
def test_real_payloads_give_real_configs(project: Path, name: str) -> None:
    payload = (Path(__file__).parent.parent / "payloads" / f"{name}.json").read_text()
    run_init(project, answering(project, payload))
    assert load(project / "loop.toml").categories


def test_names_that_cannot_be_used_are_said_and_skipped(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_init(project, answering(project, {"all_scores": {"Bad Name": 2, "good": 1, "\x1b[31m": 1}}))
    assert list(load(project / "loop.toml").categories) == ["good"]
    err = capsys.readouterr().err
    assert "Bad Name" in err
    assert "\x1b" not in err


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("", "no_answer"),
        ("not json", "not_json"),
        ('{"foo": 1}', "unknown_shape"),
        ('{"all_scores": {"code": "high"}}', r"wrong_type \(all_scores\.code\)"),
        ('{"all_scores": {}}', "nothing is worth starting"),
        ('{"all_scores": {"Bad Name": 1}}', "'Bad Name'"),
    ],
)
def test_a_rejected_answer_writes_nothing(project: Path, payload: str, reason: str) -> None:
    selector = answering(project, payload)
    before = everything_in(project)
    with pytest.raises(ConfigError, match=reason) as error:
        run_init(project, selector)
    assert error.value.exit_code == 3
    assert everything_in(project) == before


def test_a_selector_that_fails_or_is_not_there_writes_nothing(project: Path) -> None:
    for selector, reason in ((["false"], "exit_code"), (["./nowhere"], "no program")):
        with pytest.raises(ConfigError, match=reason):
            run_init(project, selector)
    assert everything_in(project) == {}


def test_a_selector_is_written_word_for_word(project: Path) -> None:
    odd = ["sh", "-c", 'cat answer # {x} "\\" \x7f\té\n', "#: end"]
    answering(project, {"all_scores": {"code": 1}})
    run_init(project, odd)
    assert load(project / "loop.toml").selector.command == tuple(odd)


# ── git ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("before", ["", "*.pyc", "*.pyc\n"])
def test_in_a_work_tree_the_state_is_ignored(project: Path, before: str, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "-q", project], check=True)
    if before:
        (project / ".gitignore").write_text(before)
    run_init(project)
    assert (project / ".gitignore").read_text().split() == [*before.split(), ".loop/"]
    assert ".gitignore" in capsys.readouterr().out
    status = subprocess.run(["git", "-C", project, "status", "--porcelain"], capture_output=True, text=True, check=True)
    assert ".loop" not in status.stdout


def test_what_is_ignored_already_is_not_ignored_twice(project: Path) -> None:
    subprocess.run(["git", "init", "-q", project], check=True)
    (project / ".gitignore").write_text(".*\n")
    run_init(project)
    assert (project / ".gitignore").read_text() == ".*\n"


def test_outside_a_work_tree_there_is_no_gitignore(project: Path) -> None:
    run_init(project)
    assert not (project / ".gitignore").exists()


# ── agents ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def with_agents(directory: Path, *names: str) -> dict[str, str]:
    """An environment in which these agents are installed."""
    programs = directory / "agents"
    programs.mkdir(exist_ok=True)
    for name in names:
        (programs / name).write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{name} 9.9"\nexit 0\n')
        (programs / name).chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def test_the_agents_that_are_installed_become_its_backends(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = with_agents(project.parent, "codex", "gptme")
    init.run(project, selector=None, force=False, as_json=False, environ=environ)
    config = load(project / "loop.toml")
    assert list(config.backends) == ["codex", "gptme"]
    assert config.command_of("code", "codex")[0] == "codex"
    assert {category.prompt_file for category in config.categories.values()} == {"prompt.md"}
    prompt = prompt_of(config, "triage", {"category": "triage", "task": "t-1"})
    assert "category of work: triage\nYour task: t-1\n" in prompt
    assert '{"outcome": "productive"' in prompt
    assert warnings(config) == []
    assert "found  codex, gptme" in capsys.readouterr().out


def test_an_agent_is_chosen_by_name_and_none_is_the_example(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = with_agents(project.parent, "claude", "codex")
    chosen: Any = {"selector": None, "force": True, "as_json": True, "environ": environ}
    init.run(project, agents=["codex"], **chosen)
    assert json.loads(capsys.readouterr().out)["agents"] == ["codex"]
    assert list(load(project / "loop.toml").backends) == ["codex"]
    init.run(project, agents=["none"], **chosen)
    assert json.loads(capsys.readouterr().out)["prompt"] is None
    assert list(load(project / "loop.toml").backends) == ["default"]
    for name, why in (("gptme", "no program gptme on PATH"), ("gtpme", "no such agent")):
        with pytest.raises(UsageError, match=why):
            init.run(project, agents=[name], **chosen)


def test_a_prompt_that_is_there_stays(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "prompt.md").write_text("mine")
    init.run(project, selector=None, force=False, as_json=False, environ=with_agents(project.parent, "claude"))
    assert (project / "prompt.md").read_text() == "mine"
    assert "kept   " in capsys.readouterr().out


def test_a_selectors_categories_have_the_agents_prompt(project: Path) -> None:
    selector = answering(project, {"all_scores": {"code": 0.9, "news": 0.1}})
    environ = with_agents(project.parent, "claude")
    init.run(project, selector=selector, force=False, as_json=False, environ=environ)
    config = load(project / "loop.toml")
    assert [(name, each.prompt_file) for name, each in config.categories.items()] == [
        ("code", "prompt.md"), ("news", "prompt.md"),
    ]  # fmt: skip
