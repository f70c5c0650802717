"""Given what happened, when a pass decides, then each candidate has this verdict. One story for each gate."""

from __future__ import annotations

from typing import Any

import pytest
from given import (
    Happening,
    Story,
    after,
    by_hand,
    configured,
    given,
    limited,
    over,
    ranking,
    rejection,
    requested,
    restrained,
    running,
    tick,
)

from loop.decider import DECIDER, GATES, VERDICTS, Candidate, Decision, decide

FIRE = tick()


def decision(*happenings: Happening, config: Happening | None = None) -> Decision:
    """What is decided at the end of a story."""
    return decide(given(config or configured(), *happenings).view())


def candidate(found: Decision, name: str) -> Candidate:
    [one] = [each for each in found.candidates if each.category == name]
    return one


def verdicts(found: Decision) -> dict[str, str]:
    return {each.category: each.verdict for each in found.candidates}


def chosen(found: Decision) -> list[str]:
    return [choice.category for choice in found.chosen]


def test_the_gates_stand_in_the_order_of_the_verdicts() -> None:
    assert [verdict for verdict in VERDICTS if verdict in GATES] == list(GATES)
    assert VERDICTS[0] == "unknown_category"
    assert len(set(VERDICTS)) == len(VERDICTS) == 19


# ── one story for each verdict ────────────────────────────────────────────────────────────────────────────────────────


def test_chosen() -> None:
    found = decision(FIRE, ranking("code", {"category": "docs", "task": "write", "score": 2.5}))
    assert verdicts(found) == {"code": "chosen", "docs": "chosen", "research": "not_ranked"}
    first, second = found.chosen
    assert (first.category, first.rule, first.task, first.backend) == ("code", "selected", "", "default")
    assert (second.rule, second.task, second.keys) == ("all_scores", "write", ("docs",))
    assert candidate(found, "docs").score == 2_500_000
    assert found.idle == ((1, "nothing_ranked"),)


def test_unknown_category() -> None:
    found = decision(FIRE, ranking("cleanup"))
    assert candidate(found, "cleanup") == Candidate("cleanup", 1, "selected", None, "unknown_category", (), {})
    assert found.idle[0] == (1, "unknown_category")


def test_not_allowed() -> None:
    config = configured(categories={"code": {"parallel": False}, "docs": {}})
    found = decision(FIRE, ranking("code", "docs"), config=config)
    assert verdicts(found) == {"code": "not_allowed", "docs": "chosen"}


def test_not_ranked() -> None:
    found = decision(FIRE, ranking("code"))
    assert candidate(found, "docs") == Candidate("docs", None, None, None, "not_ranked", (), {})
    assert found.idle == ((2, "nothing_ranked"),), "nobody asked for it, so it is no reason for an idle slot"


@pytest.mark.parametrize("mode", ["frozen", "draining", "paused"])
@pytest.mark.parametrize("scope", [("all", None), ("category", "code")])
def test_restraints(mode: str, scope: tuple[str, str | None]) -> None:
    found = decision(restrained(mode, *scope, minutes=10), FIRE, ranking("code", "docs"))
    assert candidate(found, "code").verdict == mode
    assert candidate(found, "code").detail["scope"] == ":".join(filter(None, scope))
    assert candidate(found, "code").detail["until"] == "2026-11-23T14:10:00.000000Z"
    assert candidate(found, "docs").verdict == (mode if scope[0] == "all" else "chosen")
    assert found.idle[0] == ((3, mode) if scope[0] == "all" else (1, mode))


def test_a_restraint_that_is_over_restrains_nobody() -> None:
    assert chosen(decision(restrained("paused", minutes=10), after(minutes=10), FIRE, ranking("code"))) == ["code"]


def test_lock_held_by_a_session_of_the_category() -> None:
    story = given(configured(), running("s1", "code"), FIRE, ranking("code", "docs"))
    found = decide(story.view())
    assert candidate(found, "code").verdict == "lock_held"
    assert candidate(found, "code").detail == {"key": "code", "session": "s1"}
    assert found.idle == ((1, "lock_held"),)


