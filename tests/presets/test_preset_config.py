"""`preset` on a backend and `[presets.NAME]`: what they fill in, what each mistake is answered with, and plug-ins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from events.errors import ConfigError
from loop.config import Config, facts
from loop.config_file import parse, prompt_of, session_env
from loop.config_report import origins
from loop.presets.preset import Result
from loop.presets.reading import Reading, read
from loop.presets.registry import BUILTIN, preset

HEAD = "[selector]\nbuiltin = true\n"


def config(text: str, directory: Path = Path("/project")) -> Config:
    return parse(HEAD + text, directory / "loop.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        config(text)
    return [line.strip() for line in error.value.message.splitlines()[1:]]


@pytest.mark.parametrize("name", BUILTIN)
def test_a_backend_needs_no_more_than_a_preset(name: str) -> None:
    found = config(f'[categories.code]\nprompt = "do it"\n[backends.b]\npreset = "{name}"')
    argv = found.command_of("code", "b")
    assert argv[0] == ("sh" if name == "shell" else name)
    assert argv[-1] == "{prompt}"
    assert found.reader_of("code", "b")["parser"] == (None if name == "shell" else name)
    assert found.evidence_of("code", "b") == ("exit" if name == "shell" else "outcome")


@pytest.mark.parametrize("name", ["claude", "codex", "gptme"])
def test_a_prompt_is_never_taken_for_an_option_and_args_come_before_it(name: str) -> None:
    found = config(f'[categories.code]\n[backends.b]\npreset = "{name}"\nargs = ["--model", "m"]')
    assert found.command_of("code", "b")[-4:] == ("--model", "m", "--", "{prompt}")


def test_several_accounts_of_one_agent_are_several_backends() -> None:
    found = config(
        "[categories.code]\n"
        '[backends.one]\npreset = "claude"\nenv = { CLAUDE_CONFIG_DIR = "/a", DISABLE_AUTOUPDATER = "0" }\n'
        '[backends.two]\npreset = "claude"\nenv = { CLAUDE_CONFIG_DIR = "/b" }'
    )
    assert session_env(found, "code", "one") == {"CLAUDE_CONFIG_DIR": "/a", "DISABLE_AUTOUPDATER": "0"}
    assert session_env(found, "code", "two") == {"CLAUDE_CONFIG_DIR": "/b", "DISABLE_AUTOUPDATER": "1"}
    assert found.pool_of("one") != found.pool_of("two")


def test_what_the_backend_says_itself_comes_first() -> None:
    found = config(
        '[categories.code]\n[backends.b]\npreset = "codex"\ncommand = ["./wrapped"]\nlimit_patterns = ["enough"]\n'
        "exit_codes = { 9 = \"limited\" }"
    )
    assert found.command_of("code", "b") == ("./wrapped",)
    assert found.reader_of("code", "b") == {"parser": "codex", "limit_patterns": ["enough"]}
    assert found.exit_codes_of("code", "b") == {9: "limited"}


def test_the_category_comes_before_its_backend() -> None:
    found = config(
        '[categories.code]\nevidence = "git"\nexit_codes = { 75 = "refused", 3 = "noop" }\n'
        '[categories.plain]\nevidence = "outcome"\n[categories.own]\ncommand = ["./own"]\n'
        '[backends.b]\npreset = "gptme"\n[backends.s]\npreset = "shell"'
    )
    assert found.exit_codes_of("code", "b") == {75: "refused", 3: "noop"}
    assert found.exit_codes_of("plain", "b") == {75: "limited"}
    assert (found.evidence_of("code", "s"), found.evidence_of("plain", "s")) == ("git", "outcome")
    # What a category's own command prints is not the agent's: nobody reads it.
    assert found.reader_of("own", "b") == {"parser": None, "limit_patterns": []}
    assert (found.exit_codes_of("own", "b"), found.evidence_of("own", "s")) == ({}, "outcome")


def test_show_says_what_a_preset_fills_in() -> None:
    found = config('[categories.code]\n[backends.b]\npreset = "gptme"\nexit_codes = { 9 = "limited" }')
    rows = {row.key: (row.value, row.origin) for row in origins(found)}
    assert rows["backends.b.command"] == (list(preset("gptme").command + preset("gptme").prompt), "preset gptme")
    assert rows["backends.b.exit_codes"] == ({"75": "limited", "9": "limited"}, "loop.toml")
    assert rows["backends.b.parser"] == ("gptme", "preset gptme")
    assert rows["backends.b.concurrency"] == (None, "default")


def test_a_change_of_how_a_result_is_read_is_another_config() -> None:
    def hash_of(more: str) -> object:
        return facts(config(f"[categories.code]\n[backends.b]\ncommand = [\"./a\"]\n{more}"))[0]["hash"]

    assert len({hash_of(""), hash_of('parser = "claude"'), hash_of('limit_patterns = ["x"]')}) == 3


def test_a_preset_of_ones_own_builds_on_another_or_stands_alone() -> None:
    found = config(
        "[categories.code]\n"
        '[presets.wrapped]\nbase = "claude"\ncommand = ["./in-a-box", "claude", "-p"]\nexit_codes = { 9 = "limited" }\n'
        '[presets.plain]\ncommand = ["my-agent"]\nprompt = ["--task", "{prompt}"]\nevidence = "exit"\n'
        '[backends.b]\npreset = "wrapped"\nargs = ["--verbose"]\n[backends.p]\npreset = "plain"'
    )
    assert found.command_of("code", "b") == ("./in-a-box", "claude", "-p", "--verbose", "--", "{prompt}")
    assert found.reader_of("code", "b") == {"parser": "claude", "limit_patterns": []}
    assert found.exit_codes_of("code", "b") == {9: "limited"}
    assert found.command_of("code", "p") == ("my-agent", "--task", "{prompt}")
    assert (found.evidence_of("code", "p"), found.reader_of("code", "p")["parser"]) == ("exit", None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[backends.b]\npreset = "claud"', "[backends.b] no preset 'claud'; did you mean claude?"),
        ('[backends.b]\npreset = "mi"\n[presets.mine]\ncommand = ["a"]', "no preset 'mi'; did you mean mine?"),
        ('[backends.b]\ncommand = ["a"]\nparser = "shell"', "[backends.b] parser: preset shell reads nothing"),
        ('[backends.b]\ncommand = ["a"]\nparser = "zzz"', "[backends.b] no preset 'zzz'; there are: claude"),
        ('[backends.b]\ncommand = ["a"]\nargs = ["x"]', "[backends.b] args: they go into a preset's command"),
        ('[backends.b]\ncommand = ["a"]\nlimit_patterns = ["("]', "'(' is no regular expression: "),
        ('[backends.b]\ncommand = ["a"]\nlimit_patterns = "x"', "is no list of regular expressions"),
        ('[backends.b]\npreset = "claude"\nargs = ["{model}"]', "unknown placeholder {model}"),
        ('[presets.claude]\ncommand = ["a"]', '[presets.claude]: claude is there already; choose another name'),
        ("[presets.mine]", '[presets.mine] no command; write command = ["my-agent"], or base = "claude"'),
        ('[presets.mine]\nbase = "x"', "[presets.mine] no preset 'x'"),
        ('[presets.mine]\ncommand = ["a"]\nparser = "shell"', "[presets.mine] parser: preset shell reads nothing"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_its_mend(text: str, problem: str) -> None:
    found = problems(f"[categories.code]\n{text}")
    assert any(problem in line for line in found), found


def test_words_of_the_selector_do_not_get_into_a_shell(tmp_path: Path) -> None:
    shell = '[categories.code]\nprompt = "make {task}"\n[backends.s]\npreset = "shell"'
    assert "[categories.code] prompt: {task} is the selector's text" in problems(shell)[0]
    assert problems(shell.replace('preset = "shell"', 'command = ["/bin/bash", "-c", "{prompt}"]'))
    assert config(shell.replace('"shell"', '"claude"'))
    (tmp_path / "do.sh").write_text("make {task}")
    found = config('[categories.code]\nprompt_file = "do.sh"\n[backends.s]\npreset = "shell"', tmp_path)
    with pytest.raises(ConfigError, match=r"do\.sh .*LOOP_TASK"):
        prompt_of(found, "code", {"task": "$(reboot)", "backend": "s"})


# ── plug-ins ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package, as far as Python can tell, that brings presets."""
    (tmp_path / "an_agent.py").write_text(
        "from loop.presets.preset import Preset, Result\n"
        "def parse(output):\n"
        "    return Result(resume_token=[each['id'] for each in output.records][-1])\n"
        "PRESET = Preset(command=('an-agent',), parse=parse)\n"
        "NONE = 'not a preset'\n"
    )
    info = tmp_path / "an_agent-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: an-agent\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[loop.presets]\nan-agent = an_agent:PRESET\nnone = an_agent:NONE\n"
        "gone = an_agent:GONE\nshell = an_agent:NONE\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "an_agent", raising=False)
    return tmp_path


