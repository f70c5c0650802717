"""Selectors side by side: python tests/bench/rankings.py [WORKLOAD …] [--slots N] [--days N] [--seed N] [--runs N]

What is simulated is the product: its passes, gates, folds and log (docs/simulate.md); the built-in selector is the one
that passes ask. Every contender has the same sessions and spells of work. Tables as docs/selector.md has them go to
stdout (with --json one object), progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

sys.path[0] = str(Path(__file__).resolve().parents[2])

from events.envelope import to_micros  # noqa: E402
from events.store import EventLog  # noqa: E402
from loop.config import Config  # noqa: E402
from loop.simulate.chance import stream, supply  # noqa: E402
from loop.simulate.run import START, simulate, targets  # noqa: E402
from loop.simulate.settings import settings  # noqa: E402
from loop.simulate.workload import SHIPPED, SelectorModel, Workload, find, load  # noqa: E402
from projections import snapshots  # noqa: E402
from tests.bench.measure import progress  # noqa: E402

OTHER = 1_000  # seeds further on is the world whose rankings are recorded
BUILTIN = "built-in"


@dataclass(frozen=True, slots=True)
class Run:
    """One contender, one workload, one seed.

    `worst` and `least` are the largest and the smallest share of the starts over its target; `distance` is the part of
    all starts that would have to go elsewhere for every share to be its target; `neglect` the most starts that were
    ever owed to a category while it had work; `conformance` the confirmed starts among the first k of the ranking, of
    k; `productive` the productive sessions per slot and hour; `maintenance` the share of the starts in categories of
    maintenance.
    """

    sessions: int
    worst: float
    least: float
    distance: float
    neglect: float
    conformance: float
    productive: float
    maintenance: float
    noop_rate: float


FIGURES = {
    "sessions": "sessions", "worst": "worst", "least": "least", "distance": "distance", "neglect": "neglect",
    "conformance": "conformance", "productive": "productive", "maintenance": "maintenance", "noop_rate": "NOOP",
}  # fmt: skip
FORMATS = {"sessions": "{:.0f}", "neglect": "{:.1f}"}  # else two decimals

Contender = Callable[[Workload, Path, float, int], Workload]


def uniform(workload: Workload, place: Path, days: float, seed: int) -> Workload:
    return replace(workload, selector=SelectorModel(kind="uniform"))


def recorded(workload: Workload, place: Path, days: float, seed: int) -> Workload:
    """The rankings that the workload's own selector gave in another world."""
    done = simulate(settings(None, workload, ()), workload, place / "recorded", days=days, seed=seed + OTHER)
    return replace(workload, selector=SelectorModel(kind="recorded", store=str(done.db)))


def drifting(workload: Workload, place: Path, days: float, seed: int) -> Workload:
    return workload


def built_in(workload: Workload, place: Path, days: float, seed: int) -> Workload:
    return _with_builtin(workload, {})


def learning(workload: Workload, place: Path, days: float, seed: int) -> Workload:
    return _with_builtin(workload, {"learn": True})


def _with_builtin(workload: Workload, about: Mapping[str, object]) -> Workload:
    kept = {key: value for key, value in _table(workload, "selector").items() if key != "command"}
    return _changed(workload, "selector", {**kept, "builtin": True, **about})


def _table(workload: Workload, name: str) -> Mapping[str, object]:
    found = (workload.config or {})[name]
    assert isinstance(found, dict)
    return found


def _changed(workload: Workload, name: str, table: Mapping[str, object]) -> Workload:
    return replace(workload, config={**(workload.config or {}), name: table})


CONTENDERS: Mapping[str, Contender] = {
    "uniform": uniform, "recorded": recorded, "drifting": drifting, BUILTIN: built_in, "built-in, learn": learning,
}  # fmt: skip