def test_lock_held_by_another_category_that_needs_the_same_key() -> None:
    config = configured(categories={"code": {"locks": ["repo"]}, "docs": {"locks": ["repo", "site"]}, "news": {}})
    found = decision(running("s1", "code", keys=["code", "repo"]), FIRE, ranking("docs"), config=config)
    assert candidate(found, "docs").detail == {"key": "repo", "session": "s1"}


def test_lock_held_by_a_grant_of_the_same_pass() -> None:
    config = configured(categories={"code": {"locks": ["repo"]}, "docs": {"locks": ["repo", "site"]}})
    found = decision(FIRE, ranking("code", "docs"), config=config)
    assert chosen(found) == ["code"]
    assert found.chosen[0].keys == ("code", "repo")
    assert candidate(found, "docs").detail == {"key": "repo", "session": "this pass"}


def test_lock_held_until_it_is_released_whatever_the_session_says() -> None:
    from given import ended, released

    story = given(configured(), running("s1"), ended("s1"), FIRE, ranking("code"))
    assert verdicts(decide(story.view()))["code"] == "lock_held"
    story.happens(released("code"))
    assert verdicts(decide(story.view()))["code"] == "chosen"


def test_task_taken() -> None:
    same = {"task": "issue-7"}
    found = decision(running("s1", "code", **same), FIRE, ranking({"category": "docs", **same}))
    assert candidate(found, "docs").detail == {"task": "issue-7", "session": "s1"}
    found = decision(FIRE, ranking({"category": "code", **same}, {"category": "docs", **same}))
    assert verdicts(found)["docs"] == "task_taken"
    assert candidate(found, "docs").detail["session"] == "this pass"
    assert verdicts(decision(running("s1", "code"), FIRE, ranking("docs")))["docs"] == "chosen", "no task is no task"


def test_not_alone() -> None:
    config = configured(categories={"code": {"parallel": "alone"}, "docs": {}})
    found = decision(FIRE, ranking("code", "docs"), config=config)
    assert verdicts(found) == {"code": "chosen", "docs": "not_alone"}
    assert candidate(found, "docs").detail == {"alone": "code"}
    found = decision(FIRE, ranking("docs", "code"), config=config)
    assert verdicts(found) == {"docs": "chosen", "code": "not_alone"}
    assert candidate(found, "code").detail == {"live": 1}
    found = decision(running("s1", "code"), FIRE, ranking("docs"), config=config)
    assert verdicts(found)["docs"] == "not_alone"
    found = decision(running("s1", "docs"), FIRE, ranking("code"), config=config)
    assert verdicts(found)["code"] == "not_alone"


def test_cooling_down() -> None:
    story = [running("s1"), over("s1", "noop"), FIRE, ranking("code")]
    found = decision(*story)
    assert verdicts(found)["code"] == "cooling_down"
    assert candidate(found, "code").detail == {"until": "2026-11-23T14:30:00.000000Z"}
    assert verdicts(decision(*story[:2], after(minutes=30), *story[2:]))["code"] == "chosen"


def test_respawn_spent() -> None:
    story = [running("s1", chain=1, rule="respawn"), over("s1"), tick("session_end", ended="s1")]
    found = decision(*story)
    assert verdicts(found) == {"code": "respawn_spent"}
    assert candidate(found, "code").detail == {"chain": 1, "limit": 1}
    assert found.idle[0] == (1, "respawn_spent")
    assert chosen(decision(*story, config=configured(limit=2))) == ["code"]


def shares_of(**changes: Any) -> Happening:
    """Three categories with targets, five starts of code in the window, and a cap."""
    targets = {"code": {"target": 0.5}, "docs": {"target": 0.3}, "news": {"target": 0.2}}
    return configured(**{"categories": targets, "max_ratio": 1.75, "slots": 10, **changes})


def history_of(*categories: str) -> list[Happening]:
    """Sessions that ran and are over."""
    return [
        step
        for number, name in enumerate(categories)
        for step in (running(f"h{number}", name), over(f"h{number}", "productive", proved=False), after(minutes=1))
    ]


