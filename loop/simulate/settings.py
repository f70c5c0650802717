"""The config that a simulation decides under: a project's, a file's or the workload's own, with changes on top.

Commands in it are never run, and prompts never read: each is replaced by a word that says so.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from events.errors import ConfigError, UsageError
from loop import toml
from loop.config import Config
from loop.config_file import from_tables
from loop.home import read_toml
from loop.simulate.workload import Workload

NOT_RUN = ["simulated"]
_HEAD = "# What was simulated in this store. Its commands were never run and are replaced: start nothing with it."
_UNTOLD = ("max_tokens_per_day", "max_cost_per_day")
_UNUSED = ("prompt", "prompt_file", "env", "env_file", "before", "after", "cwd")


def settings(file: Path | None, workload: Workload, changes: Iterable[str]) -> Config:
    """The config in `file`, or the workload's own; `changes` are like `loop.slots=8`.

    Raises ConfigError, and UsageError where it is the changes that make it invalid.
    """
    changes, path = list(changes), workload.path if file is None else file
    try:
        return from_tables(_tables(file, workload, changes), path)
    except ConfigError as error:
        if not changes:
            raise
        from_tables(_tables(file, workload, ()), path)  # raises where the file itself is at fault
        problems = [f"with {', '.join(changes)}:", *map(str.strip, error.message.splitlines()[1:])]
        raise UsageError("\n".join(problems), "see the keys: loop config show") from None


def as_file(file: Path | None, workload: Workload, changes: Iterable[str]) -> str:
    """The text of a loop.toml that says what `settings` does, for beside a simulated store; raises what that raises."""
    tables = _tables(file, workload, changes)
    for key in ("state", "notify"):
        tables.get("loop", {}).pop(key, None)
    return "\n".join((_HEAD, *_lines(tables), ""))


def unmodelled(file: Path | None, workload: Workload, changes: Iterable[str]) -> list[str]:
    """The keys of the config, dotted, that are left out: modelled sessions tell neither tokens nor cost, and a budget
    that nobody tells anything of is shut for good."""
    tables = _given(file, workload, changes)
    return [line.partition(" = ")[0] for line in _lines(tables) if line.partition(" = ")[0].endswith(_UNTOLD)]


def _tables(file: Path | None, workload: Workload, changes: Iterable[str]) -> dict[str, Any]:
    return _harmless(_given(file, workload, changes))


def _given(file: Path | None, workload: Workload, changes: Iterable[str]) -> dict[str, Any]:
    if file is not None:
        tables = read_toml(file)
    elif workload.config is not None:
        tables = copy.deepcopy(dict(workload.config))
    else:
        raise ConfigError(
            f"no loop.toml here, and the workload {workload.path} has no [config] of its own",
            "run it in a project, write a [config], or take a shipped workload: --workload fleet",
        )
    for change in changes:
        _change(tables, change)
    return tables


def _lines(tables: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[str]:
    """One line for each key, dotted."""
    for name, value in tables.items():
        if isinstance(value, dict) and value:
            yield from _lines(value, (*above, name))
        else:
            yield f"{toml.dotted((*above, name))} = {toml.value(value)}"


def _change(tables: dict[str, Any], change: str) -> None:
    """Set one dotted key. What is no TOML value is a string, so that nobody must quote twice."""
    key, equals, text = change.partition("=")
    names = _parts(key)
    if not equals or len(names) < 2:
        raise UsageError(f"--set {change}: no table, key and value", "write it like --set allocation.max_ratio=1.5")
    place = tables
    for name in names[:-1]:
        place = place.setdefault(name, {})
        if not isinstance(place, dict):
            raise UsageError(f"--set {change}: {name} is no table", "see the keys: loop config show")
    try:
        place[names[-1]] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        place[names[-1]] = text


def _parts(key: str) -> list[str]:
    """The parts of a dotted key, of which any may stand in quotes; none where it is no key."""
    try:
        found: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return []
    names = []
    while isinstance(found, dict) and len(found) == 1:
        ((name, found),) = found.items()
        names.append(name)
    return names


def _harmless(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables without anything to run or to read; where there was a command there is NOT_RUN."""
    found = copy.deepcopy(dict(tables))
    sections = [found.get("session"), found.get("selector"), found.get("loop")]
    for kind in ("categories", "backends", "pools"):
        if isinstance(named := found.get(kind), dict):
            sections += named.values()
    for section in sections:
        if isinstance(section, dict):
            for key in (*_UNUSED, *_UNTOLD):
                section.pop(key, None)
            for key in ("command", "gate"):
                if isinstance(section.get(key), list):
                    section[key] = NOT_RUN
    return found
