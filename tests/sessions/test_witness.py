"""Witness against log: one clean history, and every way in which the two cannot both be right."""

from __future__ import annotations

import pytest

from loop.sessions.locks import HeldInterval
from loop.sessions.witness import Known, faults


def hold(token: int, begin: int, end: int | None = None, boot: str = "b1") -> HeldInterval:
    return HeldInterval(token, f"s{token}", boot, begin, end, None if end is None else "released")


Ends = dict[int, tuple[str, int]]


def kinds(*holds: HeldInterval, live: tuple[int, ...] = (), measured: Ends | None = None) -> list[tuple[str, int]]:
    return [(fault.kind, fault.token) for fault in faults("code", holds, Known(frozenset(live), measured or {}))]


def test_holds_one_after_the_other_of_which_the_last_lives() -> None:
    assert kinds(hold(5, 10, 20), hold(9, 20, 30), hold(12, 31), live=(12,)) == []


@pytest.mark.parametrize(
    ("holds", "expected"),
    [
        ((hold(5, 10), hold(9, 20, 30)), [("acquired_while_held", 9)]),
        ((hold(9, 10, 20), hold(5, 21, 30)), [("token_not_rising", 5)]),
        ((hold(5, 10, 20), hold(5, 21, 30)), [("token_not_rising", 5)]),
        ((hold(5, 10, 20), hold(9, 19, 30)), [("witness_overlap", 9)]),
        ((hold(5, 10),), [("held_after_end", 5)]),
    ],
)
def test_what_cannot_be(holds: tuple[HeldInterval, ...], expected: list[tuple[str, int]]) -> None:
    assert kinds(*holds) == expected


def test_an_end_that_a_full_disk_kept_from_the_witness_is_taken_from_the_log() -> None:
    measured = {5: ("b1", 20)}
    assert kinds(hold(5, 10), hold(9, 21, 30), measured=measured) == []
    assert kinds(hold(5, 10), measured=measured) == []
    assert kinds(hold(5, 10), hold(9, 19, 30), measured=measured) == [("witness_overlap", 9)]


def test_clocks_of_two_boots_are_not_compared() -> None:
    assert kinds(hold(5, 1000, 2000), hold(9, 10, 20, boot="b2")) == []
