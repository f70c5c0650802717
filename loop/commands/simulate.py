"""`loop simulate`: what these slots, this policy or that weight would do, by the production code on a virtual clock."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from events.envelope import to_text
from events.errors import ConfigError, StoreError, UsageError
from loop.commands.report import render
from loop.home import CONFIG_NAME, Home
from loop.output import as_of, clean, console, message, print_json
from loop.progress import progress
from loop.report import told
from loop.simulate import workload as workloads
from loop.simulate.compare import Difference
from loop.simulate.compare import compare as compared
from loop.simulate.run import START, Simulated, place, simulate
from loop.simulate.settings import as_file, settings, unmodelled
from loop.simulate.workload import Workload
from loop.text import count_of

if TYPE_CHECKING:
    from rich.console import RenderableType

LONGEST = 3_660  # days
NAMES = {
    "sessions": "sessions started",
    "mean_live": "live on average",
    "productive_per_hour": "productive an hour",
    "noop_rate": "NOOP rate",
    "limited": "ended at a limit",
    "worst_ratio": "worst share / target",
    "never_started": "categories never started",
    "deviation": "largest deviation, starts",
}


def run(
    home: Home | None, workload: str | None, *, changes: Sequence[str], days: float, seed: int, into: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Simulate and print the report. Nothing of the project is written, and no command of its config is run."""
    _check(days)
    chosen = workloads.load(workloads.find(workload or workloads.DEFAULT))
    config = settings(_file(home), chosen, changes)
    _say_unused(chosen, config.categories)
    if new := [name for name in config.categories if name not in settings(_file(home), chosen, ()).categories]:
        message(f"new by --set: category {', '.join(map(clean, new))}")
    if left := unmodelled(_file(home), chosen, changes):
        message(f"not modelled, and left out: {', '.join(left)}")
    if into is not None and into.exists() and (not into.is_dir() or os.listdir(into)):
        raise UsageError(f"{into} is there and not empty", "name a new directory: --into DIR")
    with place(into) as directory:
        with progress("simulating days") as hear:
            done = simulate(config, chosen, directory, days=days, seed=seed, progress=hear)
        if into is not None:
            _keep(directory / CONFIG_NAME, as_file(_file(home), chosen, changes))
    found = told(done.history, done.position)
    mean_live = None if done.tally.mean_live is None else round(done.tally.mean_live, 3)
    found["simulated"] = {
        "days": days, "sessions": done.tally.sessions, "seed": seed, "mean_live": mean_live,
        "workload": chosen.summary, "config": str(config.path), "changes": list(changes),
    }  # fmt: skip
    if as_json:
        print_json(found)
        return 0
    out = console()
    out.print(_head(done, chosen, config.path, changes), soft_wrap=True)
    out.print(render(found))
    if into is not None:
        out.print(f"look: loop -C {clean(into)} status", soft_wrap=True)
    return 0


def compare(
    files: tuple[Path, Path], workload: str | None, *, changes: Sequence[str], days: float, seed: int, runs: int,
    as_json: bool,
) -> int:  # fmt: skip
    """Simulate two configs on the same seeds and print how they differ."""
    _check(days)
    chosen = workloads.load(workloads.find(workload or workloads.DEFAULT))
    if missing := next((file for file in files if not file.exists()), None):
        raise ConfigError(f"no config file at {missing}", "compare two that are there: --compare A.toml B.toml")
    first, second = (settings(Path(os.path.abspath(file)), chosen, changes) for file in files)
    with progress("simulating days") as hear:
        lines = compared((first, second), chosen, days=days, seed=seed, runs=runs, progress=hear)
    if as_json:
        print_json(
            {
                "schema": "loop.simulate_compare/1",
                "as_of": as_of(0, to_text(START + round(days * 86_400_000_000))),
                "a": str(first.path),
                "b": str(second.path),
                "simulated": {"days": days, "runs": runs, "seed": seed, "workload": chosen.summary},
                "figures": [dataclasses.asdict(line) for line in lines],
            }
        )
        return 0
    out = console()
    out.print(f"{runs} pairs of {days:g} days, seeds {seed} to {seed + runs - 1}: {clean(chosen.summary)}")
    out.print(_table(lines))
    if runs == 1:
        out.print("one pair says nothing of chance: --runs 10")
    return 0


def _check(days: float) -> None:
    if not 0 < days <= LONGEST:
        raise UsageError(f"--days {days:g} is out of range", f"more than 0, {LONGEST} at most")


def _keep(file: Path, text: str) -> None:
    """The config beside its store, so that `plan --recorded` and `config show` answer there, too."""
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise StoreError(f"cannot write {file}: {error.strerror or error}", "check its space and rights") from None


def _file(home: Home | None) -> Path | None:
    """The project's config, None where there is no project. A store without its config is no project to simulate."""
    if home is None:
        return None
    if not home.config.exists():
        raise ConfigError(
            f"no config file at {home.config}", "a store alone cannot be simulated; name one: --config FILE"
        )
    return home.config


def _say_unused(workload: Workload, categories: Container[str]) -> None:
    unused = [name for name in workload.categories if name not in categories]
    if unused:
        message(f"the workload's own figures for {', '.join(unused)} are not used: the config has no such category")


def _head(done: Simulated, workload: Workload, config: Path, changes: Sequence[str]) -> Any:
    from rich.text import Text

    live = done.tally.mean_live
    counts = f"{count_of(done.days, 'day')}, {count_of(done.tally.sessions, 'session')}"
    text = Text(f"simulated {counts}, seed {done.seed}", "bold")
    text.append(f", {'no data' if live is None else format(live, '.2f')} live on average\n")
    text.append(f"workload: {clean(workload.summary)}\nconfig: {clean(config)}", "dim")
    if changes:
        text.append(f", with {clean(', '.join(changes))}", "dim")
    return text


def _table(lines: Sequence[Difference]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("")
    for name in ("A", "B", "B - A", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        known = line.low is not None and line.high is not None
        interval = f"{_signed(line.low)} to {_signed(line.high)}" if known else "no data"
        numbers = (_number(line.a), _number(line.b), _signed(line.difference))
        table.add_row(NAMES[line.name], *numbers, interval)
    return table


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:,.0f}" if abs(value) >= 1_000 else f"{_rounded(value):.3g}"


def _signed(value: float | None) -> str:
    return "no data" if value is None else f"{_rounded(value):+.3g}"


def _rounded(value: float) -> float:
    """Without what is left of a sum that cancels out."""
    return round(value, 9) + 0.0
