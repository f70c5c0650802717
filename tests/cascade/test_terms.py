"""The terms of a score: what each says, in which range, and what a score promises whatever they say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.cascade.terms import LOWEST, TERMS, WEIGHTS, Standing, Term, base, score, terms

SHARES = st.floats(0, 1)
STANDINGS = st.builds(
    Standing,
    category=st.just("code"),
    target=st.one_of(st.none(), SHARES),
    share=SHARES,
    recent=st.lists(st.booleans(), max_size=4).map(tuple),
    gap=st.integers(0, 10_000),
    grade=SHARES,
    graded=st.floats(0, 10),
    ready=st.integers(0, 20_000),
    aliased=st.integers(0, 20_000),
    plateau=st.sampled_from([-1, 0, 1]),
    saturated=st.booleans(),
    tilt=st.floats(0.5, 1.5),
    room=st.booleans(),
)
OWN = st.dictionaries(st.sampled_from(sorted(WEIGHTS)), st.floats(0, 100))


def said(name: str, **about: object) -> float:
    return TERMS[name](Standing("code", **about))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "about", "value"),
    [
        ("recency", {}, 0),
        ("recency", {"recent": (True, True, True, True), "target": 0.25}, -0.75),
        ("recency", {"recent": (False, False, False, True), "target": 0.0}, -0.4),
        ("recency", {"recent": (True, False, False, False), "target": 0.25}, 0),
        ("gap", {"target": 0.25}, 1),
        ("gap", {"target": 0.25, "share": 0.25}, 0),
        ("gap", {"target": 0.25, "share": 0.5}, -1),
        ("gap", {"target": 0.1, "share": 0.9}, -2),
        ("gap", {"target": 0.0}, -2),
        ("gap", {"target": None, "share": 0.5}, 0),
        ("neglect", {"target": 0.25, "gap": 6}, 0.5),
        ("neglect", {"target": 0.25, "gap": 12}, 1),
        ("neglect", {"target": 0.25, "gap": 12, "share": 0.3}, 0),
        ("grades", {}, 0),
        ("grades", {"grade": 1.0, "graded": 5.0}, 0.5),
        ("grades", {"grade": 0.0, "graded": 5.0}, -0.5),
        ("supply", {}, 0),
        ("supply", {"ready": 2}, 0.5),
        ("supply", {"aliased": 2, "target": 0.5}, 0.5),
        ("plateau", {"plateau": -1}, -1),
        ("plateau", {"plateau": 1}, 1),
        ("plateau", {"plateau": -1, "saturated": True}, -0.25),
        ("learned", {"tilt": 1.5}, 0.5),
        ("learned", {"tilt": 0.5}, -0.5),
    ],
)
def test_a_term_says(name: str, about: dict[str, object], value: float) -> None:
    assert said(name, **about) == pytest.approx(value)


def test_no_boost_comes_by_an_alias_to_one_that_is_over_represented() -> None:
    over = {"target": 0.1, "share": 0.3}
    assert said("supply", aliased=50, **over) == 0
    assert said("supply", aliased=50, ready=2, **over) == said("supply", ready=2, **over)
    assert said("neglect", gap=99, **over) == 0
    assert said("plateau", plateau=1, **over) == 0


def test_what_was_learned_lifts_nobody_past_the_cap() -> None:
    assert said("learned", tilt=1.5, room=False) == 0
    assert said("learned", tilt=1.5, target=0.1, share=0.2) == 0
    assert said("learned", tilt=0.5, room=False) == -0.5


@given(STANDINGS)
def test_every_term_is_in_its_range(standing: Standing) -> None:
    for name, function in TERMS.items():
        assert LOWEST[name] <= function(standing) <= 1


@given(STANDINGS, OWN)
def test_whoever_has_work_is_worth_at_least_one(standing: Standing, weights: dict[str, float]) -> None:
    assert score(terms(standing, weights), weights) >= 0.999


@given(STANDINGS, OWN, st.sampled_from(sorted(TERMS)), st.floats(0, 2))
def test_a_score_rises_with_each_term(standing: Standing, weights: dict[str, float], name: str, more: float) -> None:
    lines = terms(standing, weights)
    better = tuple(Term(each.name, each.value + more * (each.name == name), each.weight) for each in lines)
    assert score(better, weights) >= score(lines, weights)


@given(STANDINGS, OWN)
def test_a_score_does_not_know_the_name(standing: Standing, weights: dict[str, float]) -> None:
    assert terms(standing._replace(category="other"), weights) == terms(standing, weights)


@given(STANDINGS, SHARES, st.integers(0, 100))
def test_terms_move_as_their_facts_do(standing: Standing, share: float, more: int) -> None:
    low, high = sorted((standing.share, share))
    assert TERMS["gap"](standing._replace(share=low)) >= TERMS["gap"](standing._replace(share=high))
    for name, fact in (("neglect", "gap"), ("supply", "ready"), ("supply", "aliased")):
        richer = standing._replace(**{fact: getattr(standing, fact) + more})
        assert TERMS[name](richer) >= TERMS[name](standing)


@given(STANDINGS)
def test_a_term_is_shown_as_what_its_points_are_made_of(standing: Standing) -> None:
    lines = terms(standing, {"gap": 7.0})
    assert [each.name for each in lines] == list(TERMS) == list(WEIGHTS)
    assert next(each.weight for each in lines if each.name == "gap") == 7
    assert score(lines, {"gap": 7.0}) == pytest.approx(
        base({"gap": 7.0}) + sum(each.value * each.weight for each in lines), abs=1e-3
    )
    assert "-0.0" not in {str(each.value) for each in lines}