def test_over_allocated() -> None:
    before = history_of("news", "news", "code", "code")
    found = decision(*before, FIRE, ranking("news", "code"), config=shares_of())
    assert verdicts(found) == {"news": "over_allocated", "code": "chosen", "docs": "not_ranked"}
    detail = {"started": 2, "total": 4, "most": 2, "target": 200_000, "max_ratio": 1_750_000}
    assert candidate(found, "news").detail == detail, "a third of five: more than 1.75 times 0.2 of 5, rounded up"
    assert found.idle[0] == (1, "over_allocated")
    assert verdicts(decision(*before, FIRE, ranking("news"), config=shares_of(max_ratio=None)))["news"] == "chosen"
    assert verdicts(decision(*before, FIRE, ranking("news"), config=shares_of(max_ratio=2.1)))["news"] == "chosen"


def test_the_cap_is_tested_on_the_state_after_each_start_of_the_pass() -> None:
    before = history_of("news", "news", "code", "code")
    found = decision(*before, FIRE, ranking("code", "docs", "news"), config=shares_of())
    assert chosen(found) == ["code", "docs", "news"], "after two more starts of others a third of seven is 3"
    lanes = {"code": {"target": 0.9}, "news": {"target": 0.1, "lanes": 2}}
    story = [*history_of("code"), running("s1", "news", keys=["news#1"]), FIRE, ranking("news")]
    found = decision(*story, config=shares_of(categories=lanes))
    assert candidate(found, "news").detail["started"] == 1
    story[-3] = requested("s1", "news", keys=["news#1"])
    found = decision(*story, config=shares_of(categories=lanes))
    assert candidate(found, "news").detail["started"] == 1, "granted and not yet started counts too"


def test_the_cap_always_leaves_one_start() -> None:
    config = shares_of(categories={"code": {"target": 1.0}, "news": {"target": 0.0}})
    assert chosen(decision(FIRE, ranking("news"), config=config)) == ["news"]
    found = decision(*history_of("news"), FIRE, ranking("news"), config=config)
    assert candidate(found, "news").detail["most"] == 1


def test_the_cap_binds_respawns_and_the_safety_net_and_leaves_starts_by_hand_free() -> None:
    config = shares_of(categories={"code": {"target": 0.9}, "news": {"target": 0.1}})
    last = [running("s1", "news"), over("s1")]
    found = decision(*history_of("code", "news"), *last, tick("session_end", ended="s1"), config=config)
    assert (candidate(found, "news").rule, verdicts(found)["news"]) == ("respawn", "over_allocated")
    found = decision(*history_of("code", "news"), *last, by_hand("news"), config=config)
    assert chosen(found) == ["news"]
    found = decision(*history_of("code", "news", "news"), FIRE, rejection(), config=config)
    assert verdicts(found) == {"code": "chosen", "news": "over_allocated"}


@pytest.mark.parametrize("targets", [(None, None), (0.0, None), (0.0, 0.0)])
def test_without_targets_there_is_nothing_to_cap(targets: tuple[float | None, float | None]) -> None:
    categories = {name: {"target": target} for name, target in zip(("code", "news"), targets, strict=True)}
    config = shares_of(categories=categories, max_ratio=1.0)
    assert chosen(decision(*history_of("news", "news", "code"), FIRE, ranking("news"), config=config)) == ["news"]


def test_a_category_without_a_target_beside_others_is_not_capped() -> None:
    config = shares_of(categories={"code": {"target": 0.2}, "news": {}}, max_ratio=1.0)
    found = decision(*history_of("news", "code", "code"), FIRE, ranking("news", "code"), config=config)
    assert chosen(found) == ["news", "code"], "the one target is all of what is stated"


@pytest.mark.parametrize("trouble", ["limited", "unknown", "paused", "busy", "no command", "not configured"])
def test_no_backend(trouble: str) -> None:
    config: dict[str, Any] = {"backends": {"opus": {"pool": "max"}, "other": {"pool": "other"}}}
    config["categories"] = {"code": {"backends": ["opus"]}, "docs": {"backends": ["opus", "other"]}, "news": {}}
    story: list[Happening] = []
    if trouble == "limited":
        story = [limited("max", minutes=10)]
    elif trouble == "unknown":
        story = [limited("max")]
    elif trouble == "paused":
        story = [restrained("paused", "backend", "opus")]
    elif trouble == "busy":
        config["backends"]["opus"]["concurrency"] = 1
        story = [running("s1", "news", backend="opus")]
    elif trouble == "no command":
        config["backends"]["opus"]["command"] = False
        config["categories"] = {name: {**each, "own_command": False} for name, each in config["categories"].items()}
    else:
        config["backends"] = {"other": {}}
    found = decision(*story, FIRE, ranking("code", "docs"), config=configured(**config))
    assert verdicts(found)["code"] == "no_backend"
    expected = "2026-11-23T14:10:00.000000Z" if trouble == "limited" else None
    assert candidate(found, "code").detail == {"backends": 1, "until": expected}
    assert [(choice.category, choice.backend) for choice in found.chosen] == [("docs", "other")]


