"""Front matter as task files have it: what is read, what is left out and said, and that no text does harm."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.cascade.front_matter import FrontMatter, Value, parse, words
from loop.cascade.tasks import KEYS, understood


def value(line: str) -> Value:
    return parse(f"---\ntags: x\nkey: {line}\nlast: y\n---\n", ("key",)).values["key"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("plain", "plain"),
        ("two words  # and a comment", "two words"),
        ("a#b", "a#b"),
        ("# nothing but a comment", None),
        ('"quoted # no comment"', "quoted # no comment"),
        (r'"with \" in it"', 'with " in it'),
        ("'it''s'", "it's"),
        ("2026-05-01T10:00:00+02:00", "2026-05-01T10:00:00+02:00"),
        ("[a, b]", ["a", "b"]),
        ("['a, b', \"c]\", d]  # three", ["a, b", "c]", "d"]),
        ("[]", []),
        ("", None),
        ("null", None),
        ("~", None),
        ("\n  - a\n  # between\n  - 'b c'\n", ["a", "b c"]),
        ("\n- a\n- b", ["a", "b"]),
        ("[a,\n  b,\n\n  'c d',\n]", ["a", "b", "c d"]),
        ("\n  [\n    a,\n    b,\n  ]", ["a", "b"]),
        ("\n  [a, b]", ["a", "b"]),
        ("|\n  two\n  lines: of text\n", "two lines: of text"),
        (">-\n  folded\n\n  text", "folded text"),
    ],
)
def test_a_value_is_read(text: str, read: Value) -> None:
    assert value(text) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{a: b}", "more than a value"),
        ("&anchor x", "more than a value"),
        ("\n  name: value", "more than a value"),
        ("[a,\n  b", "without an end"),
        ("[a,\nother: [b]", "without an end"),
        ("[a,  # and\n  b]", "with a comment inside"),
        ("[a,\n  b,  # and\n  c]", "with a comment inside"),
        ("a\n- b", "is a value and a list"),
        ("a\nkey: b", "stands twice"),
    ],
)
def test_what_is_left_out_is_said_of_its_key(text: str, why: str) -> None:
    found = parse(f"---\nkey: {text}\nlast: y\n---\n", ("key",))
    assert set(found.odd) == {"key"}
    assert why in found.odd["key"]


def test_keys_that_nobody_asked_for_cost_nothing_and_are_no_warning() -> None:
    found = parse("---\nother: {a: 1}\n  - x\nmore: |\n  key: no\nkey: yes\n---\n", ("key",))
    assert (found.values, found.odd) == ({"key": "yes"}, {})


@pytest.mark.parametrize(
    "text", ["", "# Title\n", "---\nstate: active\n", "--- \nstate: active\n----\n", "\n---\n---\n"]
)
def test_a_file_without_front_matter_is_none(text: str) -> None:
    with pytest.raises(FrontMatter):
        parse(text, KEYS)


def test_windows_line_ends_and_a_byte_order_mark_are_no_matter() -> None:
    assert parse("\ufeff---\r\nstate: active\r\n---\r\n", KEYS).values == {"state": "active"}


LINES = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.sampled_from(
            ["---", "...", "state: active", "tags: [a, b", "- x", "  - 'y", "depends: |", "waiting_for: {", "["]
        ),
        st.builds("{}: {}".format, st.sampled_from(KEYS), st.text(max_size=30)),
    ),
    max_size=12,
)


@given(LINES)
def test_no_text_crashes_it(lines: list[str]) -> None:
    text = "\n".join(["---", *lines, "---"])
    try:
        found, _ = understood("id", text)
    except FrontMatter:
        return
    assert all(isinstance(word, str) for word in (found.state, *found.tags, *found.depends))


@given(st.one_of(st.none(), st.text(), st.lists(st.text())))
def test_words_are_always_a_list(value: Value) -> None:
    assert isinstance(words(value), list)
