"""Foreign programs may hang, flood, fork or not exist: each is a result, in time, and leaves nobody behind."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from events.errors import ConfigError
from loop.command import CommandResult, placeholder_problem, render, render_argv, run_bounded


def run(argv: list[str], cwd: Path, **options: Any) -> CommandResult:
    settings: dict[str, Any] = {"env": os.environ, "timeout": 10, "limit_bytes": 1 << 20}
    return run_bounded(argv, cwd=cwd, **settings | options)


def python(code: str, cwd: Path, **options: Any) -> CommandResult:
    return run([sys.executable, "-S", "-c", code], cwd, **options)


def is_gone(pid: int) -> bool:
    """Whether no process `pid` runs any more; a zombie that nobody reaped counts as gone."""
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_output_exit_code_and_time_are_told(tmp_path: Path) -> None:
    result = python("import sys; print('out'); print('err', file=sys.stderr)", tmp_path)
    assert (result.code, result.signal, result.failure, result.ok, result.text) == (0, None, None, True, "")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert 0 < result.seconds < 10


def test_a_failure_is_told_with_the_last_line_of_stderr(tmp_path: Path) -> None:
    result = python("import sys; print('a\\nno \\x1b[31msuch repo', file=sys.stderr); sys.exit(3)", tmp_path)
    assert (result.code, result.failure, result.ok) == (3, None, False)
    assert result.text.endswith("exit code 3: no [31msuch repo")


def test_a_death_by_signal_is_told(tmp_path: Path) -> None:
    result = python("import os; os.kill(os.getpid(), 9)", tmp_path)
    assert (result.code, result.signal, result.failure) == (None, 9, None)


def test_a_hanging_command_is_killed_with_its_children_and_keeps_what_it_said(tmp_path: Path) -> None:
    result = run(["sh", "-c", "sleep 60 & echo $!; sleep 60"], tmp_path, timeout=0.5)
    assert (result.failure, result.signal, result.code) == ("timeout", 9, None)
    assert "0.5 s" in result.text
    assert result.seconds < 5
    assert is_gone(int(result.stdout))


def test_a_flood_is_cut_at_the_limit(tmp_path: Path) -> None:
    result = run(["sh", "-c", "yes"], tmp_path, limit_bytes=10_000)
    assert (result.failure, len(result.stdout)) == ("too_large", 10_000)
    assert result.seconds < 5


def test_exactly_the_limit_is_no_flood(tmp_path: Path) -> None:
    result = python("print('x' * 200_000, end='')", tmp_path, limit_bytes=200_000)
    assert (result.failure, len(result.stdout)) == (None, 200_000)


def test_much_stderr_is_no_failure_and_its_end_is_kept(tmp_path: Path) -> None:
    result = python("import sys; sys.stderr.write('x' * 300_000 + 'end')", tmp_path)
    assert result.ok
    assert len(result.stderr) == 16 * 1024
    assert result.stderr.endswith(b"end")


def test_a_grandchild_that_holds_the_pipe_open_is_not_waited_for(tmp_path: Path) -> None:
    result = run(["sh", "-c", "sleep 60 & echo $!"], tmp_path)
    assert result.ok
    assert result.seconds < 5
    assert is_gone(int(result.stdout))


def test_a_grandchild_in_a_session_of_its_own_that_floods_on_is_not_listened_to_for_long(tmp_path: Path) -> None:
    result = run(["sh", "-c", "echo done; setsid sh -c 'while :; do echo x >&2; done' & sleep 0.3"], tmp_path)
    assert result.ok
    assert result.seconds < 5
    assert b"done" in result.stdout


def test_a_command_that_closes_its_outputs_early_is_still_waited_for(tmp_path: Path) -> None:
    result = python("import os, time; os.close(1); os.close(2); time.sleep(0.3); os._exit(7)", tmp_path)
    assert result.code == 7
    assert result.seconds >= 0.3


def test_input_larger_than_the_pipe_is_fed_while_output_is_read(tmp_path: Path) -> None:
    result = python("import sys; sys.stdout.write(sys.stdin.read())", tmp_path, stdin=b"x" * 500_000)
    assert (result.code, len(result.stdout)) == (0, 500_000)


def test_a_command_that_does_not_read_its_input_is_no_failure(tmp_path: Path) -> None:
    assert python("print(1)", tmp_path, stdin=b"x" * 500_000).stdout == b"1\n"


def test_without_input_stdin_is_empty(tmp_path: Path) -> None:
    assert python("import sys; print(sys.stdin.read())", tmp_path).stdout == b"\n"


def test_loop_variables_reach_a_command_only_when_given_on_purpose(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "LOOP_TOKEN": "7", "LOOP_CONFIG": "/x", "KEPT": "1"}
    code = "import os; print(sorted(k for k in os.environ if k != 'LC_CTYPE'))"
    result = python(code, tmp_path, env=env, extra_env={"LOOP_DRY_RUN": "1"})
    assert result.stdout.decode().strip() == "['KEPT', 'LOOP_DRY_RUN', 'PATH']"


def test_a_command_has_a_session_of_its_own_and_no_descriptor_of_ours(tmp_path: Path) -> None:
    with open(tmp_path / "secret", "w") as file:
        os.set_inheritable(file.fileno(), True)
        code = "import os; print(os.getsid(0) == os.getpid(), len(os.listdir('/proc/self/fd')) - 1)"
        assert python(code, tmp_path).stdout == b"True 3\n"


def test_words_are_never_read_by_a_shell(tmp_path: Path) -> None:
    assert python("import sys; print(sys.argv[1])", tmp_path).code == 1
    result = run([sys.executable, "-c", "import sys; print(sys.argv[1:])", "$(id); a b", ""], tmp_path)
    assert result.stdout == b"['$(id); a b', '']\n"


def script(path: Path, text: str, mode: int) -> str:
    path.write_text(text)
    path.chmod(mode)
    return f"./{path.name}"


def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    missing = run(["./nope"], tmp_path)
    assert (missing.failure, missing.code, missing.signal) == ("not_found", None, None)
    assert missing.text == f"no program ./nope in {tmp_path}"
    assert run(["no-such-program-anywhere"], tmp_path).text == "no program no-such-program-anywhere on PATH"

    plain = run([script(tmp_path / "plain", "#!/bin/sh\n", 0o644)], tmp_path)
    assert (plain.failure, "chmod +x" in plain.text) == ("not_executable", True)
    headless = run([script(tmp_path / "headless", "echo 1\n", 0o755)], tmp_path)
    assert (headless.failure, "#!" in headless.text) == ("not_executable", True)
    lost = run([script(tmp_path / "lost", "#!/no/such/interpreter\n", 0o755)], tmp_path)
    assert (lost.failure, "interpreter" in lost.text) == ("not_found", True)

    assert run(["true"], tmp_path / "gone").failure == "os_error"
    assert run(["a\0b"], tmp_path).failure == "os_error"
    assert run(["echo", "x" * 3_000_000], tmp_path).failure == "os_error"
    assert run([], tmp_path).failure == "not_found"


def test_a_relative_program_is_looked_for_in_the_working_directory(tmp_path: Path) -> None:
    name = script(tmp_path / "here", "#!/bin/sh\npwd\n", 0o755)
    assert run([name], tmp_path).stdout.decode().strip() == str(tmp_path.resolve())


# Placeholders


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{category}", "code"),
        ("--task={task} {category}", "--task={category}$(id) code"),
        ("{{category}}", "{category}"),
        ("{{{category}}}", "{code}"),
        ("{session}", ""),
        ("plain }} {{", "plain } {"),
    ],
)
def test_placeholders_are_filled_once(template: str, text: str) -> None:
    assert render(template, {"category": "code", "task": "{category}$(id)"}) == text
    assert placeholder_problem(template) is None


def test_a_filled_word_stays_one_word() -> None:
    assert render_argv(["a", "{task}", "x{task}"], {"task": "b c"}) == ["a", "b c", "xb c"]


@pytest.mark.parametrize("template", ["{taks}", "{", "}", "{}", "{ task }", "{task", "${HOME}", '{"a": 1}', "{{}"])
def test_an_unknown_placeholder_or_a_stray_brace_is_an_error(template: str) -> None:
    problem = placeholder_problem(template)
    assert problem is not None
    assert "{{" in problem or "}}" in problem
    with pytest.raises(ConfigError):
        render(template, {})
