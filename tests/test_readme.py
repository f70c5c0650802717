"""The README is run: its shell blocks in the order of the page, and what it names must exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from loop.config_file import parse

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")


class Block(NamedTuple):
    """A fenced block: its language, its text, and the comment just before it."""

    language: str
    text: str
    comment: str


FENCE = re.compile(r"(?:<!-- (?P<comment>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
BLOCKS = [Block(match["language"], match["text"], match["comment"] or "") for match in FENCE.finditer(README)]
SHELL = [block for block in BLOCKS if block.language == "sh"]
# `loop` as a command, in a shell block or in backticks: its words up to a pipe, a comment or the closing quote.
COMMANDS = sorted(
    {
        match[1].strip()
        for text in (*(block.text for block in SHELL), *re.findall(r"`([^`\n]+)`", README))
        for match in re.finditer(r"(?:^|\| )loop ([a-z-][^|#\n]*)", text, re.MULTILINE)
    }
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnished(tmp_path_factory.mktemp("readme"))


def furnished(directory: Path) -> Path:
    """The directory, with the files that the page shows in it, and `loop` for its PATH."""
    for block in BLOCKS:
        if block.comment.startswith("file: "):
            file = directory / block.comment.removeprefix("file: ")
            file.write_text(block.text)
            file.chmod(0o755)
    command = directory / "bin" / "loop"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "cli.py"} "$@"\n')
    command.chmod(0o755)
    return directory


def sh(script: str, project: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in the project as a reader would; it ends at its first failure."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}
    path = f"{project / 'bin'}:{kept['PATH']}"
    return subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=project,
        env={**kept, "PATH": path, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_every_shell_block_runs_or_says_why_not(project: Path) -> None:
    ran = 0
    for block in SHELL:
        if block.comment.startswith("not run: "):
            continue
        done = sh(block.text, project)
        assert done.returncode == 0, (block.text, done.stdout, done.stderr)
        assert " Usage: loop " not in done.stdout, "nobody asked for help"
        ran += 1
    assert ran >= 2
    sh("loop drain --wait", project)


def test_the_selector_of_the_page_has_the_output_of_the_page(tmp_path: Path) -> None:
    number = next(number for number, block in enumerate(BLOCKS) if "--payload -" in block.text)
    sh("loop init", furnished(tmp_path))
    done = sh(BLOCKS[number].text, tmp_path)
    assert (done.returncode, done.stdout) == (0, BLOCKS[number + 1].text)


def test_a_config_can_begin_with_the_selector_of_the_page(tmp_path: Path) -> None:
    (line,) = re.findall(r"`(loop init --selector [^`]*)`", README)
    done = sh(f"{line} && loop config check && loop plan -q", furnished(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "code triage"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_exists_with_its_options(command: str, project: Path) -> None:
    words = [word for word in command.split() if not word.startswith(("#", '"'))]
    named = [word for word in words if word.startswith("-")]
    help = sh(f"COLUMNS=200 loop {words[0] if words[0] != '-C' else words[2]} --help", project)
    assert help.returncode == 0, help.stderr
    for option in named:
        if option not in ("-C", "--help") and not re.fullmatch(r"-\d+[smhd]|-", option):
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", help.stdout), (option, help.stdout)


def test_the_picture_has_the_lines_of_the_real_status(project: Path) -> None:
    picture = next(block.text for block in BLOCKS if block.text.startswith("$ loop status"))
    for script in () if (project / "loop.toml").exists() else ("loop init", "loop tick", "loop drain --wait"):
        sh(script, project)
    real = sh("loop status", project).stdout
    for text in (picture, real):
        assert re.search(r"^loop \w+   as of .*, position \d+ *$", text, re.MULTILINE)
        for label in ("safe ", "right ", "useful ", "slots ", "backends ", "last decision ", "next fire "):
            assert re.search(rf"^{label}", text, re.MULTILINE), (label, text)
        assert re.search(r"^ category +started +minutes +share +target +ratio +last start", text, re.MULTILINE)
    assert max(len(line) for line in picture.splitlines()) <= 80


def test_the_config_and_the_outcome_of_the_page_are_valid() -> None:
    for block in BLOCKS:
        if block.language == "toml":
            tomllib.loads(block.text)
            parse(f"[selector]\nbuiltin = true\n[categories.code]\n{block.text}", ROOT / "loop.toml")
        if block.language == "json":
            assert json.loads(block.text)["outcome"] == "productive"


def test_the_changelog_has_this_version_on_top() -> None:
    from loop import __version__

    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == __version__
