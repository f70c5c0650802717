"""The benches, and their goals: python tests/bench/run.py [NAME …] [--json]

Progress goes to stderr, the figures to stdout as a table, or as one JSON object. The exit code says only whether every
bench could be run: a goal that is not met is a line to look at, and another run on a quieter machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path[0] = str(Path(__file__).resolve().parents[2])

from tests.bench.measure import Line, machine, progress  # noqa: E402

NAMES = ("append", "peers", "fold", "decide", "moments", "status", "selecting", "starts", "shim", "idle", "hundred")
LONG = ("million",)  # only by name


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/run.py", description="Measure, against peers, side by side.")
    which = f"which: {', '.join(NAMES)}; without one, all these. By name only: {', '.join(LONG)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=which)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - {*NAMES, *LONG}:
        parser.error(f"no bench is named {', '.join(sorted(unknown))}")
    lines: list[Line] = []
    broken: list[str] = []
    with tempfile.TemporaryDirectory(prefix="loop-bench-") as place:
        directory = Path(place)
        facts = machine(directory)
        for name in options.names or NAMES:
            progress(f"── {name}")
            try:
                lines.extend(importlib.import_module(f"tests.bench.{name}").bench(directory))
            except Exception:  # the others are worth having all the same
                traceback.print_exc()
                broken.append(name)
    if options.json:
        print(json.dumps(as_object(lines, facts), indent=2))
    else:
        show(lines, facts)
    if broken:
        progress(f"broken: {', '.join(broken)}")
    return 1 if broken else 0


def as_object(lines: Sequence[Line], facts: Mapping[str, object]) -> dict[str, object]:
    return {
        "schema": "loop.bench/1",
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": facts,
        "lines": [{**dataclasses.asdict(line), "met": line.met} for line in lines],
    }


def show(lines: Sequence[Line], facts: Mapping[str, object]) -> None:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", no_wrap=True)
    table.add_column("")
    for name in ("ours", "peer", "ratio", "quartiles", "goal", "met"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        goal = line.goal
        table.add_row(
            line.name,
            line.unit,
            number(line.ours),
            "–" if line.peer is None else number(line.peer),
            "–" if line.ratio is None else f"{line.ratio:.2f}",
            "" if line.spread is None else f"{line.spread[0]:.2f}–{line.spread[1]:.2f}",
            "" if goal is None else f"{goal.on} {goal.sign} {goal.bound:g}",
            {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[line.met],
        )
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")


def number(value: float) -> str:
    """Three figures that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
