"""Policy `fair`: what it decides, and what its ledger records. Its bounds are in test_bounds.py."""

from __future__ import annotations

from typing import Any

import pytest
from fleet import UNIT, Fleet
from given import (
    Happening,
    after,
    by_hand,
    configured,
    decides,
    failed,
    given,
    limited,
    lost,
    over,
    ranking,
    rejection,
    restrained,
    running,
    tick,
)

from loop.decider import Decision, decide
from loop.fair import CLAMP, in_the_running

THREE: dict[str, dict[str, Any]] = {"code": {"target": 0.5}, "docs": {"target": 0.3}, "news": {"target": 0.2}}


def fair(**changes: Any) -> Happening:
    return configured(**{"policy": "fair", "slots": 1, "categories": THREE, **changes})


def fire(*names: str) -> list[Happening]:
    return [tick(), ranking(*(names or ("news", "docs", "code")))]


def decision(*happenings: Happening, **config: Any) -> Decision:
    return decide(given(fair(**config), *happenings).view())


def accounts(found: Decision) -> dict[str, dict[str, int]]:
    assert found.ledger is not None
    accounts: dict[str, dict[str, int]] = found.ledger["accounts"]
    return accounts


def chosen(found: Decision) -> list[str]:
    return [choice.category for choice in found.chosen]


# ── what a decision says ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_claim_comes_first_whatever_the_selectors_order() -> None:
    found = decision(*fire("news", "docs", "code"))
    assert [each.category for each in found.candidates] == ["code", "docs", "news"]
    assert chosen(found) == ["code"]


def test_the_decision_records_every_term() -> None:
    found = decision(*fire())
    terms = {"lanes": 1, "seconds": 1, "credit": 0, "moved": 0}
    assert found.ledger == {
        "slots": 1,
        "accounts": {
            "code": {
                "weight": 500_000,
                "share": 500_000,
                "claim": 500_000,
                "charged": UNIT,
                "after": -500_000,
                **terms,
            },
            "docs": {"weight": 300_000, "share": 300_000, "claim": 300_000, "charged": 0, "after": 300_000, **terms},
            "news": {"weight": 200_000, "share": 200_000, "claim": 200_000, "charged": 0, "after": 200_000, **terms},
        },
        "forfeited": {},
    }


def test_what_was_recorded_is_what_the_next_decision_begins_with() -> None:
    story = given(fair(), *fire(), decides(), over("s1", proved=False), *fire())
    assert {name: each["credit"] for name, each in accounts(decide(story.view())).items()} == {
        "code": -500_000,
        "docs": 300_000,
        "news": 200_000,
    }
    assert chosen(decide(story.view())) == ["docs"]


def test_ties_go_to_the_older_last_start_and_then_to_the_name() -> None:
    story = given(fair(categories=("b", "a", "c", "d"), slots=3), running("s1", "a"), over("s1", proved=False))
    story.happens(after(minutes=31), tick(), ranking("a", "b", "c", "d"))
    assert [each.category for each in decide(story.view()).candidates] == ["b", "c", "d", "a"]


def test_whom_nobody_asked_for_is_not_in_the_running() -> None:
    found = decision(*fire("docs", "code"))
    assert list(accounts(found)) == ["code", "docs"]
    assert [each["share"] for each in accounts(found).values()] == [625_000, 375_000]
    assert found.candidates[-1].verdict == "not_ranked"


def test_after_a_rejected_answer_it_may_be_anyone() -> None:
    found = decision(tick(), rejection())
    assert (list(accounts(found)), chosen(found)) == (["code", "docs", "news"], ["code"])


def test_nothing_moves_where_no_slot_is_given() -> None:
    before = [*fire(), decides(), *fire("docs")]
    found = decision(*before, restrained("paused"))
    assert found.ledger is not None
    assert (found.ledger["slots"], found.ledger["forfeited"]) == (0, {})
    assert all(each["after"] == each["credit"] for each in accounts(found).values())


@pytest.mark.parametrize("out", ["not asked for", "paused", "no backend", "by hand only", "no work"])
def test_who_is_out_of_the_running_accrues_nothing(out: str) -> None:
    config: dict[str, Any] = {"categories": dict(THREE), "backends": {"default": {}, "own": {"pool": "own"}}}
    story = fire()
    if out == "not asked for":
        story = fire("docs", "code")
    elif out == "paused":
        story = [restrained("paused", "category", "news"), *story]
    elif out == "no backend":
        config["categories"]["news"] = {"target": 0.2, "backends": ["own"]}
        story = [limited("own"), *story]
    elif out == "by hand only":
        config["categories"]["news"] = {"target": 0.2, "parallel": False}
    view = given(fair(**config), *story).view()
    if out == "no work":
        news = view.categories["news"]._replace(supply="none")
        view = view._replace(categories={**view.categories, "news": news})
    assert list(in_the_running(view)) == ["code", "docs"]
    assert sum(each["share"] for each in accounts(decide(view)).values()) == UNIT


