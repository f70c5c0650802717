"""What holds for every decision of every history."""

from __future__ import annotations

import ast
import copy
import random
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import get_args

from histories import World, history
from hypothesis import given, settings
from hypothesis import strategies as st

import loop.decider
import loop.fair
import loop.policies
import loop.shares
from events.catalog import FanoutDecided, Rule
from events.envelope import to_json, to_micros
from loop.decider import VERDICTS, Decision, decide
from loop.policies import most_owed
from projections.state import State
from projections.view import View, view

SEEDS = st.integers(0, 100_000)
REASONS = {*VERDICTS, "rejected", "nothing_ranked"}


def check(seen: View, decision: Decision) -> None:
    """The promises that no history may break."""
    free = max(0, seen.slots - len(seen.live))
    assert (decision.free, decision.capacity, decision.live) == (free, seen.slots, len(seen.live))

    names = [candidate.category for candidate in decision.candidates]
    assert len(names) == len(set(names)), "every candidate has exactly one verdict"
    for candidate in decision.candidates:
        assert candidate.verdict in {*VERDICTS, "chosen"}
        assert (candidate.rule is None) == (candidate.verdict == "not_ranked" or "not_ranked" in candidate.also)
        order = [VERDICTS.index(verdict) for verdict in (candidate.verdict, *candidate.also) if verdict != "chosen"]
        assert order == sorted(set(order))
    picked = [candidate.category for candidate in decision.candidates if candidate.verdict == "chosen"]
    assert picked == [choice.category for choice in decision.chosen]

    assert len(decision.chosen) <= free
    assert sum(slots for slots, _ in decision.idle) == free - len(decision.chosen)
    assert all(slots > 0 and reason in REASONS for slots, reason in decision.idle)

    keys = [key for choice in decision.chosen for key in choice.keys]
    assert len(keys) == len(set(keys)), "two grants share a key"
    assert not set(keys) & set(seen.held), "a key that is held is granted"
    for choice in decision.chosen:
        category = seen.categories[choice.category]
        assert list(choice.keys) == sorted(choice.keys)
        assert set(category.locks) <= set(choice.keys)
        assert set(choice.keys) & set(category.lane_keys())
        assert choice.rule in get_args(Rule)
        assert category.parallel is not False or choice.rule == "manual"
        backend = seen.backends[choice.backend]
        assert backend.state == "available"
        assert not backend.paused
        assert choice.rule == "manual" or category.backends is None or choice.backend in category.backends
        taken = sum(other.backend == choice.backend for other in decision.chosen)
        assert backend.concurrency is None or backend.live + taken <= backend.concurrency
        assert (choice.rule == "respawn") == (choice.parent is not None)
        assert choice.chain == 0 or choice.rule == "respawn"
        assert choice.chain <= seen.respawn_limit
    tasks = [choice.task for choice in decision.chosen if choice.task]
    assert len(tasks) == len(set(tasks))
    alone = [choice for choice in decision.chosen if seen.categories[choice.category].parallel == "alone"]
    assert not alone or len(decision.chosen) + len(seen.live) == 1
    assert "all" not in seen.restraints or not decision.chosen
    assert seen.rates.hour + len(decision.chosen) <= max(seen.rates.hour_limit, seen.rates.hour)

    check_cap(seen, decision)
    check_ledger(seen, decision)

    net = [choice for choice in decision.chosen if choice.rule == "allowlist"]
    if net:
        assert seen.answer is not None
        assert seen.answer.rejected
        assert seen.answer.asked_now
        assert seen.on_reject == "fallback"
        before = sum(session["rule"] == "allowlist" for session in seen.live.values())
        assert before + len(net) <= seen.fallback_slots
    if seen.manual is not None:
        assert names == [seen.manual.category]
    elif seen.trigger != "session_end":
        assert set(names) >= set(seen.categories), "at a fire every configured category has a verdict"


def check_cap(seen: View, decision: Decision) -> None:
    """The cap as its formula is written, on the state after each start of the pass."""
    counts = {name: each.started + each.requested for name, each in seen.categories.items()}
    stated = sum(each.target or 0 for each in seen.categories.values())
    for choice in decision.chosen:
        target = seen.categories[choice.category].target
        if seen.max_ratio is not None and target is not None and stated and choice.rule != "manual":
            ratio = Fraction(seen.max_ratio, 1_000_000) * Fraction(target, stated)
            assert counts[choice.category] + 1 <= max(1, ceil(ratio * (sum(counts.values()) + 1)))
        counts[choice.category] += 1


