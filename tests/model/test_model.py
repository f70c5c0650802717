"""The protocol survives every interleaving of a small model; each protocol that people use instead does not."""

from __future__ import annotations

from functools import partial

import pytest
from protocol import ONE_KEY, TWO_KEYS, Rules, World, at_rest, start, steps, violation
from search import Found, search


def check(rules: Rules, keys: tuple[tuple[int, ...], ...] = ONE_KEY) -> Found[World]:
    return search(start(keys), partial(steps, rules=rules), violation, at_rest)


def test_no_interleaving_breaks_the_protocol() -> None:
    found = check(Rules(), TWO_KEYS)
    assert found.violation is None, "\n".join(found.trace)
    assert found.stuck is None, "a state from which no session can be brought to its end"
    assert found.states > 10_000, "the model has shrunk: what does it still show?"


@pytest.mark.parametrize(
    ("name", "rules", "told", "needs"),
    [
        ("TTL lease", Rules(basis="lease"), "run under one key", ["SUSPEND"]),
        ("pid row", Rules(basis="pid"), "run under one key", ["CRASHES"]),
        ("lock held only by the shim", Rules(inherit=False, sweep=False), "run under one key", ["shim 0 is KILLED"]),
        ("flock without the sweep", Rules(sweep=False), "run under one key", ["ESCAPEE"]),
        ("no claim", Rules(claim=False), "the log had ended", ["CRASHES", "voids"]),
        ("bare pid", Rules(identity=False), "a stranger was signalled", ["REUSED"]),
        ("log before witness", Rules(witness_first=False), "no end between", ["CRASHES", "is lost"]),
    ],
)
def test_what_is_left_out_is_missed(name: str, rules: Rules, told: str, needs: list[str]) -> None:
    found = check(rules)
    assert found.violation is not None, f"{name}: {found.states} states and nothing wrong"
    assert told in found.violation
    for step in needs:
        assert any(step in each for each in found.trace), found.trace


def test_a_trace_is_the_shortest_way_to_the_violation() -> None:
    found = check(Rules(sweep=False))
    assert found.trace[0].endswith("grants s0")
    assert len(found.trace) < 30
    world = start(ONE_KEY)
    for name in found.trace:
        world = next(after for each, after in steps(world, Rules(sweep=False)) if each == name)
    assert violation(world) == found.violation
