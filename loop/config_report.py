"""What `config check` and `config show --origin` tell about a valid config: warnings, and where values come from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loop.config import BackendSection, CategorySection, Config, Section
from loop.config_file import SECTIONS
from loop.duration import format_bytes, format_seconds
from loop.home import resolved
from loop.targets import about_targets

DURATION_KEYS = frozenset(
    {
        "every", "jitter", "stagger", "timeout", "max_age", "window", "silence", "grace", "cooldown", "age",
        "grader_timeout",
    }
)  # fmt: skip
INHERITED = (
    "timeout", "silence", "kill_on_silence", "grace", "env_file", "before", "after", "grader", "grader_timeout",
)  # fmt: skip


def warnings(config: Config) -> list[str]:
    """What is valid and yet not what its writer may think; one line each."""
    return [
        *state_in_work_tree(config),
        *about_targets(config),
        *_about_files(config),
        *_about_prompts(config),
        *_about_the_loop(config),
    ]


@dataclass(frozen=True, slots=True)
class Origin:
    """One effective key: its dotted name, its JSON-ready value, and the file's name or `default`.

    Durations read `"50m"`, sizes `"1GiB"`; values of `env` are masked.
    """

    key: str
    value: object
    origin: str


def origins(config: Config) -> list[Origin]:
    """Every effective key of the config and where it comes from, in the order of the documentation."""
    rows: list[Origin] = []
    for name in SECTIONS:
        section: Section = getattr(config, name)
        rows += _origins_of(name, section, config)
    for name, category in config.categories.items():
        rows += _origins_of(f"categories.{name}", category, config)
    for name, backend in config.backends.items():
        rows += _origins_of(f"backends.{name}", backend, config)
    for name, pool in config.pools.items():
        rows += _origins_of(f"pools.{name}", pool, config)
    return rows


def state_in_work_tree(config: Config) -> Iterator[str]:
    """An agent that cleans or resets its work tree must not find the log in it."""
    state = config.state.resolve()
    cwds = {category.cwd or config.loop.cwd for category in config.categories.values()}
    for cwd in sorted(cwd for cwd in cwds if "{" not in cwd):
        path = resolved(config.directory, cwd).resolve()
        top = next((parent for parent in (path, *path.parents) if os.path.lexists(parent / ".git")), None)
        if top is not None and state.is_relative_to(top):
            yield (
                f"loop.state: {state} lies inside the git work tree {top}, where sessions run: git clean -x there "
                f'destroys the log; set cwd to a worktree of its own, or state = "~/.local/state/loop/{top.name}"'
            )
            return


def _about_files(config: Config) -> Iterator[str]:
    files = {"session.env_file": config.session.env_file}
    for name, category in config.categories.items():
        files[f"categories.{name}.env_file"] = category.env_file
        files[f"categories.{name}.prompt_file"] = category.prompt_file
    for key, written in files.items():
        if written is not None and not (path := resolved(config.directory, written)).is_file():
            yield f"{key}: no file {path}; sessions that need it cannot start"
    tasks = resolved(config.directory, config.selector.tasks)
    if "tasks" in config.selector.model_fields_set and not tasks.is_dir():
        yield f"selector.tasks: no directory {tasks}; the builtin selector knows of no tasks"


def _about_prompts(config: Config) -> Iterator[str]:
    for name, category in config.categories.items():
        commands = [config.command_of(name, backend) for backend in config.backends_of(name)]
        wants = any("{prompt}" in word for command in commands for word in command)
        if wants and category.prompt is None and category.prompt_file is None:
            yield f"categories.{name}: its command has {{prompt}} and it has neither prompt nor prompt_file"
        if category.gate is not None and category.parallel is False:
            yield f"categories.{name}.gate: it is never asked, as parallel = false is started by hand only"
        if "{task}" in (category.cwd or config.loop.cwd):
            yield f"categories.{name}.cwd: {{task}} is the selector's text and may lead elsewhere; {{session}} is safe"


def _about_the_loop(config: Config) -> Iterator[str]:
    if not config.categories:
        yield "categories: there are none, so nothing will ever be started"
    elif not any(category.parallel for category in config.categories.values()):
        yield "categories: all are parallel = false, so only `loop start` will start one"
    if config.loop.every is not None and config.loop.jitter >= config.loop.every:
        yield f"loop.jitter: {format_seconds(config.loop.jitter)} is as long as the time between two fires"
    for alias in config.selector.aliases:
        if alias in config.categories:
            yield f"selector.aliases: {alias} is a category too, and the alias hides it from the selector"


def _origins_of(place: str, section: Section, config: Config) -> Iterator[Origin]:
    for key in type(section).model_fields:
        value, given = getattr(section, key), key in section.model_fields_set
        if isinstance(section, CategorySection):
            if key in INHERITED and value is None:
                value, given = getattr(config.session, key), key in config.session.model_fields_set
            elif key == "cwd" and value is None:
                value, given = config.loop.cwd, "cwd" in config.loop.model_fields_set
        elif isinstance(section, BackendSection) and key == "pool" and value is None:
            value = place.removeprefix("backends.")
        origin = config.path.name if given else _otherwise(section, key, value)
        if key == "env":
            yield from (Origin(f"{place}.env.{name}", "***", origin) for name in value)
        else:
            yield Origin(f"{place}.{key}", _readable(key, value), origin)


def _otherwise(section: Section, key: str, value: object) -> str:
    """Where the value of a key comes from that the file does not set."""
    preset = section.preset if isinstance(section, BackendSection) and key != "pool" else None
    return f"preset {preset}" if preset is not None and value else "default"


def _readable(key: str, value: object) -> object:
    if key in DURATION_KEYS and isinstance(value, int | float):
        return format_seconds(value)
    if key in ("min_disk_free", "size") and isinstance(value, int):
        return format_bytes(value)
    if isinstance(value, Mapping):
        return {str(name): item for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