def test_rate_limited() -> None:
    story = [requested("s1"), after(minutes=59), FIRE, ranking("docs", "research")]
    found = decision(*story, config=configured(max_starts_per_hour=2))
    assert verdicts(found) == {"docs": "chosen", "research": "rate_limited", "code": "not_ranked"}
    assert candidate(found, "research").detail == {"window": "hour", "starts": 2, "limit": 2}
    assert found.idle == ((1, "rate_limited"),)
    found = decision(*story, config=configured(max_starts_per_day=1))
    assert candidate(found, "docs").detail == {"window": "day", "starts": 1, "limit": 1}
    found = decision(story[0], after(hours=1), *story[2:], config=configured(max_starts_per_hour=2))
    assert chosen(found) == ["docs", "research"]


def test_no_slot() -> None:
    found = decision(running("s1", "code"), FIRE, ranking("docs", "research"), config=configured(slots=2))
    assert verdicts(found)["research"] == "no_slot"
    assert candidate(found, "research").detail == {"capacity": 2, "live": 1, "granted": 1}
    assert found.idle == ()


def test_more_sessions_than_slots_is_no_negative_number_of_slots() -> None:
    found = decision(
        running("s1", "code"), running("s2", "docs"), FIRE, ranking("research"), config=configured(slots=1)
    )
    assert (found.free, chosen(found), found.idle) == (0, [], ())


# ── the order of verdicts ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_failing_gate_is_the_verdict_and_the_others_stand_beside_it() -> None:
    """Everything at once; then, one cause after another taken away, the next verdict in the list."""
    categories: dict[str, Any] = {"code": {"parallel": "alone", "backends": ["opus"]}, "docs": {}}
    causes: dict[str, Happening] = {
        "frozen": restrained("frozen", "category", "code"),
        "draining": restrained("draining"),
        "lock_held": running("s1", "code", task="t"),
        "no_backend": limited("default", minutes=10),
    }
    config = configured(categories=categories, slots=1, backends={"opus": {}}, max_starts_per_hour=1)
    entry = {"category": "code", "task": "t"}
    found = candidate(decision(*causes.values(), FIRE, ranking(entry), config=config), "code")
    everything = ["frozen", "draining", "lock_held", "task_taken", "not_alone", "no_backend", "rate_limited", "no_slot"]
    assert [found.verdict, *found.also] == everything
    positions = [VERDICTS.index(verdict) for verdict in everything]
    assert positions == sorted(positions)
    del causes["frozen"]
    found = candidate(decision(*causes.values(), FIRE, ranking(entry), config=config), "code")
    assert [found.verdict, *found.also] == everything[1:]
    del causes["draining"]
    found = candidate(decision(*causes.values(), FIRE, ranking(entry), config=config), "code")
    assert [found.verdict, *found.also] == everything[2:]
    del causes["lock_held"]
    found = candidate(decision(*causes.values(), FIRE, ranking(entry), config=config), "code")
    assert [found.verdict, *found.also] == ["no_backend"]


def test_an_unknown_category_has_no_other_verdict() -> None:
    found = decision(restrained("frozen"), FIRE, ranking("cleanup"))
    assert candidate(found, "cleanup").also == ()


# ── who comes first ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_intent_takes_the_selectors_order() -> None:
    found = decision(FIRE, ranking("research", "cleanup", "code", "docs"), config=configured(slots=2))
    assert chosen(found) == ["research", "code"]
    assert [(each.category, each.rank) for each in found.candidates] == [
        ("research", 1),
        ("cleanup", 2),
        ("code", 3),
        ("docs", 4),
    ]


