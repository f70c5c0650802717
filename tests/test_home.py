"""Where the config and the state are found, also when the config is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from events.errors import ConfigError, UsageError
from loop.home import ConfigMissing, Home, find


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "loop.toml").write_text("")
    return root


def put_store(state: Path) -> None:
    state.mkdir(parents=True)
    (state / "loop.db").touch()


def test_the_nearest_config_above_is_found_with_all_its_places(project: Path) -> None:
    home = find(project / "deep" / "er", None, {})
    state = project / ".loop"
    assert home == Home(project / "loop.toml", project, state)
    assert (home.db, home.lock_dir, home.runs_dir) == (state / "loop.db", state / "locks", state / "runs")
    assert (home.pass_lock, home.run_lock) == (state / "pass.lock", state / "run.lock")


def test_a_store_without_config_is_a_home_whose_config_does_not_exist(tmp_path: Path) -> None:
    put_store(tmp_path / ".loop")
    home = find(tmp_path, None, {})
    assert home.config == tmp_path / "loop.toml"
    assert not home.config.exists()


def test_an_empty_state_directory_is_no_home(project: Path) -> None:
    (project / "deep" / ".loop").mkdir()
    assert find(project / "deep", None, {}).root == project


def test_the_nearer_home_wins(project: Path) -> None:
    put_store(project / "deep" / ".loop")
    assert find(project / "deep" / "er", None, {}).root == project / "deep"


def test_nothing_found_says_where_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing) as caught:
        find(tmp_path, None, {})
    assert caught.value.message == f"no loop.toml in {tmp_path} or above"
    assert caught.value.hint == "run: loop init"
    assert (caught.value.code, caught.value.exit_code) == ("config_missing", 3)


def test_without_a_directory_the_working_one_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project / "deep")
    assert find(None, None, {}).root == project


def test_an_explicit_config_wins_and_may_have_any_name(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('loop.state = "s"')
    assert find(project, other, {"LOOP_CONFIG": str(project / "loop.toml")}) == Home(other, tmp_path, tmp_path / "s")
    assert find(project, Path("../other.toml"), {}).config == other


def test_the_environment_names_a_config_unless_a_directory_is_given(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.toml"
    other.touch()
    monkeypatch.chdir(project)
    assert find(None, None, {"LOOP_CONFIG": str(other)}).config == other
    assert find(project, None, {"LOOP_CONFIG": str(other)}).root == project
    assert find(None, None, {"LOOP_CONFIG": ""}).root == project


def test_a_config_named_and_not_there_is_an_error(project: Path) -> None:
    with pytest.raises(ConfigMissing, match=r"nope\.toml"):
        find(project, Path("nope.toml"), {})
    with pytest.raises(ConfigMissing, match="LOOP_CONFIG"):
        find(None, None, {"LOOP_CONFIG": str(project / "nope.toml")})


def test_a_directory_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nope"):
        find(tmp_path / "nope", None, {})


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('[loop]\nstate = "var/loop"\nslots = "wrong"\nbogus = 1', "var/loop"),
        ('[loop]\nstate = "../beside"', "../beside"),
        ("[loop]\nstate = 5", ".loop"),
        ('[loop]\nstate = ""', ".loop"),
        ('[loop]\nstate = "a\\u0000b"', ".loop"),
        ("loop = 5", ".loop"),
        ("\ufeff[loop]\nstate = 's'", "s"),
    ],
)
def test_only_the_state_key_is_read_and_leniently(project: Path, text: str, state: str) -> None:
    (project / "loop.toml").write_text(text)
    assert find(project, None, {}).state == Path(os.path.normpath(project / state))


def test_a_tilde_expands(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    (project / "loop.toml").write_text('loop.state = "~/s"')
    assert find(project, None, {}).state == Path("/home/somebody/s")


@pytest.mark.parametrize("raw", [b"[loop\n", b"\xff", b"x = " + b"[" * 20_000, b"#" * ((1 << 20) + 1)])
def test_a_broken_config_leaves_a_store_beside_it_readable(project: Path, raw: bytes) -> None:
    (project / "loop.toml").write_bytes(raw)
    with pytest.raises(ConfigError, match=r"loop\.toml"):
        find(project, None, {})
    put_store(project / ".loop")
    assert find(project, None, {}).state == project / ".loop"


def test_a_syntax_error_names_its_line(project: Path) -> None:
    (project / "loop.toml").write_text('[loop]\nstate = "x"\nslots 6\n')
    with pytest.raises(ConfigError, match="line 3") as caught:
        find(project, None, {})
    assert caught.value.code == "config_invalid"


def test_a_directory_called_loop_toml_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "loop.toml").mkdir()
    with pytest.raises(ConfigError, match=r"loop\.toml is a directory"):
        find(tmp_path, None, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_config_is_one_clear_error(project: Path) -> None:
    (project / "loop.toml").chmod(0)
    with pytest.raises(ConfigError, match="permission denied"):
        find(project, None, {})


def test_read_commands_pay_for_no_pydantic() -> None:
    code = "import sys, loop.home, loop.selector, loop.command; print('pydantic' in sys.modules)"
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout == "False\n"
