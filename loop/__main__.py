"""`loop` and `python -m loop`: the Typer app of cli.py, but for a plain `status`, which people and prompts ask all day.

Typer is half of what `status` imports beyond the standard library and rich. So its plain forms are read here; whatever
is not plain, a mistake and `--help` included, goes to the app, which declares the same options.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from loop.program import INTERRUPTED, execute, places_apart

FLAGS = {"--json": "as_json", "--check": "check"}
VALUES = {"--at": "at"}
PLACES = {"-C": "directory", "--config": "config"}


def main() -> None:
    """Run the command that sys.argv names, and exit."""
    gc.disable()  # imports leave no garbage: the collector only looks, over and over; those that stay turn it on again
    options = plain_status(sys.argv[1:])
    if options is not None:
        execute(partial(_status, **options), as_json="as_json" in options)
    try:
        from cli import app
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    gc.enable()
    app()


def plain_status(arguments: list[str]) -> dict[str, Any] | None:
    """The options of a plain `status`, by parameter; None for anything else."""
    places, words = places_apart(arguments)
    if words[:1] != ["status"] or any(place.startswith("--config=") for place in places):
        return None
    options: dict[str, Any] = {PLACES[name]: Path(path) for name, path in zip(places[::2], places[1::2], strict=True)}
    rest = iter(words[1:])
    for word in rest:
        if word in FLAGS:
            options[FLAGS[word]] = True
        elif VALUES.get(word) in options:
            return None  # given twice
        elif word in VALUES and (value := next(rest, None)) is not None:
            options[VALUES[word]] = value
        else:
            return None
    return options


def _status(
    *,
    directory: Path | None = None,
    config: Path | None = None,
    at: str | None = None,
    check: bool = False,
    as_json: bool = False,
) -> int:
    from loop import home
    from loop.commands.status import run
    from loop.output import say_places

    say_places(directory, config)
    return run(home.find(directory, config, os.environ).db, at=at, as_json=as_json, watch=None, check=check)


if __name__ == "__main__":
    main()
