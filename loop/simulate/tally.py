"""What a simulation counts as it goes: whole runs, where the folds keep windows only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ASSESSED = ("productive", "noop", "blocked", "failed", "timed_out", "stalled")
UNCOUNTED = ("limited", "refused")  # of starts: nothing of the category's work was tried


@dataclass(slots=True)
class Tally:
    """Starts, ends and time. A start that came to nothing but a limit is no start."""

    categories: Sequence[str]
    starts: Counter[str] = field(default_factory=Counter)
    uncounted: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    live_time: int = 0  # session-microseconds
    time: int = 0  # microseconds

    def started(self, category: str) -> None:
        self.starts[category] += 1

    def ended(self, category: str, outcome: str) -> None:
        self.outcomes[outcome] += 1
        if outcome in UNCOUNTED:
            self.uncounted[category] += 1

    def live_for(self, live: int, microseconds: int) -> None:
        self.live_time += live * microseconds
        self.time += microseconds

    @property
    def sessions(self) -> int:
        return self.starts.total()

    @property
    def mean_live(self) -> float | None:
        """Sessions alive on average; None where no time passed."""
        return self.live_time / self.time if self.time else None


FIGURES = (
    "sessions", "mean_live", "productive_per_hour", "noop_rate", "limited", "worst_ratio", "never_started", "deviation",
)  # fmt: skip
"""The names of `figures`, in the order in which they are shown."""


def figures(tally: Tally, targets: Mapping[str, float]) -> dict[str, float | None]:
    """A run in numbers; None where there is no data. `targets` are shares of 1 over the categories that have one.

    `worst_ratio` is the largest share over its target, `deviation` the largest distance of a category's starts from its
    target's share of all (in starts), `never_started` counts categories with a target that never ran.
    """
    counted = {name: tally.starts[name] - tally.uncounted[name] for name in tally.categories}
    total = sum(counted.values())
    assessed = sum(tally.outcomes[outcome] for outcome in ASSESSED)
    some = total > 0 and any(targets.values())
    return {
        "sessions": tally.sessions,
        "mean_live": tally.mean_live,
        "productive_per_hour": tally.outcomes["productive"] / (tally.time / 3.6e9) if tally.time else None,
        "noop_rate": tally.outcomes["noop"] / assessed if assessed else None,
        "limited": tally.outcomes["limited"],
        "worst_ratio": max(counted[name] / total / share for name, share in targets.items() if share) if some else None,
        "never_started": sum(not counted[name] for name, share in targets.items() if share) if total else None,
        "deviation": max(abs(counted[name] - share * total) for name, share in targets.items()) if some else None,
    }
