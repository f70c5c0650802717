"""Reading loop.toml: every problem of the file at once, each with its place and its mend; and the files it names."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from events.errors import ConfigError
from loop.command import render, render_loosely
from loop.config import (
    DEFAULT_BACKEND,
    AllocationSection,
    BackendSection,
    CategorySection,
    Config,
    HostSection,
    LoopSection,
    PoolSection,
    RespawnSection,
    ResumeSection,
    RetentionSection,
    Section,
    SelectorSection,
    SessionSection,
    expanded,
)
from loop.config_presets import TASK_IN_PROGRAM, PresetSection, filled_in, runs_its_prompt, tasks_in_programs
from loop.config_values import name_problem
from loop.home import digest, parse_toml, read_text, resolved

SECTIONS: Mapping[str, type[Section]] = {
    "loop": LoopSection,
    "selector": SelectorSection,
    "allocation": AllocationSection,
    "respawn": RespawnSection,
    "resume": ResumeSection,
    "host": HostSection,
    "session": SessionSection,
    "retention": RetentionSection,
}
NAMED: Mapping[str, type[Section]] = {
    "categories": CategorySection,
    "backends": BackendSection,
    "presets": PresetSection,
    "pools": PoolSection,
}

AnySection = TypeVar("AnySection", bound=Section)
Problems = list[str]


def load(path: Path) -> Config:
    """The config in the file `path`. Raises ConfigError, whose message has a line for every problem of the file."""
    path = resolved(Path.cwd(), str(path))
    return parse(read_text(path), path)


def parse(text: str, path: Path) -> Config:
    """The config that `text` holds; `path` is where it is, or would be: relative paths in it start there.

    Raises ConfigError, whose message begins with the path and has a line for every problem.
    """
    return replace(from_tables(parse_toml(text, path), path), source=digest(text))


def from_tables(tables: Mapping[str, object], path: Path) -> Config:
    """The config of the tables of a file at `path`. Raises ConfigError like `parse`."""
    problems: Problems = []
    for name in tables:
        if name not in SECTIONS and name not in NAMED:
            near = difflib.get_close_matches(name, [*SECTIONS, *NAMED], n=1) or [", ".join([*SECTIONS, *NAMED])]
            problems.append(f"[{name[:64]}]: unknown table; did you mean [{near[0]}]?")
    loop = _section(LoopSection, "loop", tables, problems)
    selector = _section(SelectorSection, "selector", tables, problems)
    allocation = _section(AllocationSection, "allocation", tables, problems)
    respawn = _section(RespawnSection, "respawn", tables, problems)
    resume = _section(ResumeSection, "resume", tables, problems)
    host = _section(HostSection, "host", tables, problems)
    session = _section(SessionSection, "session", tables, problems)
    retention = _section(RetentionSection, "retention", tables, problems)
    categories = _named(CategorySection, "categories", tables, problems)
    presets = _named(PresetSection, "presets", tables, problems)
    written = _named(BackendSection, "backends", tables, problems) or {DEFAULT_BACKEND: BackendSection()}
    backends = filled_in(written, presets, problems)
    pools = _named(PoolSection, "pools", tables, problems)
    problems += _contradictions(selector, categories, backends)
    used = sorted({backend.pool or name for name, backend in backends.items() if backend})
    if all(backends.values()):
        problems += [f"[pools.{name}]: {_no_such('pool', name, used)}" for name in pools if name not in used]
    if problems or not (
        loop and selector and allocation and respawn and resume and host and session and retention
    ):
        raise _all_at_once(path, problems)
    good = {name: category for name, category in categories.items() if category}
    known = {name: backend for name, backend in backends.items() if backend}
    shared = {name: pool for name, pool in pools.items() if pool}
    return Config(path, loop, selector, allocation, respawn, host, session, good, known, retention, resume, shared)


def session_env(config: Config, category: str, backend: str) -> dict[str, str]:
    """The configured variables of one session; later wins: `env_file`, `[session]`, the backend, the category.

    Raises ConfigError where the env_file cannot be read. The values are for the session alone.
    """
    env_file = config.session_of(category).env_file
    return {
        **(read_env_file(env_file) if env_file else {}),
        **expanded({**config.session.env, **config.backends[backend].env, **config.categories[category].env}),
    }


def prompt_of(config: Config, category: str, values: Mapping[str, str]) -> str:
    """What fills `{prompt}` for one session: the category's `prompt` or `prompt_file`, with `values` filled in.

    Empty where it has neither. Raises ConfigError where the file cannot be read, or is a program with `{task}` in it.
    """
    section = config.categories[category]
    if section.prompt_file is not None:
        path = resolved(config.directory, section.prompt_file)
        text = _read_named(path, f"categories.{category}.prompt_file")
        commands = (config.command_of(category, backend) for backend in config.backends_of(category))
        if "{task}" in text and any(map(runs_its_prompt, commands)):
            raise ConfigError(f"{path} (categories.{category}.prompt_file): {TASK_IN_PROGRAM}", "mend that file")
        return render_loosely(text, values)
    return render(section.prompt or "", values)


def read_env_file(path: Path) -> dict[str, str]:
    """The variables of a file of `KEY=VALUE` lines; `#` lines, `export` and quotes around a value are understood.

    Nothing is interpolated. Raises ConfigError, which names lines and never values.
    """
    env: dict[str, str] = {}
    for number, line in enumerate(_read_named(path, "env_file").splitlines(), start=1):
        line = line.strip().removeprefix("export ").strip()
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or not name.isidentifier() or not name.isascii() or "\0" in value:
            raise ConfigError(f"{path}: line {number} is no KEY=VALUE line", 'write NAME=value, or NAME="a value"')
        if name.startswith("LOOP_"):
            raise ConfigError(f"{path}: line {number}: {name} is loop's own", "names with LOOP_ cannot be set")
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        env[name] = value
    return env


def _read_named(path: Path, key: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"no file {path} ({key})", "write the file, or take the key out of loop.toml") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"cannot read {path} ({key}): {reason}", "check the file: ls -l") from None


# Reading


def _section(model: type[AnySection], name: str, tables: Mapping[str, object], problems: Problems) -> AnySection | None:
    if name == "selector" and name not in tables:
        problems.append('[selector]: missing; write command = ["./selector"] or builtin = true under it')
        return None
    return validated(model, name, tables.get(name, {}), problems)


def _named(
    model: type[AnySection], kind: str, tables: Mapping[str, object], problems: Problems
) -> dict[str, AnySection | None]:
    """The tables of one kind by name; None for one with problems, so that a reference to it is no further problem."""
    content = tables.get(kind, {})
    if not isinstance(content, dict):
        problems.append(f"[{kind}]: tables with names are wanted: [{kind}.NAME]")
        return {}
    found: dict[str, AnySection | None] = {}
    for name, table in content.items():
        problem = name_problem(name)
        if problem:
            problems.append(f"[{kind}]: {problem}")
        section = validated(model, f"{kind}.{_shown(name) if problem else name}", table, problems)
        found[name] = None if problem else section
    return found


def validated(model: type[AnySection], place: str, table: object, problems: Problems) -> AnySection | None:
    """The section of `table`, or None and a line for each of its problems; `place` is its name in the file."""
    if not isinstance(table, dict):
        problems.append(f"[{place}]: a table is wanted, not {_shown(table)}")
        return None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["type"] == "default_factory_not_called":
                continue  # a default that rests on a key with a problem of its own
            key = ".".join(str(part) for part in detail["loc"])
            if detail["type"] == "extra_forbidden":
                problems.append(f"[{place}] {key}: unknown key; {_whereabouts(key, model)}")
            elif cause := detail.get("ctx", {}).get("error"):
                problems.append(f"[{place}]{key and ' '}{key}: {cause}")
            else:
                rule = detail["msg"].removeprefix("Input should be ")
                problems.append(f"[{place}] {key}: {_shown(detail['input'])} should be {rule}")
        return None


def _whereabouts(key: str, model: type[Section]) -> str:
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    if near:
        return f"did you mean {near[0]}?"
    places = {**SECTIONS, **{f"{room}.NAME": other for room, other in NAMED.items()}}
    if homes := [f"[{place}]" for place, other in places.items() if key in other.model_fields]:
        return f"it belongs in {' or '.join(homes)}"
    return f"known: {', '.join(model.model_fields)}"


def _contradictions(
    selector: SelectorSection | None,
    categories: Mapping[str, CategorySection | None],
    backends: Mapping[str, BackendSection | None],
) -> Iterator[str]:
    """What one table says that another does not bear out."""
    if selector and selector.default_category is not None and selector.default_category not in categories:
        yield f"[selector] default_category: {_no_such('category', selector.default_category, categories)}"
    for alias, target in selector.aliases.items() if selector else ():
        if target not in categories:
            yield f"[selector] aliases: {alias} = {target!r}: {_no_such('category', target, categories)}"
    for name, category in categories.items():
        if category is None:
            continue
        for backend in category.backends or ():
            if backend not in backends:
                yield f"[categories.{name}] backends: {_no_such('backend', backend, backends)}"
        if name in category.locks:
            yield f"[categories.{name}] locks: {name!r} is its own key already; leave it out"
        yield from _missing_commands(name, category, backends)
        yield from tasks_in_programs(name, category, backends)
    targets = [category.target for category in categories.values() if category and category.target is not None]
    if targets and not any(targets):
        yield "[categories]: every target is 0; give one category a share, or leave all targets out"


def _missing_commands(
    name: str, category: CategorySection, backends: Mapping[str, BackendSection | None]
) -> Iterator[str]:
    if category.command is not None:
        return
    for backend in category.backends or backends:
        section = backends.get(backend)
        if section is not None and section.command is None:
            yield f'[categories.{name}]: no command; write command = ["my-agent"] here or under [backends.{backend}]'


def _no_such(kind: str, name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    there = f"did you mean {near[0]}?" if near else f"configured: {', '.join(known) or 'none'}"
    return f"no {kind} {name!r}; {there}"


def _all_at_once(path: Path, problems: Problems) -> ConfigError:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    lines = [f"{path}: {count}", *(f"  {problem}" for problem in problems)]
    return ConfigError("\n".join(lines), "mend the lines above, then: loop config check")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