def test_the_unranked_come_last_without_a_rank() -> None:
    found = decision(FIRE, ranking("docs"))
    assert [(each.category, each.rank) for each in found.candidates] == [
        ("docs", 1),
        ("code", None),
        ("research", None),
    ]


def test_a_valid_answer_keeps_the_safety_net_shut() -> None:
    for answer in (ranking(), ranking("cleanup")):
        found = decision(FIRE, answer)
        assert chosen(found) == []
        assert sum(slots for slots, _ in found.idle) == 3


def test_an_answer_of_another_pass_is_none_at_a_fire() -> None:
    found = decision(FIRE, ranking("code"), after(minutes=1), tick())
    assert chosen(found) == []
    assert found.idle == ((3, "nothing_ranked"),)


# ── lanes and backends ────────────────────────────────────────────────────────────────────────────────────────────────


def test_lanes_let_a_category_run_more_than_once() -> None:
    config = configured(categories={"code": {"lanes": 2}, "docs": {}})
    found = decision(FIRE, ranking("code"), config=config)
    assert found.chosen[0].keys == ("code#1",)
    found = decision(running("s1", "code", keys=["code#1"]), FIRE, ranking("code"), config=config)
    assert found.chosen[0].keys == ("code#2",)
    both = [running("s1", "code", keys=["code#1"]), running("s2", "code", keys=["code#2"])]
    found = decision(*both, FIRE, ranking("code"), config=config)
    assert candidate(found, "code").detail == {"key": "code#1", "session": "s1"}
    found = decision(*both, over("s1"), FIRE, ranking("code"), config=config)
    assert found.chosen[0].keys == ("code#1",)


def test_the_backend_unused_for_longest_is_taken_and_no_grant_of_the_pass_forgotten() -> None:
    config = configured(backends={"a": {"pool": "a"}, "b": {"pool": "b"}})
    story = given(config, running("s1", "code", backend="a"), over("s1"), FIRE, ranking("code", "docs", "research"))
    assert [choice.backend for choice in decide(story.view()).chosen] == ["b", "a", "b"]


def test_the_first_named_backend_that_can_take_it_is_taken() -> None:
    config = configured(
        categories={"code": {"backends": ["a", "b"]}, "docs": {"backends": ["a", "b"]}},
        backends={"b": {"pool": "b"}, "a": {"pool": "a", "concurrency": 1}},
    )
    found = decision(FIRE, ranking("code", "docs"), config=config)
    assert [choice.backend for choice in found.chosen] == ["a", "b"]


# ── the safety net ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_rejection_the_most_owed_are_started_at_most_fallback_slots() -> None:
    story: list[Happening] = [running("s1", "code"), over("s1"), running("s2", "docs"), over("s2"), FIRE, rejection()]
    found = decision(*story)
    assert [(choice.category, choice.rule) for choice in found.chosen] == [("research", "allowlist")]
    assert [each.category for each in found.candidates] == ["research", "code", "docs"], "then the older last start"
    assert candidate(found, "code").verdict == "no_slot"
    assert candidate(found, "code").detail == {"fallback_slots": 1, "live": 1}
    assert found.idle == ((2, "rejected"),)
    assert chosen(decision(*story, config=configured(fallback_slots=2))) == ["research", "code"]


def test_the_net_counts_who_already_lives_on_it() -> None:
    found = decision(running("s1", "code", rule="allowlist"), FIRE, rejection())
    assert chosen(found) == []
    assert candidate(found, "docs").detail == {"fallback_slots": 1, "live": 1}


def test_the_net_follows_the_targets() -> None:
    config = configured(categories={"code": {"target": 0.8}, "docs": {"target": 0.2}, "news": {}})
    story = [running("s1", "code"), over("s1")]
    assert chosen(decision(FIRE, rejection(), config=config)) == ["code"]
    assert chosen(decision(*story, FIRE, rejection(), config=config)) == ["code"], "0.8 of two is more than one"
    more = [running("s2", "code"), over("s2"), running("s3", "code"), over("s3"), running("s4", "code"), over("s4")]
    assert chosen(decision(*story, *more, FIRE, rejection(), config=config)) == ["docs"]


