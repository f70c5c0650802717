"""Recorded histories are decided today as they were then, or DECIDER has another number.

`golden.json` holds histories as a log would: each has the decisions that were made in it. It stands for the logs that
users have, and is written anew only together with a new DECIDER.
"""

from __future__ import annotations

import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from histories import history as history_of

from events.catalog import REGISTRY
from events.envelope import Event, to_json, to_micros
from events.upcast import upcast
from loop.decider import DECIDER, GATES, decide
from loop.policies import POLICIES
from projections.state import State
from projections.view import view

GOLDEN = Path(__file__).with_name("golden.json")
REGENERATE = "GOLDEN=write python -m pytest tests/decider/test_golden.py"
SEEDS = (181, 93, 207, 5, 56, 65)  # together they show every policy, every verdict, every word on a backend
LENGTH = 90


def read() -> dict[str, Any]:
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    return golden


def events(history: list[list[Any]]) -> list[Event]:
    return [
        Event(position, type, at, tick, cause, session, category, upcast(type, version, data))
        for position, (type, version, at, tick, cause, session, category, data) in enumerate(history, start=1)
    ]


def differences(golden: dict[str, Any]) -> list[str]:
    """Where today's decisions are not the recorded ones, but for the decider's number."""
    found = []
    for number, history in enumerate(golden["histories"]):
        state = State()
        for event in events(history):
            if event.type == "fanout.decided":
                then = {**event.data, "decider": DECIDER}
                now = decide(view(state, to_micros(event.data["now"]))).as_dict()
                if to_json(now) != to_json(then):
                    changed = [key for key in now if now[key] != then.get(key)]
                    found.append(
                        f"history {number}, position {event.position}: {', '.join(changed) or 'order of keys'}"
                    )
            state.apply(event)
    return found


def test_decisions_are_those_of_the_recorded_histories() -> None:
    if os.environ.get("GOLDEN") == "write":
        write()
    golden = read()
    if golden["decider"] != DECIDER:
        raise AssertionError(f"{GOLDEN.name} is of decider {golden['decider']}, not {DECIDER}: run {REGENERATE}")
    changed = differences(golden)
    assert not changed, f"decisions changed: bump DECIDER and regenerate with {REGENERATE} ({'; '.join(changed[:3])})"


def test_the_recorded_histories_show_every_verdict() -> None:
    verdicts, numbers, policies = set(), set(), set()
    for history in read()["histories"]:
        for event in events(history):
            if event.type == "fanout.decided":
                numbers.add(event.data["decider"])
                policies |= {event.data["policy"]} if event.data["chosen"] else set()
                for candidate in event.data["candidates"]:
                    verdicts |= {candidate["verdict"], *candidate["also"]}
    missing = {"chosen", "unknown_category", *GATES} - verdicts
    assert not missing, f"choose other SEEDS, then {REGENERATE}"
    assert numbers == {read()["decider"]}
    assert policies == set(POLICIES)


def write() -> None:
    """Write the file anew, unless decisions changed under the same number."""
    if GOLDEN.exists() and (golden := read())["decider"] == DECIDER:
        assert not differences(golden), f"decisions changed, but DECIDER is still {DECIDER}: bump it first"
    histories = [
        [[event.type, REGISTRY[event.type].version, *astuple(event)[2:]] for event in history_of(seed, LENGTH).events]
        for seed in SEEDS
    ]
    lines = ",\n".join("[\n" + ",\n".join(to_json(event) for event in one) + "\n]" for one in histories)
    GOLDEN.write_text(f'{{"decider": {DECIDER}, "histories": [\n{lines}\n]}}\n')
