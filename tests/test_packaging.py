"""What a user gets: the wheel holds all it needs, the names are ours, and reading needs little."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("events", "projections", "migrations", "loop")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "cli.py", *ROOMS)
HEAVY = ("pydantic", "sqlite_utils")
READS = (
    ("status",),
    ("status", "--json"),
    ("log",),
    ("log", "--json"),
    ("why", "last"),
    ("sessions",),
    ("show", "1"),
    ("backends",),
    ("usage",),
)


def environ() -> dict[str, str]:
    """An environment in which nothing of this checkout or of a session is found by accident."""
    foreign = ("LOOP_", "PYTHON", "COVERAGE", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "NO_COLOR": "1"}


def call(argv: Sequence[str | Path], cwd: Path, timeout: float = 110) -> str:
    """What a command prints; fails unless it exits with 0."""
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
    return done.stdout


# ── names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [*ROOMS, "cli"])
def test_a_generic_name_resolves_to_ours(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert Path(module.__file__).resolve().is_relative_to(ROOT)


# ── imports at run time ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one pass and its sessions' ends in the log."""
    directory = tmp_path_factory.mktemp("project")
    for command in (["init"], ["tick"], ["drain", "--wait"]):
        call([sys.executable, ROOT / "cli.py", *command], directory)
    return directory


@pytest.mark.parametrize("command", READS, ids=" ".join)
def test_a_read_command_imports_neither_pydantic_nor_sqlite_utils(project: Path, command: tuple[str, ...]) -> None:
    probe = (
        "import sys, runpy\n"
        f"sys.argv[1:] = {command!r}\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / 'cli.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "print('\\nLOADED', code, loaded)\n"
    )
    out = call([sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{probe}"], project)
    assert out.splitlines()[-1] == "LOADED 0 []", why_loaded(project, command)


def why_loaded(project: Path, command: tuple[str, ...]) -> str:
    """The chain of imports that brought a heavy package in, for the message of a failure."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "cli.py"), *command],
        cwd=project,
        env=environ(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line.rpartition("|")[2] for line in done.stderr.splitlines() if line.startswith("import time")]
    # An import is printed after those it brought in, which stand deeper.
    for heavy in HEAVY:
        at = next((number for number, line in enumerate(lines) if line.strip() == heavy), None)
        if at is None:
            continue
        chain, depth = [heavy], len(lines[at]) - len(lines[at].lstrip())
        for line in lines[at + 1 :]:
            if (indent := len(line) - len(line.lstrip())) < depth:
                chain, depth = [*chain, line.strip()], indent
        return " ← ".join(chain)
    return "not loaded when run from the command line"


def test_the_shim_loads_nothing_but_itself_and_the_standard_library() -> None:
    probe = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "before = set(sys.modules)\n"
        "import loop.sessions.shim\n"
        "new = set(sys.modules) - before\n"
        "print(*sorted(name for name in new if name.split('.')[0] not in sys.stdlib_module_names))\n"
    )
    loaded = call([sys.executable, "-I", "-S", "-c", probe], ROOT).split()
    assert loaded == [
        "loop",
        "loop.sessions",
        "loop.sessions.cgroup",
        "loop.sessions.faultpoint",
        "loop.sessions.handshake",
        "loop.sessions.locks",
        "loop.sessions.output",
        "loop.sessions.proc",
        "loop.sessions.rundir",
        "loop.sessions.shim",
        "loop.sessions.silence",
        "loop.sessions.stopfile",
    ]


# ── the wheel ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: a build leaves its own directories beside the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    call([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", copy / "dist", copy], copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a new environment with nothing but the wheel and its pinned dependencies."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python"]
    call([*pip, "install", "--quiet", "--no-compile", "-c", ROOT / "constraints.txt", wheel], place)
    return place / "bin"


def test_the_wheel_holds_our_packages_and_nothing_beside_them(wheel: Path) -> None:
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    ).stdout.splitlines()[1:]
    files = {line.split()[0] for line in names}
    tops = {name.split("/")[0] for name in files if ".dist-info" not in name}
    assert tops == {*ROOMS, "cli.py"}
    for room in ROOMS:
        wanted = {
            str(path.relative_to(ROOT))
            for path in (ROOT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert wanted <= files
    assert any(name.endswith("licenses/LICENSE") for name in files)


def test_the_installed_command_works_in_an_empty_directory(installed: Path, tmp_path: Path) -> None:
    loop = installed / "loop"
    assert call([loop, "--version"], tmp_path).startswith("loop ")
    call([loop, "init"], tmp_path)
    call([loop, "tick"], tmp_path)
    call([loop, "drain", "--wait"], tmp_path)
    assert "0 same-lock violations" in call([loop, "status"], tmp_path)
    names = ", ".join([*ROOMS, "cli"])
    probe = f"import {names}; print(*(each.__file__ for each in ({names})))"
    for path in call([installed / "python", "-P", "-c", probe], tmp_path).split():
        assert Path(path).is_relative_to(installed.parent)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_installed_demo_shows_its_figures(installed: Path, tmp_path: Path) -> None:
    out = call([installed / "loop", "demo", "--seconds", "5", "--directory", tmp_path / "demo"], tmp_path, timeout=280)
    assert "16 of 18" in out
    assert "✗" not in out.partition("what this log says:")[2]