def test_among_the_equally_owed_who_never_started_comes_first_then_the_older_start() -> None:
    long_ago = [running("s1", "research"), over("s1"), after(minutes=1), running("s2", "code"), over("s2")]
    found = decision(*long_ago, after(days=5), FIRE, rejection())
    assert [each.category for each in found.candidates] == ["docs", "research", "code"]


def test_the_net_never_takes_who_may_only_start_by_hand() -> None:
    config = configured(categories={"code": {"parallel": False}, "docs": {}}, fallback_slots=3)
    found = decision(FIRE, rejection(), config=config)
    assert chosen(found) == ["docs"]
    assert candidate(found, "code").rank is None


def test_hold_holds() -> None:
    found = decision(FIRE, rejection(), config=configured(on_reject="hold"))
    assert chosen(found) == []
    assert found.idle == ((3, "rejected"),)
    assert {each.rank for each in found.candidates} == {None}


def test_a_session_from_the_net_earns_no_respawn() -> None:
    story = [FIRE, rejection(), running("s1", rule="allowlist"), over("s1"), tick("session_end", ended="s1")]
    found = decision(*story)
    assert (found.candidates, found.idle) == ((), ((3, "rejected"),))


# ── the pass after a session's end ────────────────────────────────────────────────────────────────────────────────────


def at_end(session: str = "s1") -> Happening:
    return tick("session_end", ended=session)


def test_a_due_respawn_comes_first_and_carries_its_chain() -> None:
    story: list[Happening] = [FIRE, ranking("docs", {"category": "code", "task": "next"}), running("s1"), over("s1")]
    found = decision(*story, at_end())
    assert [(choice.category, choice.rule) for choice in found.chosen] == [("code", "respawn"), ("docs", "selected")]
    respawn = found.chosen[0]
    assert (respawn.chain, respawn.parent, respawn.task) == (1, "s1", "next")
    assert found.candidates[0].rank is None


def test_a_respawn_passes_every_gate_but_the_cool_down() -> None:
    story = [running("s1"), over("s1")]
    cooling = configured(categories={"code": {"cooldown": 600.0}})
    assert chosen(decision(*story, at_end(), config=cooling)) == ["code"]
    for trouble, verdict in (
        (restrained("draining"), "draining"),
        (limited(), "no_backend"),
        (running("s2", "docs", keys=["docs", "code"]), "lock_held"),
    ):
        assert verdicts(decision(*story, trouble, at_end()))["code"] == verdict
    full = configured(slots=1)
    assert verdicts(decision(*story, running("s2", "docs"), at_end(), config=full))["code"] == "no_slot"


def test_any_pass_picks_up_a_respawn_that_a_crash_left() -> None:
    story = [running("s1"), over("s1"), after(minutes=5)]
    assert [choice.parent for choice in decision(*story, FIRE, ranking("docs")).chosen] == [None, "s1"]
    assert [choice.parent for choice in decision(*story, at_end("another")).chosen] == ["s1"]
    assert chosen(decision(*story, after(minutes=25), at_end())) == [], "it lapses one period after the end"


def test_a_ranked_category_goes_by_its_rank_at_a_fire_even_where_a_respawn_is_due() -> None:
    found = decision(running("s1"), over("s1"), FIRE, ranking("docs", "code"))
    assert [(choice.category, choice.rule) for choice in found.chosen] == [("docs", "selected"), ("code", "all_scores")]


def test_entries_that_were_not_used_are_taken_while_the_answer_is_fresh() -> None:
    story: list[Happening] = [FIRE, ranking("code", "docs", "research"), running("s1"), over("s1", "noop")]
    assert chosen(decision(*story, at_end())) == ["docs", "research"]
    assert [each.rank for each in decision(*story, at_end()).candidates] == [2, 3]
    assert chosen(decision(*story, after(minutes=15), at_end())) == ["docs", "research"]
    found = decision(*story, after(minutes=15, seconds=1), at_end())
    assert (found.candidates, found.idle) == ((), ((3, "nothing_ranked"),)), "an older ranking is never used"


def test_each_category_has_at_most_one_session_of_an_answer_respawns_apart() -> None:
    story = [FIRE, ranking("code"), running("s1"), over("s1", "noop", proved=False), after(minutes=1), at_end()]
    config = configured(categories={"code": {"cooldown": 0.0}, "docs": {}})
    assert chosen(decision(*story, config=config)) == []


