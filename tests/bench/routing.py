"""Policies side by side: python tests/bench/routing.py [PROFILE …] [--days N] [--seed N] [--runs N] [--json]

What is simulated is the product: its passes, gates, folds and log (docs/simulate.md). Only who comes first is decided
elsewhere where a policy is of the bench. Every contender has the same sessions, spells of work and answers of the
selector. Tables as docs/routing.md has them go to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from unittest.mock import patch

sys.path[0] = str(Path(__file__).resolve().parents[2])

from events.store import EventLog  # noqa: E402
from loop import decider  # noqa: E402
from loop.config import Config  # noqa: E402
from loop.fair import in_the_running  # noqa: E402
from loop.policies import AnyAsked, Policy  # noqa: E402
from loop.shares import UNIT, Member, feasible  # noqa: E402
from loop.simulate.run import simulate, targets  # noqa: E402
from loop.simulate.settings import settings  # noqa: E402
from loop.simulate.workload import DEFAULT, CategoryModel, Histogram, SelectorModel, Workload, find, load  # noqa: E402
from projections.view import View  # noqa: E402
from tests.bench.contenders import CONTENDERS, Contender  # noqa: E402
from tests.bench.measure import progress  # noqa: E402

MINUTES = (10, 40, 20, 30, 15, 45, 25, 35)  # that a session lasts on average, by category and then again
LIKINGS = (2.0, 1.0, 1.0, 0.5)  # of the selector, likewise: not what the targets say
TIMEOUT = "2h"  # above the longest, which is 7/4 of its category's mean, as the shortest is 1/4
EVERY = "5m"  # that the selector is asked
LONGEST = 366  # days

UNDER = 2.0  # times a target; the goals
BUSY = 0.95  # of the slots
NEAR = 0.005  # rounding that makes no target infeasible


@dataclass(frozen=True, slots=True)
class Profile:
    """Slots and targets. Who is not in `lanes` has one."""

    name: str
    slots: int
    targets: Mapping[str, float]
    lanes: Mapping[str, int]

    @property
    def feasible(self) -> bool:
        return self.least < 1 + NEAR

    @property
    def least(self) -> float:
        """The worst share over target that is left while all slots are busy and all have work; 1: it is feasible."""
        members = {
            name: Member(round(target * UNIT), self.lanes.get(name, 1), minutes * 60)
            for (name, target), minutes in zip(self.targets.items(), MINUTES * len(self.targets), strict=False)
        }
        whole = sum(self.targets.values())
        return max(share / UNIT / (self.targets[name] / whole) for name, share in feasible(members, self.slots).items())


def profiles() -> list[Profile]:
    """Equal targets; those of the shipped fleet; one of 40 %, which one lane cannot meet, and with the lanes for it."""
    fleet = settings(None, load(find(DEFAULT)), ()).categories
    skew = {"c0": 0.4, **{f"c{number}": 0.6 / 9 for number in range(1, 10)}}
    return [
        Profile("flat", 3, {f"c{number}": 0.1 for number in range(10)}, {}),
        Profile("fleet", 6, {name: each.target or 0 for name, each in fleet.items()}, {}),
        Profile("skew", 6, skew, {}),
        Profile("skew-lanes", 6, skew, {"c0": 3}),
    ]


def world(profile: Profile) -> Workload:
    """The shipped fleet's outcomes, grades and supply; sessions as long as MINUTES, and no trouble."""
    categories = {}
    for number, name in enumerate(profile.targets):
        seconds = MINUTES[number % len(MINUTES)] * 60
        categories[name] = CategoryModel(
            liking=LIKINGS[number % len(LIKINGS)],
            seconds=Histogram(edges=[seconds / 4, seconds * 7 / 4], counts=[1.0]),
        )
    tables = {
        "loop": {"slots": profile.slots, "every": EVERY, "max_starts_per_hour": 1_000},
        "selector": {"command": ["simulated"], "max_age": EVERY},
        "session": {"timeout": TIMEOUT},
        "categories": {
            name: {"target": target, "lanes": profile.lanes.get(name, 1), "command": ["simulated"]}
            for name, target in profile.targets.items()
        },
    }
    fleet = load(find(DEFAULT))
    selector = SelectorModel(kind="drifting", drift=fleet.selector.drift, memory=fleet.selector.memory)
    return replace(fleet, selector=selector, outages=None, crashes=None, categories=categories, config=tables)


def config(contender: Contender, workload: Workload) -> Config:
    """The profile's config under this policy, which `loop.toml` may not know."""
    cap = "" if contender.max_ratio is None else f"allocation.max_ratio={contender.max_ratio}"
    # A stride's pass counts from the beginning; its window is its memory.
    window = f"allocation.window={LONGEST}d" if contender.policy == "stride" else ""
    found = settings(None, workload, [change for change in (cap, window) if change])
    return replace(found, loop=found.loop.model_copy(update={"policy": contender.policy}))


@dataclass(frozen=True, slots=True)
class Run:
    """One contender, one profile, one seed.

    `busy` is the mean of the live sessions, as a share of the slots; `worst` and `least` are the largest and the
    smallest share over target; `left_out` counts categories that the selector named and that were never started;
    `deviation` is how far a category's starts ever were from what it was due, in starts.
    """

    busy: float
    worst: float
    least: float
    left_out: int
    deviation: float
    noop_rate: float


FIGURES = {"busy": "busy", "worst": "worst", "least": "least", "left_out": "left out", "deviation": "deviation",
           "noop_rate": "NOOP"}  # fmt: skip
FORMATS = {"left_out": "{:.0f}", "deviation": "{:.1f}"}  # else two decimals


