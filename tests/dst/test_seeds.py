"""Deterministic simulation: the production loop under a seed's faults keeps every rule after every transaction.

`make teeth` runs hundreds of seeds, and shows that planted bugs are caught; here is a portion of them. What is checked
is in dst_invariants.py, what goes wrong in dst_faults.py; a failure prints the command that runs its seed again.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from dst_faults import NONE, RATES, Mix, mix
from dst_run import failures, kept
from dst_world import World

PORTION = [
    pytest.param(range(first, first + 5), marks=[pytest.mark.slow] if first > 1 else [], id=f"{first}-{first + 4}")
    for first in range(1, 21, 5)
]


def test_seeds_that_failed_once_hold() -> None:
    assert failures(kept()) == []


@pytest.mark.parametrize("seeds", PORTION)
def test_every_rule_holds_under_a_seeds_faults(seeds: range) -> None:
    assert failures(seeds) == []


def test_a_seed_is_one_history() -> None:
    first, again = World(7), World(7)
    first.run()
    again.run()
    assert first.log.head() == again.log.head()
    assert first.log.head().position > 500


@pytest.mark.parametrize(
    ("faults", "leaves"),
    [
        ({"crash": 0.01}, {"controller.started", "session.spawn_failed"}),
        ({"kill_shim": 0.3, "hide": 0.5}, {"session.lost", "session.stopping"}),
        ({"reboot": 0.01}, {"session.lost", "controller.started"}),
        ({"step_clock": 0.02}, {"clock.stepped"}),
        ({"drift": 0.3}, {"selection.rejected"}),
        ({"restrain": 0.03}, {"loop.paused", "loop.draining", "loop.frozen", "tick.skipped"}),
        ({"stillborn": 0.2, "launch_error": 0.2}, {"session.spawn_failed"}),
        ({"outage": 1.0}, {"backend.limited"}),
        ({"by_hand": 0.03}, {"operator.requested"}),
        ({"reconfigure": 0.02, "break_config": 0.02}, {"loop.configured", "tick.skipped"}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_a_fault_alone_leaves_its_mark_and_breaks_nothing(faults: dict[str, float], leaves: set[str]) -> None:
    world = World(5, replace(NONE, **faults))
    world.run()
    assert leaves <= {event.type for event in world.log.events()}


def test_without_faults_nothing_is_lost_or_refused() -> None:
    world = World(5, NONE)
    world.run()
    found = {event.type for event in world.log.events()}
    assert not found & {"session.lost", "session.spawn_failed", "selection.rejected", "clock.stepped", "tick.skipped"}


def test_mixes_differ_and_name_every_fault() -> None:
    assert {field.name for field in fields(Mix)} == set(RATES)
    assert len({str(mix(seed)) for seed in range(50)}) == 50
    for name in RATES:
        struck = sum(getattr(mix(seed), name) > 0 for seed in range(100))
        assert 25 < struck < 75, name
