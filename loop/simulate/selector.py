"""The modelled selector: a payload as a real one would print it, read by the code that reads real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from events.catalog import SelectionMade, SelectionRejected
from events.envelope import to_json
from events.errors import UsageError
from events.store import EventLog
from loop.config import Config
from loop.observe import Selection, interpret
from loop.simulate.chance import MICRO, stream
from loop.simulate.workload import Workload

SECONDS = 0.15  # that an answer takes
ALTERNATIVES = 3  # that are named with a task; the others only have a score
CUT = 20  # bytes that a damaged answer lacks

Tasks = Callable[[str], str]
"""Category -> the task that is next there."""


class Selector(Protocol):
    def __call__(self, now: int, with_work: Collection[str], task: Tasks) -> Selection:
        """The answer at `now` (microseconds), when these categories have work."""


def modelled(workload: Workload, config: Config, seed: int, start: int) -> Selector:
    """The selector of a workload. Raises UsageError where a recorded one has no rankings."""
    if workload.store is not None:
        return Recorded(workload.store)
    return Scored(workload, config, seed, start)


class Scored:
    """`uniform` and `drifting`: categories by their scores of the moment."""

    def __init__(self, workload: Workload, config: Config, seed: int, start: int) -> None:
        self._config, self._model = config, workload.selector
        self._streams = {name: stream(seed, "selector", name) for name in config.categories}
        self._damage = stream(seed, "selector")
        self._likings = {name: math.log(workload.of(name).liking) for name in config.categories}
        drift = self._model.drift
        self._drifts = {name: random.gauss(0, drift) for name, random in self._streams.items()}
        self._asked = start

    def __call__(self, now: int, with_work: Collection[str], task: Tasks) -> Selection:
        scores = {name: score for name, score in self._scores(now).items() if name in with_work}
        names = sorted(scores, key=lambda name: (-scores[name], name))
        payload = {
            "tier": 1,
            "selected": {"category": names[0], "id": task(names[0])} if names else None,
            "alternatives": [{"category": name, "id": task(name)} for name in names[1 : 1 + ALTERNATIVES]],
            "all_scores": {name: round(scores[name], 4) for name in names},
        }
        raw = to_json(payload).encode()
        if self._damage.random() < self._model.rejected:
            raw = raw[:-CUT]
        return interpret(raw, self._config, source="command", exit_code=0, seconds=SECONDS)

    def _scores(self, now: int) -> dict[str, float]:
        """All of them, with or without work, so that everyone's next number is the same either way."""
        if self._model.kind == "uniform":
            return {name: 1 + random.random() for name, random in self._streams.items()}
        # An Ornstein-Uhlenbeck process at the times it is looked at: it forgets at the rate that it wanders.
        kept = math.exp(-(now - self._asked) / MICRO / self._model.memory)
        moved = self._model.drift * math.sqrt(1 - kept * kept)
        self._asked = now
        for name, random in self._streams.items():
            self._drifts[name] = self._drifts[name] * kept + random.gauss(0, 1) * moved
        return {name: math.exp(self._likings[name] + drift) for name, drift in self._drifts.items()}


class Recorded:
    """The selector's answers in a store, in their order and then again; what work there is they know themselves."""

    def __init__(self, store: Path) -> None:
        if not store.exists():
            raise UsageError(f"no store at {store}", 'name one in the workload: [selector] store = ".loop/loop.db"')
        log = EventLog.read(store)
        try:
            self._answers: list[Selection] = [
                (SelectionMade if event.type == "selection.made" else SelectionRejected).model_validate(event.data)
                for event in log.events_of(("selection.made", "selection.rejected"))
            ]
        finally:
            log.close()
        if not self._answers:
            raise UsageError(f"{store} has no answer of a selector", "name a store whose loop made passes")
        self._next = 0

    def __call__(self, now: int, with_work: Collection[str], task: Tasks) -> Selection:
        answer = self._answers[self._next % len(self._answers)]
        self._next += 1
        return answer