def test_a_package_brings_a_preset(plugin: Path) -> None:
    found = config('[categories.code]\n[backends.b]\npreset = "an-agent"')
    assert found.command_of("code", "b") == ("an-agent", "{prompt}")
    (plugin / "out.log").write_text('{"id": "t7"}\n')
    assert read(str(plugin), "s1", found.reader_of("code", "b"), 0).result.resume_token == "t7"
    (plugin / "out.log").write_text("no records\n")  # on which this parser fails
    failed = read(str(plugin), "s1", found.reader_of("code", "b"), 0).result
    assert failed.outcome is None
    assert failed.summary is not None
    assert "parser of preset 'an-agent' failed: IndexError" in failed.summary


def test_a_packages_parser_may_make_a_result_of_anything(plugin: Path) -> None:
    with (plugin / "an_agent.py").open("a") as module:
        module.write("wrong = Result(1, 2, 3, float('inf'), {'a': float('nan'), 'b': 3}, '--rm', [], 'yes')\n")
        module.write("PRESET = Preset(command=('an-agent',), parse=lambda output: wrong)\n")
    found = read(str(plugin), "s1", {"parser": "an-agent", "limit_patterns": ["x"]}, 0)
    assert found == Reading(Result(usage={"a": None, "b": 3}))


@pytest.mark.usefixtures("plugin")
def test_a_package_that_brings_no_preset_is_named() -> None:
    assert "is no loop.presets.preset.Preset but str" in problems('[categories.code]\n[backends.b]\npreset = "none"')[0]
    assert "cannot be loaded: AttributeError" in problems('[categories.code]\n[backends.b]\npreset = "gone"')[0]
    assert preset("shell").evidence == "exit"  # ours is not replaced