def run(contender: Contender, workload: Workload, *, days: float, seed: int) -> Run:
    """Simulate it, and count in the log."""
    with TemporaryDirectory(prefix="loop-rankings-") as place:
        chosen = contender(workload, Path(place), days, seed)
        config = settings(None, chosen, ())
        done = simulate(config, chosen, Path(place), days=days, seed=seed)
        log = EventLog.read(done.db)
        try:
            started = [(to_micros(event.at), event.category or "") for event in log.events_of(("session.started",))]
            hours = snapshots.load(log).selection["hours"].values()
        finally:
            log.close()
    wanted, counts = targets(config), Counter(name for _, name in started)
    shares = {name: counts[name] / len(started) for name in config.categories}
    productive, noops = done.figures["productive_per_hour"], done.figures["noop_rate"]
    return Run(
        sessions=len(started),
        worst=max(shares[name] / target for name, target in wanted.items()),
        least=min(shares[name] / target for name, target in wanted.items()),
        distance=sum(abs(shares[name] - wanted.get(name, 0)) for name in shares) / 2,
        neglect=_neglect(config, chosen, seed, started),
        conformance=sum(hour["granted"] for hour in hours) / max(1, sum(hour["granted_of"] for hour in hours)),
        productive=(productive or 0) / config.loop.slots,
        maintenance=sum(share for name, share in shares.items() if config.categories[name].maintenance),
        noop_rate=noops or 0,
    )


def _neglect(config: Config, workload: Workload, seed: int, started: Sequence[tuple[int, str]]) -> float:
    spells = {name: supply(workload.of(name).work, stream(seed, "work", name), START) for name in config.categories}
    wanted = targets(config)
    owed = dict.fromkeys(wanted, 0.0)
    worst = 0.0
    for at, category in started:
        for name, target in wanted.items():
            has_work = spells[name].at(at)
            owed[name] = 0.0 if name == category else owed[name] + target * has_work
        worst = max(worst, *owed.values())
    return worst


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one contender on one workload."""

    contender: str
    runs: Sequence[Run]

    def text(self, figure: str) -> str:
        """The median, and the lowest and the highest where they differ."""
        values = [getattr(run, figure) for run in self.runs]
        form = FORMATS.get(figure, "{:.2f}")
        middle, low, high = map(form.format, (median(values), min(values), max(values)))
        return middle if low == high else f"{middle} ({low}–{high})"


def world(name: str, slots: int | None) -> Workload:
    """The shipped workload, with other slots if so wanted."""
    found = load(find(name))
    return found if slots is None else _changed(found, "loop", {**_table(found, "loop"), "slots": slots})


def measured(workload: Workload, *, days: float, seed: int, runs: int) -> list[Row]:
    rows = []
    for contender, function in CONTENDERS.items():
        progress(f"{workload.path.stem}: {contender}")
        found = [run(function, workload, days=days, seed=seed + number) for number in range(runs)]
        rows.append(Row(contender, found))
    return rows


def show(workload: Workload, rows: Sequence[Row]) -> str:
    """A table in Markdown under the workload's own figures."""
    config = settings(None, workload, ())
    slots = "1 slot" if config.loop.slots == 1 else f"{config.loop.slots} slots"
    return "\n".join(
        (
            f"### {workload.path.stem}: {len(config.categories)} categories, {slots}",
            "",
            f"| selector | {' | '.join(FIGURES.values())} |",
            f"|---|{'---:|' * len(FIGURES)}",
            *(f"| {row.contender} | {' | '.join(map(row.text, FIGURES))} |" for row in rows),
        )
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/rankings.py", description="Selectors, side by side.")
    known = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    parser.add_argument("names", nargs="*", metavar="WORKLOAD", help=f"which; without one, all: {', '.join(known)}")
    parser.add_argument("--slots", type=int, help="in place of the workload's own")
    parser.add_argument("--days", type=float, default=7, help="simulated days of each run (7)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow (1)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each selector and workload (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - {*known}:
        parser.error(f"no workload is named {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    days, seed, runs = options.days, options.seed, options.runs
    if not 0 < days <= 10 or runs < 1:  # ten days is how far back the folds count conformance
        parser.error(f"--days {days:g} --runs {runs}: wanted are up to 10 days, and at least one run")
    worlds = {name: world(name, options.slots) for name in options.names or known}
    found = {name: measured(each, days=days, seed=seed, runs=runs) for name, each in worlds.items()}
    if options.json:
        tables = {name: {row.contender: [asdict(each) for each in row.runs] for row in found[name]} for name in found}
        simulated = {"days": days, "seed": seed, "runs": runs, "slots": options.slots}
        print(json.dumps({"schema": "loop.rankings/1", "simulated": simulated, "workloads": tables}, indent=2))
    else:
        print("\n\n".join(show(worlds[name], rows) for name, rows in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
