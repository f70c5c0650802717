"""`loop config check` and `loop config show`: the file as it is understood."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from events.errors import ConfigError
from events.store import EventLog
from loop.commands import config
from loop.home import Home, at

TEXT = """
[loop]
slots = 3
[selector]
builtin = true
aliases = { "the code" = "code", infra = "v1.2" }
[session]
env = { TOKEN = "secret-1" }
[categories.code]
command = ["agent", "say \\"hi\\" \\u001b"]
env = { KEY = "secret-2" }
[categories."v1.2"]
command = ["agent"]
timeout = "90s"
exit_codes = { 75 = "refused" }
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "loop.toml").write_text(TEXT)
    return at(tmp_path / "loop.toml")


def object_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_valid_config_is_said_to_be(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert config.check(home, as_json=False) == 0
    assert capsys.readouterr().out == f"{home.config}: valid\n"


def test_warnings_are_listed_and_no_failure(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    home.config.write_text(TEXT + '[categories.third]\ncommand = ["agent", "{prompt}"]\n')
    assert config.check(home, as_json=False) == 0
    out = capsys.readouterr().out
    assert "warning: categories.third: its command has {prompt}" in out
    assert out.endswith("valid, with 1 warning\n")
    assert config.check(home, as_json=True) == 0
    assert len(object_of(capsys)["warnings"]) == 1


def test_an_invalid_config_names_every_problem(home: Home) -> None:
    home.config.write_text("[loop]\nslot = 3\n")
    told = r"did you mean slots\?(.|\n)*\[selector\]: missing"
    with pytest.raises(ConfigError, match=told) as error:
        config.check(home, as_json=True)
    assert error.value.exit_code == 3
    with pytest.raises(ConfigError, match=told):
        config.show(home, origin=False, as_json=True)


def test_its_json_is_as_of_the_log(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    config.check(home, as_json=True)
    assert object_of(capsys)["as_of"] == {"position": 0, "at": None}
    assert not home.state.exists()
    EventLog.open(home.db).close()
    config.show(home, origin=False, as_json=True)
    assert object_of(capsys)["as_of"]["position"] == 1
    home.db.write_bytes(b"no database" * 100)
    config.check(home, as_json=True)
    answer = object_of(capsys)
    assert answer["as_of"]["position"] is None
    assert answer["ok"] is True


def test_the_effective_config_is_toml_with_the_defaults(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert config.show(home, origin=False, as_json=False) == 0
    shown = tomllib.loads(capsys.readouterr().out)
    assert shown["loop"]["slots"] == 3
    assert shown["loop"]["every"] == "30m"
    assert shown["selector"]["aliases"] == {"the code": "code", "infra": "v1.2"}
    assert shown["categories"]["v1.2"]["timeout"] == "1m30s"
    assert shown["categories"]["v1.2"]["exit_codes"] == {"75": "refused"}
    assert shown["categories"]["code"]["command"] == ["agent", 'say "hi" \x1b']
    assert shown["categories"]["code"]["timeout"] == "50m"


def test_origins_stand_behind_the_keys(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    config.show(home, origin=True, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "loop.slots = 3  # loop.toml" in lines
    assert 'loop.every = "30m"  # default' in lines
    assert "# allocation.max_ratio is not set" in lines


def test_the_json_is_nested_and_tells_origins_when_asked(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    config.show(home, origin=True, as_json=True)
    answer = object_of(capsys)
    assert answer["schema"] == "loop.config/1"
    assert answer["config"]["categories"]["v1.2"]["timeout"] == "1m30s"
    assert answer["config"]["allocation"]["max_ratio"] is None
    assert answer["origins"]["loop.slots"] == "loop.toml"
    assert answer["origins"]['categories."v1.2".lanes'] == "default"
    config.show(home, origin=False, as_json=True)
    assert "origins" not in object_of(capsys)


@pytest.mark.parametrize("as_json", [False, True])
def test_no_value_of_env_is_ever_shown(home: Home, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    config.show(home, origin=True, as_json=as_json)
    out = capsys.readouterr().out
    assert "secret" not in out
    assert out.count('"***"') == 2