def test_who_is_locked_or_cooling_down_stays_in_the_running() -> None:
    found = decision(running("s1", "news"), running("s2", "docs"), over("s2", "noop"), *fire(), slots=2)
    assert {each.category: each.verdict for each in found.candidates}["docs"] == "cooling_down"
    assert list(accounts(found)) == ["code", "docs", "news"]


def test_credit_is_forfeited_on_leaving_and_goes_to_those_who_stay() -> None:
    story = given(fair(), *fire(), decides(), over("s1", proved=False), *fire("news", "code"), decides())
    recorded = next(event.data["ledger"] for event in reversed(story.events) if event.type == "fanout.decided")
    assert recorded["forfeited"] == {"docs": 300_000}
    assert {name: each["moved"] for name, each in recorded["accounts"].items()} == {"code": 214_286, "news": 85_714}
    assert "docs" not in story.view().ledger
    assert sum(story.view().ledger.values()) == 0


def test_debt_is_kept_on_leaving() -> None:
    story = given(fair(), *fire(), decides(), over("s1", proved=False), *fire("news", "docs"), decides())
    assert story.view().ledger["code"] == -500_000
    story.happens(over("s2", proved=False), *fire())
    assert accounts(decide(story.view()))["code"]["credit"] == -500_000


def test_who_is_no_longer_configured_keeps_neither() -> None:
    story = given(fair(), *fire(), decides(), over("s1", proved=False))
    two = {name: THREE[name] for name in ("docs", "news")}
    story.happens(fair(categories=two), *fire("docs", "news"), decides())
    assert set(story.view().ledger) <= {"docs", "news"}
    assert sum(story.view().ledger.values()) == 0


def test_a_respawn_is_charged() -> None:
    story = given(fair(), *fire(), decides(), over("s1"), tick("session_end", ended="s1"))
    found = decide(story.view())
    respawn = next(each for each in found.candidates if each.category == "code")
    assert (respawn.rule, accounts(found)["code"]["claim"]) == ("respawn", 0)
    assert chosen(found) == ["docs"], "and it competes: its chain has no claim before others"
    alone = given(fair(), *fire("code"), decides(), over("s1"), tick("session_end", ended="s1"))
    found = decide(alone.view())
    assert (chosen(found), accounts(found)["code"]["charged"]) == (["code"], UNIT)


def test_a_start_by_hand_is_charged_where_its_category_is_in_the_running() -> None:
    found = decision(*fire(), by_hand("news"))
    assert (chosen(found), accounts(found)["news"]["charged"]) == (["news"], UNIT)
    found = decision(*fire("code"), by_hand("news"))
    assert found.ledger is not None
    assert (chosen(found), found.ledger["slots"]) == (["news"], 0)


@pytest.mark.parametrize("end", [failed("s1"), over("s1", "limited"), over("s1", "refused")])
def test_a_start_that_came_to_nothing_is_taken_back(end: Happening) -> None:
    story = given(fair(), *fire("docs", "code"), decides())
    assert story.view().ledger == {"code": -375_000, "docs": 375_000}
    story.happens(end)
    assert story.view().ledger == {}
    assert story.state.ledger["open"] == {}


@pytest.mark.parametrize("end", [over("s1", "failed"), over("s1", "noop"), lost("s1")])
def test_a_start_that_came_about_stays_charged_whatever_came_of_it(end: Happening) -> None:
    story = given(fair(), *fire("docs", "code"), decides(), end)
    assert story.view().ledger == {"code": -375_000, "docs": 375_000}
    assert story.state.ledger["open"] == {}


def test_another_policy_ends_the_ledger() -> None:
    story = given(fair(), *fire(), decides(), configured(policy="intent", categories=THREE))
    assert story.view().ledger == {}
    assert decide(story.happens(*fire()).view()).ledger is None


def test_without_targets_all_weigh_the_same_and_beside_targets_none_weighs_nothing() -> None:
    assert {each["share"] for each in accounts(decision(*fire(), categories=tuple(THREE))).values()} <= {
        333_333,
        333_334,
    }
    some = {**THREE, "news": {}}
    assert accounts(decision(*fire(), categories=some))["news"]["share"] == 0
    assert chosen(decision(*fire("news"), categories=some)) == ["news"], "alone it is served all the same"


def test_credit_beyond_two_slots_goes_back_while_no_slot_could_be_used() -> None:
    fleet = Fleet(
        2,
        {"a": {"target": 0.8}, "b": {"target": 0.1}, "c": {"target": 0.1}},
        lasts=lambda name: 10**6 if name == "a" else 1,
    )
    fleet.run(40)
    assert fleet.order.count("a") == 1
    assert fleet.credit("a") == CLAMP
    assert sum(fleet.ledger["credits"].values()) == 0
