"""docs/agents.md is true: its configs are valid, its command lines are the presets', its parser works."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from loop.config_file import parse
from loop.presets.preset import Output, Preset
from loop.presets.registry import BUILTIN, preset

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "agents.md").read_text()
CONFIGS = [block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "[selector]" in block]
SHOWN = {"{prompt}": "PROMPT", "{run_dir}": "RUN_DIR", "{session}": "SESSION"}


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_of_the_page_is_valid(text: str) -> None:
    assert parse(text, Path("/project/loop.toml")).backends


@pytest.mark.parametrize("name", BUILTIN)
def test_a_command_line_of_the_page_is_the_presets(name: str) -> None:
    data = preset(name)
    args = () if name == "shell" else ("ARGS",)
    line = " ".join((*data.command, *args, *data.prompt))
    for placeholder, shown in SHOWN.items():
        line = line.replace(placeholder, shown)
    assert f"| `{name}` | `{line}` |" in PAGE


def test_the_plug_in_of_the_page_is_a_preset_that_reads() -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    names: dict[str, Any] = {}
    exec(block[1], names)
    made = names["PRESET"]
    assert isinstance(made, Preset)
    assert made.parse is not None
    assert made.parse(Output([{"type": "quota"}], lambda: True, "s1", time.time())).limited
    assert made.parse(Output([{}], lambda: True, "s1", time.time())).outcome is None
