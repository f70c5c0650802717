"""The arithmetic of shares against brute force: what is feasible, the cap, units divided to the last."""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.shares import UNIT, Member, apportion, feasible, most_starts

NAMES = "abcdef"
MEMBER = st.builds(Member, st.integers(0, 1_000_000), st.integers(1, 4), st.integers(1, 5_000))
MEMBERS = st.dictionaries(st.sampled_from(NAMES), MEMBER, min_size=1)


def by_brute_force(members: dict[str, Member], slots: int) -> dict[str, Fraction]:
    """Of all ways to say which categories fill their lanes, the one that contradicts nothing: those that fill them want
    at least as much, and the others, who share the rest in proportion, get no more than they have."""
    for full in product((True, False), repeat=len(members)):
        filled = {name for name, is_full in zip(members, full, strict=True) if is_full}
        left = Fraction(slots - sum(members[name].lanes for name in filled))
        wanted = {name: each.weight * each.seconds for name, each in members.items() if name not in filled}
        if left < 0 or (not sum(wanted.values()) and left):
            continue
        level = left / sum(wanted.values()) if left else Fraction(0)
        busy = {name: level * wanted.get(name, 0) for name in members}
        if any(busy[name] > members[name].lanes for name in wanted):
            continue
        if any(members[name].weight * members[name].seconds * level < members[name].lanes for name in filled):
            continue
        rates = {
            name: (members[name].lanes if name in filled else busy[name]) / Fraction(members[name].seconds)
            for name in members
        }
        return {name: rate / sum(rates.values()) for name, rate in rates.items()}
    raise AssertionError("there is always one")


@given(MEMBERS, st.integers(1, 8))
@settings(max_examples=300)
def test_what_is_feasible_is_what_brute_force_finds(members: dict[str, Member], slots: int) -> None:
    found = feasible(members, slots)
    assert sum(found.values()) == UNIT
    assert list(found) == list(members)
    if sum(each.lanes for each in members.values()) <= slots:
        rates = {name: Fraction(each.lanes, each.seconds) for name, each in members.items()}
        expected = {name: rate / sum(rates.values()) for name, rate in rates.items()}
    elif all(each.weight for each in members.values()):
        expected = by_brute_force(members, slots)
    else:
        return
    assert all(abs(found[name] - expected[name] * UNIT) <= 1 for name in members)


@given(MEMBERS, st.integers(1, 8))
@settings(max_examples=300)
def test_nobody_is_given_more_slots_than_it_has_lanes(members: dict[str, Member], slots: int) -> None:
    found = feasible(members, slots)
    every = sum(found[name] * each.seconds for name, each in members.items())
    for name, each in members.items():
        busy = Fraction(min(slots, sum(m.lanes for m in members.values())) * found[name] * each.seconds, every)
        rounding = Fraction(2 * slots * max(m.seconds for m in members.values()), every) * len(members)
        assert busy <= each.lanes + rounding


def test_those_without_weight_get_what_the_others_cannot_use() -> None:
    members = {"a": Member(1, 1, 60), "b": Member(0, 1, 60), "c": Member(0, 1, 60)}
    assert feasible(members, 1) == {"a": UNIT, "b": 0, "c": 0}
    assert feasible(members, 2) == {"a": 500_000, "b": 250_000, "c": 250_000}
    assert feasible({"b": Member(0, 1, 60), "c": Member(0, 1, 60)}, 1) == {"b": 500_000, "c": 500_000}
    assert feasible({}, 3) == {}


def test_lanes_raise_what_is_feasible() -> None:
    others = {f"c{number}": Member(60_000, 1, 60) for number in range(10)}
    shares = [feasible({"code": Member(400_000, lanes, 60), **others}, 6)["code"] for lanes in (1, 2, 3, 4)]
    assert shares == [166_667, 333_333, 400_000, 400_000]


def test_long_sessions_make_less_feasible() -> None:
    others = {f"c{number}": Member(100_000, 1, 60) for number in range(10)}
    usual, longer = (feasible({"code": Member(200_000, 1, seconds), **others}, 4) for seconds in (60, 600))
    assert usual["code"] == pytest.approx(166_667, abs=1)
    assert longer["code"] == pytest.approx(UNIT * Fraction(1, 600) / (Fraction(1, 600) + Fraction(3, 60)), abs=1)


@given(st.integers(-(10**7), 10**7), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 10**9), min_size=1))
def test_parts_sum_to_the_whole_and_are_less_than_one_unit_off(units: int, shares: dict[str, int]) -> None:
    parts = apportion(units, shares)
    assert sum(parts.values()) == units
    assert parts.keys() == shares.keys()
    whole = sum(shares.values())
    for name, part in parts.items():
        exact = Fraction(units * shares[name], whole) if whole else Fraction(units, len(shares))
        assert abs(part - exact) < 1
    assert apportion(units, dict(reversed(shares.items()))) == parts, "whatever their order"


@given(
    st.integers(1, 5_000_000),
    st.lists(st.integers(0, 1_000_000), min_size=1, max_size=5).filter(any),
    st.integers(1, 10_000),
)
def test_the_cap_is_its_formula(max_ratio: int, stated: list[int], total: int) -> None:
    for target in stated:
        exact = Fraction(max_ratio, UNIT) * Fraction(target, sum(stated)) * total
        assert most_starts(max_ratio, target, sum(stated), total) == max(1, ceil(exact))
