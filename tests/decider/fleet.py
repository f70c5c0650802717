"""A fleet in miniature: the real decider on views of its own, sessions that last as told, no log and no processes.

A pass is made at the beginning and whenever sessions end, as `loop run` does. Every decision's ledger goes through the
real fold. Starts are counted from the beginning, without a window.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from given import configured, given, ranking, tick

from events.envelope import Event
from loop.decider import Decision, decide
from projections import ledger
from projections.view import Answer, Entry, View

UNIT = 1_000_000

Lasts = Callable[[str], int]


class Fleet:
    """`lasts` says how many seconds the next session of a category runs."""

    def __init__(
        self,
        slots: int,
        categories: Mapping[str, Mapping[str, Any]],
        *,
        lasts: Lasts = lambda name: 60,
        mean: Mapping[str, int] | None = None,
        policy: str = "fair",
        max_ratio: float | None = None,
    ) -> None:
        config = configured(
            slots=slots,
            policy=policy,
            max_ratio=max_ratio,
            max_starts_per_hour=10**9,
            categories={name: dict(each) for name, each in categories.items()},
        )
        self.view = given(config, tick(), ranking(*categories)).view()
        found = {
            name: each._replace(mean_seconds=(mean or {}).get(name)) for name, each in self.view.categories.items()
        }
        self.view = self.view._replace(categories=found)
        self.lasts = lasts
        self.ledger = ledger.initial(kept=True)
        self.running: list[tuple[int, int, str, tuple[str, ...]]] = []  # end, number, category, keys
        self.time = 0
        self.order: list[str] = []  # every start
        self.free: list[set[str]] = []  # beside each start: the others that had a lane free
        self.decisions: list[Decision] = []
        self.busy = 0  # slot-seconds

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.order)

    def credit(self, name: str) -> int:
        return self.ledger["credits"].get(name, 0)

    def asked(self, names: Iterable[str]) -> None:
        """The next answers name just these."""
        answer = self.view.answer
        assert isinstance(answer, Answer)
        self.view = self.view._replace(
            answer=answer._replace(ranking=tuple(Entry(n, "all_scores", "", None) for n in names))
        )

    def targets(self, targets: Mapping[str, int]) -> None:
        """Other targets from now on, in any integer unit."""
        found = {name: each._replace(target=targets[name]) for name, each in self.view.categories.items()}
        self.view = self.view._replace(categories=found)

    def run(self, starts: int) -> Fleet:
        """Until so many sessions were started, or nothing can be started any more."""
        while len(self.order) < starts:
            self.step()
            if not self.running:
                break
            self.finish()
        return self

    def step(self) -> Decision:
        """One pass."""
        decision = decide(self.seen())
        self.decisions.append(decision)
        data = decision.as_dict()
        tick = f"t{len(self.decisions)}"
        ledger.decided(self.ledger, Event(1, "fanout.decided", "", tick, None, None, None, data))
        for choice in decision.chosen:
            self.order.append(choice.category)
            end = self.time + self.lasts(choice.category)
            heapq.heappush(self.running, (end, len(self.order), choice.category, choice.keys))
            live = Counter(name for _, _, name, _ in self.running)
            free = {name for name, each in self.view.categories.items() if live[name] < each.lanes}
            self.free.append(free - {choice.category})
        return decision

    def finish(self) -> None:
        """Time passes until the next sessions end."""
        end = self.running[0][0]
        self.busy += (end - self.time) * len(self.running)
        self.time = end
        while self.running and self.running[0][0] == end:
            heapq.heappop(self.running)

    def seen(self) -> View:
        counts, last = self.counts, {name: number for number, name in enumerate(self.order, start=1)}
        categories = {
            name: each._replace(started=counts[name], last_started=last.get(name))
            for name, each in self.view.categories.items()
        }
        live: dict[str, Any] = {
            f"s{number}": {"category": name, "task": "", "backend": "default", "rule": "all_scores", "keys": keys}
            for _, number, name, keys in self.running
        }
        held = {key: f"s{number}" for _, number, _, keys in self.running for key in keys}
        credits = dict(self.ledger["credits"])
        return self.view._replace(categories=categories, live=live, held=held, ledger=credits)
