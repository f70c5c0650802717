"""`loop why-not`: for each verdict the fact that would have turned it, and never one that would not."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from given import (
    Happening,
    after,
    configured,
    decides,
    gate,
    given,
    limited,
    measured,
    over,
    ranking,
    rejection,
    restrained,
    running,
    seen,
    tick,
)
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from logged import LoggedWorld, told, views

from events import catalog
from events.errors import UsageError
from loop.audit import flips as search
from loop.audit.changes import Change
from loop.audit.flips import Flip, flips
from loop.audit.remedies import REMEDIES
from loop.audit.why_not import why_not
from loop.commands.why_not import run
from loop.decider import GATES, decide
from projections.view import View

ROOT = Path(__file__).resolve().parents[2]


def verdict_of(view: View, category: str = "code") -> tuple[str, tuple[str, ...]]:
    """(verdict, also) of one candidate."""
    found = next(each for each in decide(view).candidates if each.category == category)
    return found.verdict, found.also


def changed(view: View, flip: Flip) -> View:
    for change in flip:
        view = change.apply(view)
    return view


def chosen(view: View, category: str = "code") -> bool:
    return any(choice.category == category for choice in decide(view).chosen)


@dataclass(frozen=True)
class Case:
    """What happened, the flip that is expected, and a history in which just that fact was different."""

    verdict: str
    happened: list[Happening]
    fact: str
    to: Any
    otherwise: list[Happening]
    facts: set[str] = field(default_factory=set)  # further flips


def fire(*asked: Any) -> list[Happening]:
    return [tick(), ranking(*(asked or ("code",)))]


def capped(max_ratio: float, code: float = 0.4) -> Happening:
    return configured(categories={"code": {"target": code}, "docs": {"target": 0.6}}, max_ratio=max_ratio)


SHARED = [
    step
    for name in ("code", "code", "docs")
    for step in (running(name, name), over(name, "productive", proved=False), after(minutes=1))
]

GATED = {"code": {"gate": True}}
BOUNDS = {"max_load_per_cpu": 1.5, "min_disk_free": 9}
NO_COOLDOWN = {"code": {"cooldown": 0.0}}


def noops(count: int) -> list[Happening]:
    found: list[Happening] = []
    for number in range(count):
        found += [running(f"n{number}"), over(f"n{number}", "noop")]
    return found


CASES = [
    Case(
        "unknown_category",
        [configured(categories=("docs",)), *fire()],
        'category["code"]',
        "configured",
        [configured(categories=("docs", "code")), *fire()],
    ),
    Case(
        "not_allowed",
        [configured(categories={"code": {"parallel": False}}), *fire()],
        'category["code"].parallel',
        True,
        [configured(categories={"code": {"parallel": True}}), *fire()],
    ),
    Case(
        "not_ranked",
        [configured(), *fire("docs")],
        'ranking["code"]',
        2,
        [configured(), *fire("docs", "code")],
    ),
    *(
        Case(
            mode,
            [configured(), restrained(mode, scope, name), *fire()],
            f'restraint["{scope if name is None else "category:code"}"].mode',
            None,
            [configured(), restrained(mode, scope, name), restrained("resumed", scope, name), *fire()],
        )
        for mode in ("frozen", "draining", "paused")
        for scope, name in (("all", None), ("category", "code"))
    ),
    Case(
        "lock_held",
        [configured(), running("s1"), *fire()],
        'locks["code"].session',
        None,
        [configured(), running("s1"), over("s1"), *fire()],
        {'category["code"].lanes'},
    ),
    Case(
        "lock_held",
        [configured(categories={"code": {"locks": ["repo"]}, "docs": {"locks": ["repo"]}}), *fire("docs", "code")],
        'ranking["docs"]',
        None,
        [configured(categories={"code": {"locks": ["repo"]}, "docs": {"locks": ["repo"]}}), *fire("code")],
    ),
    Case(
        "task_taken",
        [configured(), running("s1", "docs", task="T"), *fire({"category": "code", "task": "T"})],
        'ranking["code"].task',
        None,
        [configured(), running("s1", "docs", task="T"), *fire({"category": "code", "task": None})],
        {'session["s1"].live'},
    ),
    Case(
        "not_alone",
        [configured(categories={"code": {"parallel": "alone"}, "docs": {}}), running("s1", "docs"), *fire()],
        'session["s1"].live',
        False,
        [
            configured(categories={"code": {"parallel": "alone"}, "docs": {}}),
            running("s1", "docs"),
            over("s1"),
            *fire(),
        ],
        {'category["code"].parallel'},
    ),
    Case(
        "not_alone",
        [configured(categories={"code": {}, "docs": {"parallel": "alone"}}), *fire("docs", "code")],
        'category["docs"].parallel',
        True,
        [configured(categories={"code": {}, "docs": {}}), *fire("docs", "code")],
        {'ranking["docs"]'},
    ),
    Case(
        "cooling_down",
        [configured(), running("s1"), over("s1", "noop"), after(minutes=5), *fire()],
        'category["code"].cooldown_until',
        None,
        [configured(), running("s1"), over("s1", "noop"), after(minutes=31), *fire()],
    ),
    Case(
        "cooling_down",
        [configured(categories=NO_COOLDOWN), *noops(3), after(minutes=30), *fire()],
        'category["code"].backoff',
        None,
        [configured(categories=NO_COOLDOWN), *noops(2), after(minutes=30), *fire()],
    ),
    Case(
        "no_work",
        [configured(categories=GATED), tick(), ranking("code"), gate("code", "no_work")],
        'category["code"].gate',
        "work",
        [configured(categories=GATED), tick(), ranking("code"), gate("code", "work")],
    ),
    Case(
        "no_work",
        [configured(categories=NO_COOLDOWN), running("s1"), over("s1", "blocked"), after(minutes=5), *fire()],
        'category["code"].wait',
        None,
        [configured(categories=NO_COOLDOWN), running("s1"), over("s1", "noop"), after(minutes=5), *fire()],
    ),
    Case(
        "gate_error",
        [configured(categories=GATED), tick(), ranking("code"), gate("code", "error", 3)],
        'category["code"].gate',
        "work",
        [configured(categories=GATED), tick(), ranking("code"), gate("code", "work")],
    ),
    Case(
        "host_busy",
        [configured(**BOUNDS), *fire(), measured(load_per_cpu=2, disk_free=9)],
        "host.load_per_cpu",
        1.5,
        [configured(**BOUNDS), *fire(), measured(load_per_cpu=1, disk_free=9)],
    ),
    Case(
        "respawn_spent",
        [configured(), running("s1", chain=1, rule="respawn"), over("s1"), tick("session_end", ended="s1")],
        "respawn.limit",
        2,
        [configured(limit=2), running("s1", chain=1, rule="respawn"), over("s1"), tick("session_end", ended="s1")],
    ),
    Case(
        "over_allocated",
        [capped(1.25), *SHARED, *fire()],
        "allocation.max_ratio",
        1.26,
        [capped(1.26), *SHARED, *fire()],
        {'category["code"].target', 'category["code"].spawned'},
    ),
    Case(
        "over_allocated",
        [capped(1.25), *SHARED, *fire()],
        'category["code"].target',
        0.41,
        [capped(1.25, code=0.41), *SHARED, *fire()],
    ),
    Case(
        "budget_spent",
        [configured(categories={"code": {"max_runs_per_day": 1}}), running("s1"), over("s1"), *fire()],
        'budget["category:code"].runs',
        2,
        [configured(categories={"code": {"max_runs_per_day": 2}}), running("s1"), over("s1"), *fire()],
    ),
    Case(
        "budget_spent",
        [configured(pools={"default": {"max_cost_per_day": 1.0}}), running("s1", "docs"), over("s1"), *fire()],
        'budget["pool:default"].untold',
        0,
        [
            configured(pools={"default": {"max_cost_per_day": 1.0}}),
            running("s1", "docs"),
            over("s1", usage={"cost_usd": 0.0}),
            *fire(),
        ],
    ),
    Case(
        "no_backend",
        [
            configured(pools={"default": {"concurrency": 1}}, backends={"opus": {}, "sonnet": {}}),
            running("s1", "docs", backend="opus"),
            *fire(),
        ],
        'pool["default"].concurrency',
        2,
        [
            configured(pools={"default": {"concurrency": 2}}, backends={"opus": {}, "sonnet": {}}),
            running("s1", "docs", backend="opus"),
            *fire(),
        ],
        {'session["s1"].live'},
    ),
    Case(
        "no_backend",
        [configured(), limited(), *fire()],
        'pool["default"].state',
        "available",
        [configured(), limited(), seen(catalog.BackendRestored(pool="default", source="test")), *fire()],
    ),
    Case(
        "no_backend",
        [configured(backends={"opus": {"concurrency": 1}}), running("s1", "docs", backend="opus"), *fire()],
        'backend["opus"].concurrency',
        2,
        [configured(backends={"opus": {"concurrency": 2}}), running("s1", "docs", backend="opus"), *fire()],
        {'session["s1"].live'},
    ),
    Case(
        "no_backend",
        [configured(), restrained("paused", "backend", "default"), *fire()],
        'backend["default"].paused',
        False,
        [configured(), *fire()],
    ),
    Case(
        "no_backend",
        [
            configured(backends={"opus": {"pool": "max"}, "sonnet": {}}, categories={"code": {"backends": ["opus"]}}),
            limited("max"),
            *fire(),
        ],
        'category["code"].backends',
        None,
        [configured(backends={"opus": {"pool": "max"}, "sonnet": {}}, categories=("code",)), limited("max"), *fire()],
        {'pool["max"].state'},
    ),
    Case(
        "rate_limited",
        [configured(max_starts_per_hour=1), running("s1", "docs"), over("s1"), *fire()],
        "loop.max_starts_per_hour",
        2,
        [configured(max_starts_per_hour=2), running("s1", "docs"), over("s1"), *fire()],
    ),
    Case(
        "rate_limited",
        [configured(max_starts_per_day=1), running("s1", "docs"), over("s1"), *fire()],
        "loop.max_starts_per_day",
        2,
        [configured(max_starts_per_day=2), running("s1", "docs"), over("s1"), *fire()],
    ),
    Case(
        "no_slot",
        [configured(slots=1), running("s1", "docs"), *fire()],
        "capacity",
        2,
        [configured(slots=2), running("s1", "docs"), *fire()],
        {'session["s1"].live'},
    ),
    Case(
        "no_slot",
        [configured(slots=1), *fire("docs", "research", "code")],
        "capacity",
        3,
        [configured(slots=3), *fire("docs", "research", "code")],
        {'ranking["code"]'},
    ),
    Case(
        "no_slot",
        [configured(), running("s1", "docs", rule="allowlist"), tick(), rejection()],
        "selector.fallback_slots",
        2,
        [configured(fallback_slots=2), running("s1", "docs", rule="allowlist"), tick(), rejection()],
        {"selection.rejected", 'session["s1"].live'},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.verdict}: {case.fact}")
def test_the_fact_that_kept_it_from_starting_is_found_and_is_the_one(case: Case) -> None:
    view = given(*case.happened).view()
    assert verdict_of(view) == (case.verdict, ())
    found = {flip[0].fact: flip for flip in flips(view, "code")}
    assert all(len(flip) == 1 for flip in found.values())
    assert found.keys() >= {case.fact, *case.facts}
    assert found[case.fact][0].new == case.to
    assert chosen(changed(view, found[case.fact]))
    assert chosen(given(*case.otherwise).view()), "the history with that fact otherwise"


def test_every_verdict_of_the_decider_has_a_case_and_a_remedy() -> None:
    assert {case.verdict for case in CASES} == set(REMEDIES) == {*GATES, "unknown_category"}


def test_under_fair_more_credit_would_have_started_it() -> None:
    config = configured(policy="fair", slots=1, categories={"code": {"target": 0.3}, "docs": {"target": 0.7}})
    view = given(config, *fire("code", "docs")).view()
    assert verdict_of(view) == ("no_slot", ())
    found = {flip[0].fact: flip[0] for flip in flips(view, "code")}
    credit = found['category["code"].credit']
    assert (credit.old, credit.new) == (0, 0.400001)
    assert chosen(credit.apply(view))
    assert 'ranking["code"]' not in found, "the order of the ranking is not what fair goes by"


def test_two_closed_gates_take_a_pair_of_changes_that_is_marked_as_one() -> None:
    story = told(configured(), restrained("paused"), *fire("docs"), decides())
    found = why_not(story.log, "code")
    assert (found["verdict"], found["also"], found["changes"]) == ("not_ranked", ["paused"], 2)
    pairs = {(flip["fact"], flip["and"][0]["fact"]) for flip in found["flips"]}
    assert ('ranking["code"]', 'restraint["all"].mode') in pairs
    assert [flip["and"][0]["command"] for flip in found["flips"] if flip["fact"] == 'ranking["code"]'] == [
        "loop resume"
    ]


def test_a_gate_that_shows_only_behind_an_open_one_is_found_too() -> None:
    """Lifting the pause lets the one slot go to docs; nothing of that is in the recorded verdicts."""
    view = given(configured(slots=1), restrained("paused"), *fire("docs", "code")).view()
    assert verdict_of(view) == ("paused", ())
    facts = [{change.fact for change in flip} for flip in flips(view, "code")]
    assert {'restraint["all"].mode', "capacity"} in facts


def test_what_suffices_alone_is_no_pair_whoever_suggested_it(monkeypatch: pytest.MonkeyPatch) -> None:
    view = given(configured(slots=1), running("s1", "docs"), *fire()).view()
    enough = next(flip for flip in flips(view, "code") if flip[0].fact == "capacity")[0]
    idle = Change("idle", 0, 1, "nothing had been different", lambda same: same._replace(position=0))
    monkeypatch.setattr(
        search, "suggested", lambda seen, *_: [[idle]] if seen.position == view.position else [[enough]]
    )
    assert flips(view, "code") == [(enough,)]


def test_three_closed_gates_have_no_small_change() -> None:
    story = told(configured(), restrained("paused"), restrained("paused", "category", "code"), *fire("docs"), decides())
    found = why_not(story.log, "code")
    assert (found["changes"], found["flips"]) == (None, [])


def test_a_chosen_category_needs_no_change() -> None:
    found = why_not(told(configured(), *fire(), decides()).log, "code")
    assert (found["verdict"], found["flips"], found["by_hand"], found["session"]) == ("chosen", [], None, "s1")


def test_a_category_that_was_no_candidate_is_said_to_be_none() -> None:
    found = why_not(told(configured(), *fire(), decides()).log, "codx")
    assert found["verdict"] is None
    assert "no candidate" in found["text"]
    assert "did you mean code?" in found["text"]


def test_before_any_decision_there_is_nothing_to_ask_about() -> None:
    story = told(configured())
    with pytest.raises(UsageError):
        why_not(story.log, "code")
    story.happens(*fire(), decides())
    with pytest.raises(UsageError):
        why_not(story.log, "code", story.decisions[0].position - 1)


def test_the_last_fire_at_or_before_the_moment_is_asked_and_no_pass_between_fires() -> None:
    story = told(configured(), *fire("docs"), decides(), over("s1", "noop"), tick("session_end", ended="s1"), decides())
    first = story.decisions[0].position
    story.happens(after(minutes=30), *fire("code"), decides())
    last = story.decisions[-1].position
    assert [why_not(story.log, "code", upto)["decision"] for upto in (first, last - 1, last)] == [first, first, last]
    assert why_not(story.log, "code", last - 1)["verdict"] == "not_ranked"


def test_the_note_of_the_config_in_force_is_shown() -> None:
    def noted(note: str) -> Happening:
        return configured(settings={"categories": {"code": {"note": note}}}, hash=note)

    story = told(noted("old"), noted("not on Fridays"), *fire("docs"), decides(), noted("later"))
    assert why_not(story.log, "code")["note"] == "not on Fridays"
    assert why_not(story.log, "docs")["note"] is None


def test_what_loop_start_would_have_come_to_is_said() -> None:
    cooling = told(configured(), running("s1"), over("s1", "noop"), after(minutes=5), *fire("docs"), decides())
    assert why_not(cooling.log, "code")["by_hand"]["starts"]
    locked = told(configured(), running("s1"), *fire("docs"), decides())
    by_hand = why_not(locked.log, "code")["by_hand"]
    assert (by_hand["starts"], by_hand["verdict"]) == (False, "lock_held")


def test_nobody_is_told_to_stop_a_session_that_has_ended_since() -> None:
    story = told(configured(slots=1), running("s1", "docs"), *fire(), decides())
    assert "loop stop s1" in [flip["command"] for flip in why_not(story.log, "code")["flips"]]
    story.happens(over("s1"))
    assert "loop stop s1" not in [flip["command"] for flip in why_not(story.log, "code")["flips"]]


@for_all(st.integers(0, 10_000))
@settings(max_examples=12)
def test_every_flip_decides_to_chosen_and_none_is_redundant(seed: int) -> None:
    for view in views(LoggedWorld(seed, steps=False).run(60)):
        decision = decide(view)
        for candidate in decision.candidates:
            found = flips(view, candidate.category)
            if candidate.verdict == "chosen":
                assert found == []
            for flip in found:
                assert chosen(changed(view, flip), candidate.category)
                for left_out in flip:
                    rest = tuple(change for change in flip if change is not left_out)
                    assert not chosen(changed(view, rest), candidate.category)
            results = [changed(view, flip) for flip in found]
            assert all(result not in results[:index] for index, result in enumerate(results)), "two ways to say one"


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_one_object_that_its_own_command_reproduces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "s" / "loop.db"
    told(configured(slots=1), *fire("docs", "code"), decides(), path=db).log.close()
    assert run(db, "code", at=None, as_json=True) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["schema"] == "loop.why-not/1"
    *_, at = first["command"].split()
    run(db, "code", at=at, as_json=True)
    again = json.loads(capsys.readouterr().out)
    assert {**again, "as_of": None} == {**first, "as_of": None}
    run(db, "code", at=None, as_json=False)
    text = " ".join(capsys.readouterr().out.split())
    for words in ("did not start: no slot was left", "2 slots instead of 1", "[loop] slots = 2", first["command"]):
        assert words in text


def test_reading_loads_no_validator_and_writes_nothing(tmp_path: Path) -> None:
    db = tmp_path / "s" / "loop.db"
    told(configured(), *fire("docs", "code"), decides(), path=db).log.close()
    before = db.read_bytes()
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from loop.commands import replay, why, why_not
db = Path({str(db)!r})
why_not.run(db, "research", at=None, as_json=False)
why.run(db, "s1", at=None, as_json=False)
replay.run(db, since=None, until=None, at=None, policy="intent", config=None, as_json=False)
print(sorted({{"pydantic", "sqlite_utils"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert db.read_bytes() == before
