"""`decide(view)` with 10, 100 and 1,000 categories, against sorting as many entries the way a policy would.

The view is made once and the decision many times; CPU time. Half of the slots are taken, every category is ranked with
a task of its own, a third shares keys with others, there are 18 backends and a cap. The peer only sorts, so the growth
of the ratio says how much faster the decision grows than n log n.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import process_time

from loop.decider import decide
from projections.view import Category, View
from tests.bench.measure import ROOT, Goal, Line, paired

BOUNDS = {10: 0.2, 100: 2.0, 1_000: 25.0}  # milliseconds
ROUNDS = 9
STEADY = 2.0  # times that the ratio to a sort may grow from 10 categories to 1,000


def bench(directory: Path) -> Iterator[Line]:
    for policy in ("intent", "fair"):
        ratios = []
        for count, bound in BOUNDS.items():
            for slots in (6, count):
                line = _measured(policy, count, slots, bound)
                yield line
                if slots == 6:
                    ratios.append(line.ratio or 0.0)
        growth = ratios[-1] / ratios[0]
        yield Line(
            f"{policy}: ratio at 1,000 categories to that at 10", "times", growth, goal=Goal("ours", "<", STEADY)
        )


def _measured(policy: str, count: int, slots: int, bound: float) -> Line:
    view = seen(policy, count, slots)
    categories = list(view.categories.values())
    Random(1).shuffle(categories)
    repeat = max(3, 2_000 // count)

    def ours() -> float:
        begun = process_time()
        for _ in range(repeat):
            decide(view)
        return (process_time() - begun) / repeat * 1e3

    def order(category: Category) -> tuple[int, int, str]:
        return (-(category.target or 0), category.last_started or 0, category.name)

    def peer() -> float:
        begun = process_time()
        for _ in range(repeat):
            sorted(categories, key=order)
        return (process_time() - begun) / repeat * 1e3

    return paired(
        f"decide, {policy}, {count:,} categories, {slots:,} slots", "ms", ROUNDS, ours, peer, Goal("ours", "<", bound)
    )


def seen(policy: str, count: int, slots: int) -> View:
    """What a fire would see."""
    if (tests := str(ROOT / "tests" / "projections")) not in sys.path:
        sys.path.insert(0, tests)
    from given import configured, given, ranking, running, tick

    names = [f"c{number:04d}" for number in range(count)]
    categories = {
        name: {"target": (1 + number % 7) / 1_000, "locks": [f"repo-{number // 3}"] if number % 3 else []}
        for number, name in enumerate(names)
    }
    backends = {f"b{number}": {"pool": f"p{number % 6}", "concurrency": count} for number in range(18)}
    story = given(
        configured(
            categories=categories,
            backends=backends,
            slots=slots,
            policy=policy,
            max_ratio=1.75,
            max_starts_per_hour=10**6,
        )
    )
    for number, name in enumerate(names[: slots // 2]):
        story.happens(running(f"s{number}", name, task=f"t{number}", backend=f"b{number % 18}"))
    return story.happens(tick(), ranking(*({"category": name, "task": f"for {name}"} for name in names))).view()