def check_ledger(seen: View, decision: Decision) -> None:
    """Credits sum to zero before and after; each slot issues exactly one; every term is there."""
    assert (decision.ledger is None) == (seen.policy != "fair" or not any(each.rule for each in decision.candidates))
    assert sum(seen.ledger.values()) == 0
    if decision.ledger is None:
        return
    accounts, slots = decision.ledger["accounts"], decision.ledger["slots"]
    charged = [name for name, account in accounts.items() if account["charged"]]
    assert charged == [name for name in accounts if name in {choice.category for choice in decision.chosen}]
    assert len(charged) == slots
    by_hand = seen.manual is not None
    assert slots == len(decision.chosen) or by_hand, "whoever was not asked for by hand was in the running"
    if accounts:
        assert sum(account["share"] for account in accounts.values()) == 1_000_000
    after = dict(seen.ledger)
    for name, account in accounts.items():
        assert account["credit"] == seen.ledger.get(name, 0)
        terms = account["credit"] + account["moved"] + account["share"] * slots - account["charged"]
        after[name] = account["after"]
        assert after[name] == terms
    for name, forfeited in decision.ledger["forfeited"].items():
        assert name not in accounts
        after[name] -= forfeited
    assert sum(after.values()) == 0
    if slots:
        assert all(credit <= 0 or name in accounts for name, credit in after.items()), "credit outside the running"
        assert set(after) <= {*seen.categories, *(name for name, credit in after.items() if not credit)}
    else:
        assert after == {**dict.fromkeys(accounts, 0), **seen.ledger}
    asked = [each.category for each in decision.candidates if each.rule]
    claims = [accounts[name]["claim"] for name in asked if name in accounts]
    assert claims == sorted(claims, reverse=True), "the largest claim first"


def passes(world: World) -> list[tuple[View, FanoutDecided]]:
    """The view and the record of each decision of a history."""
    found, state = [], State()
    for event in world.events:
        if event.type == "fanout.decided":
            assert event.data["basis"] == state.position
            found.append((view(state, to_micros(event.data["now"])), FanoutDecided.model_validate(event.data)))
        state.apply(event)
    return found


@given(SEEDS)
@settings(max_examples=40)
def test_the_promises_hold_for_every_pass_of_every_history(seed: int) -> None:
    for seen, _ in passes(history(seed, 200)):
        check(seen, decide(seen))


@given(SEEDS, st.integers(-30 * 3600 * 10**6, 30 * 3600 * 10**6))
@settings(max_examples=40)
def test_decide_raises_for_no_history_at_any_position_and_any_time(seed: int, shift: int) -> None:
    state = State()
    for event in history(seed, 80).events:
        state.apply(event)
        if state.control["config"] is not None:
            seen = view(state, max(0, to_micros(event.at) + shift))
            check(seen, decide(seen))


@given(SEEDS)
@settings(max_examples=25)
def test_the_same_view_is_decided_alike_and_left_alone(seed: int) -> None:
    for seen, _ in passes(history(seed, 120)):
        before = copy.deepcopy(seen)
        random.seed(seed)
        first = decide(seen)
        random.seed(seed + 1)
        assert decide(seen) == first
        assert decide(copy.deepcopy(seen)) == first
        assert seen == before


@given(SEEDS)
@settings(max_examples=25)
def test_a_recorded_decision_is_derived_again_from_the_log_byte_by_byte(seed: int) -> None:
    world = history(seed, 200)
    state = State()
    for event in world.events:
        if event.type == "fanout.decided":
            state = State.load(state.dump())  # as from a snapshot
            again = decide(view(state, to_micros(event.data["now"]))).as_dict()
            assert to_json(again) == to_json(event.data)
            assert to_json(FanoutDecided.model_validate(again).split()[0]) == to_json(event.data)
        state.apply(event)


def test_the_histories_are_worth_it() -> None:
    """Every gate, every rule and every reason occurs, or the properties above say little."""
    verdicts, rules, reasons = set(), set(), set()
    for seed in range(25):
        for _, decided in passes(history(seed, 300)):
            for candidate in decided.candidates:
                verdicts |= {candidate.verdict, *candidate.also}
            rules |= {choice.rule for choice in decided.chosen}
            reasons |= {idle.reason for idle in decided.idle}
    assert verdicts == {"chosen", "unknown_category", *loop.decider.GATES}
    assert rules == set(get_args(Rule))
    assert reasons >= {"nothing_ranked", "rejected", "paused", "lock_held", "not_allowed", "no_backend"}


# ── what is owed ──────────────────────────────────────────────────────────────────────────────────────────────────────


@given(SEEDS)
@settings(max_examples=25)
def test_what_is_owed_names_each_parallel_category_once(seed: int) -> None:
    for seen, _ in passes(history(seed, 120)):
        allowed = [name for name, category in seen.categories.items() if category.parallel is not False]
        assert sorted(most_owed(seen)) == sorted(allowed)


@given(SEEDS)
@settings(max_examples=25)
def test_where_nobody_has_a_target_the_fewest_starts_come_first(seed: int) -> None:
    for seen, _ in passes(history(seed, 120)):
        if all(category.target is None for category in seen.categories.values()):
            owed = most_owed(seen)
            counts = [seen.categories[name].started for name in owed]
            assert counts == sorted(counts)


# ── purity ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_decider_and_policies_import_nothing_that_could_know_more_than_the_view() -> None:
    allowed = {"__future__", "collections", "collections.abc", "dataclasses", "math", "typing", "projections.view"}
    allowed |= {"loop.policies", "loop.fair", "loop.shares"}
    for module in (loop.decider, loop.policies, loop.fair, loop.shares):
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= allowed
            elif isinstance(node, ast.ImportFrom):
                assert node.module in allowed
            elif isinstance(node, ast.Constant):
                assert not isinstance(node.value, float), "no float arithmetic of ours"
            elif isinstance(node, ast.BinOp):
                assert not isinstance(node.op, ast.Div), "no float arithmetic of ours"
