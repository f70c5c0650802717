"""Does each backend's agent start, and is somebody logged in: asked of the agent itself, which spends no quota."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from events.errors import ConfigError
from loop.command import CommandResult, run_bounded
from loop.doctor.check import Check
from loop.text import visible

if TYPE_CHECKING:
    from loop.config import BackendSection, Config

SECONDS = 30.0  # for one question
LARGEST = 64 << 10
AT_ONCE = 4
VERSION = ("--version",)


def examine(config: Config, environ: Mapping[str, str]) -> list[Check]:
    """One finding for each backend that runs a preset's agent; others are programs that nobody here knows how to ask.

    One whose program is not there is left to the check of the commands.
    """
    asked = [name for name, section in config.backends.items() if _is_agent(section)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = threads.map(lambda name: _backend(config, name, environ), asked)
        return [check for check in found if check is not None]


def _is_agent(section: BackendSection) -> bool:
    """Whether its program is the preset's own, and no shell."""
    return section.preset is not None and bool(section.command) and bool(section.resume_command or section.login)


def _backend(config: Config, name: str, environ: Mapping[str, str]) -> Check | None:
    section = config.backends[name]
    assert section.command is not None
    program, label = section.command[0], f"backend_{name}"
    env = {**environ, **_env(config, name)}
    version = _ask([program, *VERSION], config, env)
    if version.failure in ("not_found", "not_executable"):
        return None
    if not version.ok:
        fix = f"see what it says: {program} {' '.join(VERSION)}"
        return Check(label, "fail", f"{program} does not start: {visible(version.text, 200)}", fix)
    said = _line(version.stdout)
    detail = said if said.startswith(program) else f"{program} {said}"
    if config.backends[name].pool:
        detail += f", pool {section.pool}"
    if not section.login:
        return Check(label, "ok", f"{detail}; it cannot be asked for its login")
    login = _ask([program, *section.login], config, env)
    if login.ok:
        return Check(label, "ok", f"{detail}, logged in")
    words = f"{program} {' '.join(section.login)}"
    fix = "log in with its env, or give it a key; where the agent's own settings name a provider, it may well work"
    return Check(label, "warn", f"{detail}: {words} knows of no login ({visible(login.text, 120)})", fix)


def _env(config: Config, name: str) -> dict[str, str]:
    """The variables of its sessions, as far as they are every category's."""
    from loop.config import expanded
    from loop.config_file import read_env_file
    from loop.home import resolved

    values: dict[str, str] = {}
    if config.session.env_file is not None:
        try:
            values = read_env_file(resolved(config.directory, config.session.env_file))
        except ConfigError:  # a warning of the config
            values = {}
    return {**values, **expanded({**config.session.env, **config.backends[name].env})}


def _ask(argv: Sequence[str], config: Config, env: Mapping[str, str]) -> CommandResult:
    return run_bounded(argv, cwd=config.directory, env=env, timeout=SECONDS, limit_bytes=LARGEST)


def _line(output: bytes) -> str:
    """The first line of what it printed."""
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return visible(os.fsdecode(lines[0]), 60) if lines else "says no version"
