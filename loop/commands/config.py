"""`loop config check` and `loop config show`: whether loop.toml is usable, and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from events.errors import LoopError
from loop import output, toml
from loop.home import Home

if TYPE_CHECKING:
    from loop.config import Config
    from loop.targets import Target


def check(home: Home, *, as_json: bool) -> int:
    """Say whether the config is valid, and what in it may not be meant so. Returns 0, with warnings too.

    Raises ConfigError, with a line for every problem of the file.
    """
    from loop.config import facts
    from loop.config_file import load
    from loop.config_report import warnings
    from loop.targets import targets

    config = load(home.config)
    found = warnings(config)
    wanted = targets(config)
    if as_json:
        output.print_json(
            {
                "schema": "loop.config.check/1",
                "as_of": _as_of(home),
                "ok": True,
                "config": str(home.config),
                "hash": facts(config)[0]["hash"],
                "warnings": found,
                "targets": [{"name": each.name, "target": each.target, "feasible": each.feasible} for each in wanted],
            }
        )
        return 0
    for warning in found:
        print(f"warning: {output.clean(warning)}")
    if wanted:
        print("targets, as shares of the starts: " + ", ".join(_target(each) for each in wanted))
    count = {0: "valid", 1: "valid, with 1 warning"}.get(len(found), f"valid, with {len(found)} warnings")
    print(f"{output.clean(home.config)}: {count}")
    return 0


def show(home: Home, *, origin: bool, as_json: bool) -> int:
    """Print every effective key, the defaults included: TOML with dotted keys, or JSON. Returns 0.

    With `origin` each key says whether it comes from the file or is the default. Values of `env` are masked, a key
    without a value is a comment or null. Raises ConfigError where the config is invalid.
    """
    from loop.config_file import load
    from loop.config_report import origins

    config = load(home.config)
    rows = [(_path(row.key, config), row.value, row.origin) for row in origins(config)]
    if as_json:
        answer: dict[str, Any] = {
            "schema": "loop.config/1",
            "as_of": _as_of(home),
            "path": str(home.config),
            "config": _nested(rows),
        }
        if origin:
            answer["origins"] = {toml.dotted(path): where for path, _, where in rows}
        output.print_json(answer)
        return 0
    for path, value, where in rows:
        line = f"# {toml.dotted(path)} is not set" if value is None else f"{toml.dotted(path)} = {toml.value(value)}"
        print(output.clean(f"{line}  # {where}" if origin and value is not None else line))
    return 0


def _target(target: Target) -> str:
    """`code 40 % (feasible 17 %)`: what is feasible only where it is another number."""
    wanted, possible = (
        "none" if share is None else f"{share * 100:.0f} %" for share in (target.target, target.feasible)
    )
    about = "" if target.target is None or wanted == possible else f" (feasible {possible})"
    about = " (by hand only)" if target.feasible is None else about
    return f"{output.clean(target.name)} {wanted}{about}"


def _as_of(home: Home) -> dict[str, Any]:
    """The log's head, nulls where it cannot be read: a config can be right beside a damaged store."""
    from events.store import EventLog

    try:
        log = EventLog.read(home.db)
    except LoopError:
        return {"position": None, "at": None}
    try:
        head = log.head()
    finally:
        log.close()
    return output.as_of(head.position, head.at)


def _path(key: str, config: Config) -> tuple[str, ...]:
    """The parts of a dotted key; the name of a category or a backend may hold dots itself."""
    kind, _, rest = key.partition(".")
    named: Mapping[str, Mapping[str, object]] = {"categories": config.categories, "backends": config.backends}
    for name in sorted(named.get(kind, ()), key=len, reverse=True):
        if rest.startswith(f"{name}."):
            return kind, name, *rest.removeprefix(f"{name}.").split(".")
    return (kind, *rest.split("."))


def _nested(rows: list[tuple[tuple[str, ...], object, str]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for (*above, last), value, _ in rows:
        table = tree
        for part in above:
            table = table.setdefault(part, {})
        table[last] = value
    return tree