# ── going on with a conversation ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "words"),
    [("claude", ["--resume={resume}"]), ("codex", ["resume", "{resume}"]), ("gptme", ["--name={resume}"])],
)
def test_a_preset_resumes_with_its_own_words_between_the_options_and_the_prompt(name: str, words: list[str]) -> None:
    found = config(f'[categories.code]\n[backends.b]\npreset = "{name}"\nargs = ["--model", "m"]')
    resume = found.resume_command_of("code", "b")
    assert resume is not None
    cold = found.command_of("code", "b")
    assert [*resume] == [*cold[:-2], *words, *cold[-2:]]


def test_words_that_resume_go_with_the_command_they_are_for() -> None:
    own = '[categories.code]\n[presets.p]\nbase = "claude"\ncommand = ["./boxed"]\n{}[backends.b]\npreset = "p"'
    assert config(own.format("")).resume_command_of("code", "b") is None
    resuming = config(own.format('resume = ["--go-on", "{{resume}}"]\n'.replace("{{", "{").replace("}}", "}")))
    assert resuming.resume_command_of("code", "b") == ("./boxed", "--go-on", "{resume}", "--", "{prompt}")
    shell = config('[categories.code]\n[backends.b]\npreset = "shell"')
    assert shell.resume_command_of("code", "b") is None
    mine = '[categories.code]\n[backends.b]\ncommand = ["x"]\nresume_command = ["x", "{resume}"]'
    assert config(mine).resume_command_of("code", "b") == ("x", "{resume}")
    assert config(mine.replace("[backends", 'command = ["y"]\n[backends')).resume_command_of("code", "b") is None
