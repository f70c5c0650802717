"""The expression language: what it refuses and how it says so, and that the rest means what it means in Python."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from events.errors import UsageError
from loop.audit.expression import DEEPEST, LONGEST, parse
from loop.audit.terms import INDEXED, SCALARS, Term, source_of

WORDS = [
    *SCALARS, *INDEXED, "ratio", "state", "session", "and", "or", "not", "in", "is", "None", "True", "<", "<=", "==",
    "!=", "(", ")", "[", "]", ".", ",", '"code"', "'x'", "1", "-2.5", "1e999", "0x_f", "lambda x:", "f'{live}'", ":=",
    "if", "else", "*", "**", "~", "\\", "\n", "\x00", "\ud800", "é", "{", "}", "await", "for", "yield", "...",
    "1j", "b''",
]  # fmt: skip


def holds(text: str, **values: Any) -> bool:
    """The expression with these values; a name that is not given is missing."""
    expression = parse(text)
    named = {str(term): term for term in expression.terms}
    return expression.holds({term: values.get(name) for name, term in named.items()})


# ── what it refuses ───────────────────────────────────────────────────────────────────────────────────────────────────


words = st.lists(st.sampled_from(WORDS))


@settings(max_examples=400)
@for_all(st.one_of(st.text(), words.map(" ".join), words.map("".join)))
@example("(" * 500)
@example("not " * 240 + "live")
@example("-" * 999)
@example("live" + " and live" * 100)
@example("live\\")
@example("'\\d' == mode")
@example("\ud800")
@example('locks["\\ud800"].session == "x"')
def test_any_text_is_an_expression_or_a_usage_error(text: str) -> None:
    try:
        expression = parse(text)
    except UsageError:
        return
    for value in (None, 0, 3):
        expression.holds({term: _typed(term, value) for term in expression.terms})


def _typed(term: Term, value: int | None) -> Any:
    return value if value is None or source_of(term).kind == "number" else str(value)


REFUSED = {
    "lives > 3": ("unknown name lives", "did you mean live?"),
    'lock["code"].session == "s"': ("lock takes no key", "did you mean locks?"),
    'category["code"].ration > 1': ("category has no field ration", "did you mean ratio?"),
    'locks["code"]': ('locks["code"] needs a field',),
    "locks.code": ("locks.code needs a key",),
    "locks": ("locks needs a key and a field",),
    "live + 1 > 2": ("live + 1: arithmetic is not in the language",),
    "(live > 2) + 1": ("arithmetic is not",),
    "len(mode) > 2": ("len(mode): calls are not in the language",),
    "__import__('os').system('true')": ("calls are not",),
    "mode.upper": ("mode.upper: this attribute is not",),
    "live if live else 1": ("if … else is not",),
    "(x := 3)": ("assignments are not",),
    "[live for live in (1, 2)]": ("this is not in the language",),
    'f"{live}"': ("f-strings are not",),
    "lambda: 1": ("lambdas are not",),
    "live in capacity": ("capacity cannot be searched",),
    "live in (1, capacity)": ("capacity is no literal",),
    "live in (1, [2])": ("can only stand behind `in`",),
    "(1, 2)": ("can only stand behind `in`",),
    "live == b'x'": ("b'x' is no literal",),
    "live == 3j": ("3j is no literal",),
    'live == "three"': ('live is a number, "three" a text',),
    "mode < 3": ("mode is a text, 3 a number",),
    'mode == "runing"': ('mode is never "runing"', "did you mean running?"),
    'backend["opus"].state in ("limitd",)': ("did you mean limited?",),
    'locks["code"].since > "yesterday"': ("yesterday is no time",),
    "live < None": ("None has no order, in live < None",),
    "live is 3": ("`is` asks for None only",),
    "(live > 3) == True": ("live > 3 cannot be compared: it is a predicate",),
    "live >": ("is no expression", "invalid syntax"),
    "  ": ("the expression is empty",),
    "live" + " " * LONGEST + "> 3": (f"the most is {LONGEST}",),
    "not " * (DEEPEST + 1) + "live": (f"more than {DEEPEST} levels",),
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_in_the_language_is_named(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    for part in REFUSED[text]:
        assert part in raised.value.message
    assert raised.value.hint
    assert raised.value.exit_code == 2


# ── what it means ─────────────────────────────────────────────────────────────────────────────────────────────────────

NUMBERS = ("live", "capacity", "violations", "noop_rate", 'category["code"].ratio', 'locks["a.b"].token')
TEXTS = ('locks["code"].session', 'category["code"].name')
numbers = st.one_of(st.integers(-3, 3), st.sampled_from((0.5, -0.5, 2.0, True, False)))
texts = st.sampled_from(("", "a", "s1", "sé"))
literals = st.tuples(
    st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
)


def _side(names: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.one_of(st.sampled_from(names), values.map(repr))


def _comparisons(names: tuple[str, ...], values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    side = _side(names, values)
    listed = st.lists(values, max_size=3)
    return st.one_of(
        st.tuples(side, literals, side, side).map(lambda c: f"{c[0]} {c[1][0]} {c[2]} {c[1][1]} {c[3]}"),
        st.tuples(side, literals, side).map(lambda c: f"{c[0]} {c[1][0]} {c[2]}"),
        st.tuples(side, st.sampled_from(("in", "not in")), listed).map(lambda c: f"{c[0]} {c[1]} {c[2]!r}"),
        st.tuples(side, st.sampled_from(("in", "not in")), listed).map(lambda c: f"{c[0]} {c[1]} {tuple(c[2])!r}"),
        side,
    )


predicates = st.recursive(
    st.one_of(_comparisons(NUMBERS, numbers), _comparisons(TEXTS, texts)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]} and {pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) or {pair[1]}"),
        inner.map(lambda one: f"not ({one})"),
    ),
    max_leaves=8,
)


@settings(max_examples=300)
@for_all(predicates, st.lists(numbers, min_size=6, max_size=6), st.lists(texts, min_size=2, max_size=2))
def test_where_nothing_is_missing_it_is_pythons_meaning(text: str, counts: list[Any], words: list[str]) -> None:
    if len(text) > LONGEST:
        return
    names = {
        "live": counts[0],
        "capacity": counts[1],
        "violations": counts[2],
        "noop_rate": counts[3],
        "category": {"code": SimpleNamespace(ratio=counts[4], name=words[1])},
        "locks": {"a.b": SimpleNamespace(token=counts[5]), "code": SimpleNamespace(session=words[0])},
    }
    values = dict(zip((*NUMBERS, *TEXTS), (*counts, *words), strict=True))
    assert holds(text, **values) is bool(eval(text, {}, names))


@for_all(st.sampled_from(("<", "<=", ">", ">=", "==", "!=")), numbers)
def test_what_is_missing_makes_every_comparison_false(op: str, value: Any) -> None:
    assert not holds(f"noop_rate {op} {value!r}")
    assert not holds(f"{value!r} {op} noop_rate")
    assert not holds(f"noop_rate {op} noop_rate")
    assert not holds(f"noop_rate not in ({value!r},)")
    assert not holds(f"noop_rate in [{value!r}]")
    assert holds(f"not noop_rate {op} {value!r}")
    assert holds(f"noop_rate {op} {value!r}", noop_rate=0.5) is bool(eval(f"0.5 {op} value"))


def test_none_can_be_asked_for() -> None:
    for text in ("capacity == None", "None == capacity", "capacity is None", "capacity in (None, 3)", "not capacity"):
        assert holds(text)
        assert not holds(text, capacity=6)
    for text in ("capacity != None", "capacity is not None", "capacity not in (None, 3)", "capacity"):
        assert not holds(text)
        assert holds(text, capacity=6)


def test_times_are_compared_as_instants_in_utc() -> None:
    since = {'locks["code"].since': "2026-11-23T14:03:00.500000Z"}
    assert holds('locks["code"].since > "2026-11-23T14:03:00Z"', **since)
    assert holds('locks["code"].since > "2026-11-23"', **since)
    assert holds('locks["code"].since < "2026-11-23T15:03:01+01:00"', **since)
    assert not holds('locks["code"].since > "2026-11-23T14:03:01"', **since)


def test_it_asks_only_for_the_names_in_it() -> None:
    expression = parse('live > 3 and (category["a.b-c"].ratio > 1 or mode == "paused")')
    assert {str(term) for term in expression.terms} == {"live", "mode", 'category["a.b-c"].ratio'}
