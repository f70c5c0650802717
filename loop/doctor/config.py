"""Does the config hold here: commands, directories, git."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from events.errors import ConfigError, LoopError
from loop.doctor.check import Check, listed
from loop.home import Home

if TYPE_CHECKING:
    from loop.config import Config




def valid(home: Home) -> tuple[Config | None, list[Check]]:
    from loop.config_file import load
    from loop.config_report import state_in_work_tree, warnings
    from loop.targets import about_targets

    try:
        config = load(home.config)
    except ConfigError as error:
        return None, [Check("config", "fail", error.message, error.hint)]
    count = len(config.categories)
    checks = [Check("config", "ok", f"{home.config}, {count} {'category' if count == 1 else 'categories'}")]
    elsewhere = {*about_targets(config), *state_in_work_tree(config)}  # checks of their own
    if found := [line for line in warnings(config) if line not in elsewhere]:
        checks.append(Check("config_warnings", "warn", "\n".join(found), "mend loop.toml, then: loop config check"))
    return config, checks


def selector(config: Config, environ: Mapping[str, str]) -> Check:
    if config.selector.command is None:
        return Check("selector", "ok", "builtin")
    problem = _unusable(config.selector.command[0], config.directory, environ)
    if problem:
        return Check("selector", "fail", problem, "mend selector.command; it runs in the directory of loop.toml")
    return Check("selector", "ok", config.selector.command[0])


def commands(config: Config, environ: Mapping[str, str]) -> Check:
    """The program of every command line; one that a placeholder decides cannot be known before its session."""
    looked, problems = set[str](), dict[str, None]()
    for place, program, cwd, path in _programs(config, environ):
        looked.add(program)
        if problem := _unusable(program, cwd, path):
            problems[f"{place}: {problem}"] = None
    if problems:
        return Check("commands", "fail", listed(problems, "\n"), "install them, or mend the commands in loop.toml")
    return Check("commands", "ok", f"found: {', '.join(sorted(looked)) or 'none is configured'}")


def _programs(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str, Path | None, Mapping[str, str]]]:
    """(where it stands, program, directory it is started in or None where unknown, environment)."""
    from loop.config_file import session_env

    for name, category in config.categories.items():
        settings = config.session_of(name)
        hooks = {"gate": category.gate, "before": settings.before, "after": settings.after, "grader": settings.grader}
        cwd = _fixed(settings.cwd)
        for backend in config.backends_of(name):
            env = dict(environ)
            with contextlib.suppress(ConfigError):  # an env_file that cannot be read is a warning of the config
                env |= session_env(config, name, backend)
            place = f"{name} on {backend}" if len(config.backends) > 1 else name
            program = _fixed(config.command_of(name, backend)[0])
            if program is not None:
                yield place, program, None if cwd is None else Path(cwd), env
            for hook, argv in hooks.items():
                if argv is not None and (program := _fixed(argv[0])) is not None:
                    yield f"{name}, {hook}", program, config.directory, environ if hook == "gate" else env
    for backend, section in config.backends.items():
        if section.command is not None and (program := _fixed(section.command[0])) is not None:
            used = any(backend in config.backends_of(name) for name in config.categories)
            if not used:
                yield f"backend {backend}", program, None, environ


def directories(config: Config) -> Check:
    places = {cwd for name in config.categories if (cwd := _fixed(config.session_of(name).cwd)) is not None}
    if missing := [cwd for cwd in sorted(places) if not os.path.isdir(cwd)]:
        return Check("cwd", "fail", f"no directory {listed(missing)}", "make it, or mend cwd in loop.toml")
    return Check("cwd", "ok", listed(sorted(places)) or "made for each session")


def git(config: Config, environ: Mapping[str, str]) -> list[Check]:
    from loop.commands.init import work_tree

    wanted = [name for name, category in config.categories.items() if category.evidence == "git"]
    if not wanted:
        return []
    if shutil.which("git", path=environ.get("PATH", os.defpath)) is None:
        detail = f'evidence = "git" in {listed(wanted)}, and no git on PATH'
        return [Check("git", "fail", detail, "install git, or choose other evidence")]
    fixed = {name: cwd for name in wanted if (cwd := _fixed(config.session_of(name).cwd)) is not None}
    if outside := [f"{name} ({cwd})" for name, cwd in fixed.items() if work_tree(Path(cwd)) is None]:
        detail = f'evidence = "git", but no work tree: {listed(outside)}'
        return [Check("git", "warn", detail, "no commit can be found there; mend cwd or evidence")]
    return [*_hooks(fixed, environ)] or [Check("git", "ok", f"looked at for {listed(wanted)}")]


def _hooks(places: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[Check]:
    """Where the commits of sessions would not carry the trailer by which they count."""
    from loop import trailer

    for cwd in sorted(set(places.values())):
        with contextlib.suppress(LoopError):  # no work tree, which is a warning of its own
            if trailer.state_of(trailer.hook_of(Path(cwd), environ)) != "installed":
                detail = f"no hook in {cwd} adds the trailer {trailer.TRAILER}; commits count only by that"
                yield Check("git", "warn", detail, f"run: loop hook install {shlex.quote(cwd)}")


def _fixed(template: str) -> str | None:
    """What a template always renders to; None where a placeholder has a say."""
    from loop.command import PLACEHOLDERS, render

    one, other = (render(template, dict.fromkeys(PLACEHOLDERS, letter)) for letter in "ab")
    return one if one == other else None


def _unusable(program: str, cwd: Path | None, environ: Mapping[str, str]) -> str | None:
    """Why a program cannot be started, or None; one with a slash is looked for from `cwd`, others on PATH."""
    if "/" not in program:
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        return None if found else f"no program {program} on PATH"
    if cwd is None and not os.path.isabs(program):
        return None
    path = (cwd or Path("/")) / program
    if not path.is_file():
        return f"no program {path}" + (" (~ is not expanded in a command)" if program.startswith("~") else "")
    return None if os.access(path, os.X_OK) else f"{path} is not executable; chmod +x is missing"