def run(contender: Contender, profile: Profile, *, days: float, seed: int) -> Run:
    """Simulate it, and count in the log."""
    workload = world(profile)
    chosen = config(contender, workload)
    shares: dict[int, Mapping[str, int]] = {}
    policies = {contender.policy: _watched(contender.serve, shares)}
    with TemporaryDirectory(prefix="loop-routing-") as place, patch.object(decider, "POLICIES", policies):
        done = simulate(chosen, workload, Path(place), days=days, seed=seed)
        log = EventLog.read(done.db)
        try:
            named = {
                entry["category"] for event in log.events_of(("selection.made",)) for entry in event.data["ranking"]
            }
            decisions = [event.data for event in log.events_of(("fanout.decided",))]
        finally:
            log.close()
    total = done.tally.sessions
    ratios = [done.tally.starts[name] / total / target for name, target in targets(chosen).items()]
    busy = done.figures["mean_live"]
    assert busy is not None
    return Run(
        busy=busy / profile.slots,
        worst=max(ratios),
        least=min(ratios),
        left_out=sum(not done.tally.starts[name] for name in named),
        deviation=_deviation(decisions, shares) / UNIT,
        noop_rate=done.figures["noop_rate"] or 0.0,
    )


def _watched(serve: Policy, shares: dict[int, Mapping[str, int]]) -> Policy:
    """The policy, and by the position of each view what those in the running are due of a slot that it gives."""

    def watching(view: View, asked: Sequence[AnyAsked], /) -> list[AnyAsked]:
        shares[view.position] = feasible(in_the_running(view), view.slots)
        return serve(view, asked)

    return watching


def _deviation(decisions: Sequence[Mapping[str, object]], shares: Mapping[int, Mapping[str, int]]) -> int:
    """The furthest that any category ever was from what it was due, in millionths of a start.

    As in the ledger of `fair`, a start is due to those in the running, by feasible shares; but nothing is forfeited
    here and nothing clamped, whatever the policy.
    """
    balance: Counter[str] = Counter()
    worst = 0
    for decision in decisions:
        granted: Sequence[Mapping[str, str]] = decision["chosen"]  # type: ignore[assignment]
        due = shares[decision["basis"]] if granted else {}  # type: ignore[index]
        for name, share in due.items():
            balance[name] += share * len(granted)
        for choice in granted:
            balance[choice["category"]] -= UNIT
        worst = max(worst, *map(abs, balance.values())) if balance else 0
    return worst


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one contender in one profile."""

    contender: str
    runs: Sequence[Run]

    def of(self, figure: str) -> tuple[float, float, float]:
        """Median, lowest and highest."""
        values = [getattr(run, figure) for run in self.runs]
        return median(values), min(values), max(values)

    def text(self, figure: str) -> str:
        form = FORMATS.get(figure, "{:.2f}")
        middle, low, high = map(form.format, self.of(figure))
        return middle if low == high else f"{middle} ({low}–{high})"

    @property
    def missed(self) -> list[str]:
        """The goals that some run missed."""
        goals = {"busy": self.of("busy")[1] > BUSY, "worst": self.of("worst")[2] < UNDER,
                 "left out": not self.of("left_out")[2]}  # fmt: skip
        return [name for name, met in goals.items() if not met]


def measured(profile: Profile, *, days: float, seed: int, runs: int) -> list[Row]:
    rows = []
    for contender in CONTENDERS:
        progress(f"{profile.name}: {contender.name}")
        found = [run(contender, profile, days=days, seed=seed + number) for number in range(runs)]
        rows.append(Row(contender.name, found))
    return rows


def show(profile: Profile, rows: Sequence[Row]) -> str:
    """A table in Markdown under the profile's own figures."""
    reached = "feasible" if profile.feasible else f"at best {profile.least:.2f} times a target"
    return "\n".join(
        (
            f"### {profile.name}: {len(profile.targets)} categories, {profile.slots} slots, {reached}",
            "",
            f"| policy | {' | '.join(FIGURES.values())} | goals missed |",
            f"|---|{'---:|' * len(FIGURES)}---|",
            *(f"| {row.contender} | {' | '.join(map(row.text, FIGURES))} | {', '.join(row.missed)} |" for row in rows),
        )
    )


def as_object(found: Mapping[str, tuple[Profile, Sequence[Row]]], simulated: Mapping[str, object]) -> dict[str, object]:
    return {
        "schema": "loop.routing/1",
        "simulated": simulated,
        "profiles": [
            {
                "name": name, "slots": profile.slots, "targets": profile.targets, "lanes": profile.lanes,
                "least_worst": profile.least,
                "rows": [
                    {"policy": row.contender, "missed": row.missed, "runs": [asdict(each) for each in row.runs]}
                    for row in rows
                ],
            }
            for name, (profile, rows) in found.items()
        ],
    }  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests/bench/routing.py", description="Policies, side by side.")
    known = {each.name: each for each in profiles()}
    parser.add_argument("names", nargs="*", metavar="PROFILE", help=f"which; without one, all: {', '.join(known)}")
    parser.add_argument("--days", type=float, default=7, help="simulated days of each run (7)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others follow (1)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each policy and profile (5)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - {*known}:
        parser.error(f"no profile is named {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    days, seed, runs = options.days, options.seed, options.runs
    if not 0 < days <= LONGEST or runs < 1:
        parser.error(f"--days {days:g} --runs {runs}: wanted are up to {LONGEST} days, and at least one run")
    found = {
        name: (known[name], measured(known[name], days=days, seed=seed, runs=runs)) for name in options.names or known
    }
    if options.json:
        print(json.dumps(as_object(found, {"days": days, "seed": seed, "runs": runs}), indent=2))
    else:
        print("\n\n".join(show(profile, rows) for profile, rows in found.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