def test_a_spent_chain_does_not_hide_what_a_newer_answer_asks_for() -> None:
    """The end of a respawn that may not go on; the selector, asked meanwhile, wants the category again."""
    chain = [running("s1"), over("s1"), running("s2", rule="respawn", chain=1, parent="s1")]
    found = decision(*chain, FIRE, ranking("code"), over("s2"), at_end("s2"))
    assert [(choice.category, choice.rule, choice.chain) for choice in found.chosen] == [("code", "selected", 0)]
    assert len(found.candidates) == 1
    assert verdicts(decision(*chain, over("s2"), at_end("s2"))) == {"code": "respawn_spent"}
    assert verdicts(decision(*chain, over("s2"), at_end("s9"))) == {}, "another session's end says nothing of it"


def test_nothing_of_a_rejected_answer_is_started_at_a_sessions_end() -> None:
    found = decision(FIRE, rejection(), running("s1", rule="allowlist"), over("s1", "noop"), at_end())
    assert chosen(found) == []


# ── by hand ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_start_by_hand_is_the_only_candidate() -> None:
    found = decision(FIRE, ranking("docs"), by_hand("code", task="t"))
    assert [(each.category, each.rank, each.rule) for each in found.candidates] == [("code", 1, "manual")]
    [choice] = found.chosen
    assert (choice.category, choice.task, choice.rule, choice.chain) == ("code", "t", "manual", 0)
    assert found.idle == ((2, "nothing_ranked"),)


def test_by_hand_passes_the_allowlist_and_the_cool_down_and_nothing_else() -> None:
    config = configured(categories={"code": {"parallel": False, "cooldown": 600.0}, "docs": {}})
    story = [running("s1"), over("s1", "noop")]
    assert chosen(decision(*story, by_hand("code"), config=config)) == ["code"]
    assert verdicts(decision(*story, restrained("paused"), by_hand("code"), config=config)) == {"code": "paused"}
    assert verdicts(decision(running("s1"), by_hand("code"))) == {"code": "lock_held"}
    assert verdicts(decision(by_hand("cleanup"))) == {"cleanup": "unknown_category"}


def test_by_hand_takes_the_backend_that_was_named() -> None:
    config = configured(backends={"a": {"pool": "a"}, "b": {"pool": "b"}})
    assert decision(by_hand("code", backend="b"), config=config).chosen[0].backend == "b"
    assert verdicts(decision(by_hand("code", backend="gone"), config=config)) == {"code": "no_backend"}
    assert verdicts(decision(limited("b"), by_hand("code", backend="b"), config=config)) == {"code": "no_backend"}


def test_after_a_rejection_a_start_by_hand_is_no_fallback() -> None:
    found = decision(FIRE, rejection(), by_hand("code"))
    assert found.chosen[0].rule == "manual"
    assert found.idle == ((2, "nothing_ranked"),)


def test_the_log_gets_what_was_decided() -> None:
    """The shape of `fanout.decided` and of `loop plan --json`."""
    story: Story = given(configured(), FIRE, ranking("code"))
    rest = {"rank": None, "rule": None, "score": None, "verdict": "not_ranked", "also": [], "detail": {}}
    rest["backends"] = None
    first = {"rank": 1, "rule": "selected", "score": None, "verdict": "chosen", "also": [], "detail": {}}
    first["backends"] = {"default": "only_one"}
    assert decide(story.view()).as_dict() == {
        "decider": DECIDER,
        "basis": 3,
        "now": "2026-11-23T14:00:00.000000Z",
        "policy": "intent",
        "slots": {"capacity": 3, "live": 0, "free": 3},
        "chosen": [
            {
                "category": "code",
                "task": "",
                "rule": "selected",
                "backend": "default",
                "keys": ["code"],
                "chain": 0,
                "parent": None,
            }
        ],
        "candidates": [
            {"category": "code", **first},
            {"category": "docs", **rest},
            {"category": "research", **rest},
        ],
        "idle": [{"slots": 2, "reason": "nothing_ranked"}],
        "ledger": None,
    }
