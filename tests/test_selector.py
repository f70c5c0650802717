"""The selector contract: which ranking a payload means, and that no payload can hurt."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loop.command import CommandResult
from loop.selector import RULES, Entry, Ranking, Rejection, nesting, parse, rejected_by_run

PAYLOADS = Path(__file__).parent / "payloads"
EXPECTED: dict[str, list[list[str]] | None] = json.loads((PAYLOADS / "expected.json").read_text())


def answer(payload: object, **options: Any) -> Ranking | Rejection:
    return parse(json.dumps(payload).encode(), **options)


def ranking(payload: object, **options: Any) -> Ranking:
    result = answer(payload, **options)
    assert isinstance(result, Ranking), result
    return result


def rejection(payload: object, **options: Any) -> Rejection:
    result = answer(payload, **options)
    assert isinstance(result, Rejection), result
    return result


def pairs(result: Ranking) -> list[tuple[str, str]]:
    return [(entry.category, entry.rule) for entry in result.entries]


# What real selectors print


def test_every_example_has_an_expectation() -> None:
    assert {path.name for path in PAYLOADS.glob("*.json")} - {"expected.json"} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_published_payloads_rank_as_their_users_expect(name: str) -> None:
    result = parse((PAYLOADS / name).read_bytes())
    found = None if isinstance(result, Rejection) else [list(pair) for pair in pairs(result)]
    assert found == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "reason", "keys"),
    [
        ("tier1-momentum-no-category.json", "no_category", ("selected", "alternatives")),
        ("selected-empty.json", "no_category", ("selected",)),
        ("unknown-shape.json", "unknown_shape", ("version", "lanes")),
        ("wrong-type.json", "wrong_type", ("selected",)),
    ],
)
def test_rejected_payloads_say_why_and_where(name: str, reason: str, keys: tuple[str, ...]) -> None:
    result = parse((PAYLOADS / name).read_bytes())
    assert isinstance(result, Rejection)
    assert (result.reason, result.keys) == (reason, keys)


# The order of the rules


def test_rules_come_in_their_order_whatever_the_order_of_the_keys() -> None:
    payload = {
        "all_scores": {"d": 9.5, "a": 99},
        "alternatives": [{"category": "c"}],
        "diversity_alternatives": [{"category": "b"}],
        "selected": {"category": "a"},
    }
    assert pairs(ranking(payload)) == list(zip("abcd", RULES, strict=True))


def test_equal_scores_stay_in_the_payloads_order_and_only_positive_ones_count() -> None:
    scores = {"z": 1, "a": 1.0, "m": 2, "zero": 0, "no": -1, "none": None}
    assert [entry.category for entry in ranking({"all_scores": scores}).entries] == ["m", "z", "a"]


def test_the_first_mention_wins_also_when_two_names_are_one_by_an_alias() -> None:
    payload = {"selected": {"id": "t", "category": "infra"}, "alternatives": [{"category": "infrastructure"}]}
    result = ranking(payload, aliases={"infra": "infrastructure"})
    assert result.entries == (Entry("infrastructure", "selected", "t"),)


def test_of_two_scores_of_one_category_the_better_ranks() -> None:
    payload = {
        "all_scores": [{"category": "x", "score": 1}, {"category": "y", "score": 2}, {"category": "x", "score": 3}]
    }
    assert ranking(payload).entries == (Entry("x", "all_scores", None, 3), Entry("y", "all_scores", None, 2))


def test_an_execution_surface_overrides_the_category_and_leaves_the_task() -> None:
    surface = {"id": "s", "category": "content"}
    payload = {"selected": {"id": "calib", "category": "infrastructure", "execution_surface": surface}}
    assert ranking(payload).entries == (Entry("content", "selected", "calib"),)
    payload["selected"]["execution_surface"] = {"category": None}
    assert pairs(ranking(payload)) == [("infrastructure", "selected")]


@pytest.mark.parametrize(
    ("given_id", "task"), [("t-1", "t-1"), (17, "17"), (2**80, str(2**80)), (None, None), ("", None)]
)
def test_the_id_is_the_task(given_id: object, task: str | None) -> None:
    assert ranking({"selected": {"id": given_id, "category": "code"}}).entries[0].task == task


def test_null_counts_as_absent_everywhere() -> None:
    payload = {"tier": None, "selected": None, "alternatives": None, "all_scores": {"a": 1}, "diversity_warnings": None}
    assert ranking(payload) == Ranking(None, (Entry("a", "all_scores", None, 1),), ())
    assert ranking({"alternatives": [{"id": None, "category": "a", "execution_surface": None}]}).entries


# What is not guessed


def test_a_selected_without_category_is_skipped_with_a_word_while_others_are_named() -> None:
    result = ranking({"selected": {"id": "t"}, "alternatives": [{"id": "x"}, {"category": "code"}]})
    assert pairs(result) == [("code", "alternatives")]
    assert result.warnings == (
        "selected has no category and is skipped",
        "alternatives[0] has no category and is skipped",
    )


def test_the_default_category_serves_a_selected_without_one_and_nothing_else() -> None:
    payload = {"selected": {"id": "t"}, "alternatives": [{"id": "x"}]}
    assert ranking(payload, default_category="code").entries == (Entry("code", "selected", "t"),)
    assert rejection({"alternatives": [{"id": "x"}]}, default_category="code").reason == "no_category"


@pytest.mark.parametrize("payload", [{"all_scores": {}}, {"tier": 3, "all_scores": []}, {"all_scores": {"a": -1}}])
def test_a_valid_answer_may_say_that_nothing_is_worth_starting(payload: object) -> None:
    assert ranking(payload).entries == ()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({}, "unknown_shape"),
        ({"selected": None}, "unknown_shape"),
        ([], "unknown_shape"),
        ("code", "unknown_shape"),
        ({"tier": 3}, "no_category"),
        ({"alternatives": []}, "no_category"),
        ({"selected": {}, "all_scores": {}}, "no_category"),
        ({"all_scores": {"": 4}}, "no_category"),
    ],
)
def test_a_payload_without_any_category_is_no_answer(payload: object, reason: str) -> None:
    assert rejection(payload).reason == reason


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        ({"tier": "1", "all_scores": {"a": 1}}, "tier"),
        ({"tier": True, "all_scores": {"a": 1}}, "tier"),
        ({"selected": ["code"]}, "selected"),
        ({"selected": {"category": 5}}, "selected.category"),
        ({"selected": {"category": "a", "id": 1.5}}, "selected.id"),
        ({"selected": {"category": "a", "id": False}}, "selected.id"),
        ({"selected": {"category": "a", "execution_surface": "b"}}, "selected.execution_surface"),
        ({"selected": {"execution_surface": {"category": []}}}, "selected.execution_surface.category"),
        ({"alternatives": {"category": "a"}}, "alternatives"),
        ({"alternatives": [{"category": "a"}, {"category": "b"}, {"category": {}}]}, "alternatives[2].category"),
        ({"diversity_alternatives": ["a"]}, "diversity_alternatives[0]"),
        ({"all_scores": "a"}, "all_scores"),
        ({"all_scores": {"a": "1"}}, "all_scores.a"),
        ({"all_scores": {"a": True}}, "all_scores.a"),
        ({"all_scores": [{"category": "a", "score": "1"}]}, "all_scores[0].score"),
        ({"all_scores": [["a", 1]]}, "all_scores[0]"),
    ],
)
def test_a_known_key_of_another_type_is_named_by_its_path(payload: object, key: str) -> None:
    result = rejection(payload)
    assert (result.reason, result.keys) == ("wrong_type", (key,))
    assert key in result.text


def test_all_wrong_keys_are_named() -> None:
    assert rejection({"tier": "1", "selected": 2, "all_scores": 3}).keys == ("tier", "selected", "all_scores")


def test_unknown_keys_are_no_error_and_warnings_are_handed_on() -> None:
    result = ranking(
        {"blocked": [1], "selected": {"category": "a", "label": 5}, "diversity_warnings": ["a is 40 %", 3]}
    )
    assert pairs(result) == [("a", "selected")]
    assert result.warnings == ("a is 40 %", "diversity_warnings[1] is a number and no string; it is ignored")


# Hostile input


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense", b"\xff\xfe", b"\xed\xa0\x80", b'{"all_scores": {"a": NaN}}', b'{"all_scores": {"a": -Infinity}}',
        b'{"all_scores": {"a": 1}} trailing', b'{"tier": 3,}', b"{'tier': 3}",
        b'{"all_scores": {"a": ' + b"9" * 5000 + b"}}",
        b'"\\', b'"\\' * 5000, b'{"a\nb": 1}',
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_rejected(raw: bytes) -> None:
    result = parse(raw)
    assert isinstance(result, Rejection)
    assert result.reason == "not_json"
    assert len(result.text) <= 300
    assert result.text.isprintable()


@pytest.mark.parametrize("raw", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_silence_is_no_answer(raw: bytes) -> None:
    assert parse(raw) == Rejection("no_answer", (), "the selector printed nothing")


def test_a_byte_order_mark_is_tolerated() -> None:
    assert isinstance(parse(b'\xef\xbb\xbf{"all_scores": {"a": 1}}'), Ranking)


def test_a_score_beyond_all_numbers_is_a_wrong_type() -> None:
    for huge in (b"1e999", b"1" + b"0" * 400):
        result = parse(b'{"all_scores": {"a": ' + huge + b"}}")
        assert isinstance(result, Rejection)
        assert (result.reason, result.keys) == ("wrong_type", ("all_scores.a",))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"selected":['])
def test_twenty_thousand_levels_are_too_deep_and_crash_nothing(opening: bytes) -> None:
    result = parse(opening * 20_000)
    assert isinstance(result, Rejection)
    assert result.reason == "too_deep"


def test_sixty_four_levels_are_read_and_one_more_is_not() -> None:
    def nested(levels: int) -> bytes:
        return b'{"all_scores": {"a": 1}, "x": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"

    assert isinstance(parse(nested(64)), Ranking)
    assert isinstance(parse(nested(65)), Rejection)


def test_brackets_in_strings_are_no_nesting() -> None:
    assert nesting(json.dumps({"a": "[" * 100, 'b"[[': ["\\", '"[[[']})) == 2
    assert isinstance(answer({"selected": {"category": "a", "id": "[" * 100}}), Ranking)


def test_three_megabytes_are_too_large() -> None:
    result = parse(b'{"all_scores": {"a": 1}, "x": "' + b"x" * 3_000_000 + b'"}')
    assert isinstance(result, Rejection)
    assert result.reason == "too_large"


def test_names_and_tasks_lose_what_a_terminal_or_a_store_would_choke_on() -> None:
    raw = rb'{"selected": {"category": "co\u001b[31mde\u202e\ud800", "id": "a\u0000b\u0007<script>\udfff"}}'
    result = parse(raw)
    assert isinstance(result, Ranking)
    assert result.entries == (Entry("co [31mde\ufffd", "selected", "a b <script>\ufffd"),)
    assert len(result.warnings) == 2
    json.dumps(result.warnings, ensure_ascii=False).encode()


def test_a_name_that_is_cut_is_never_taken_for_its_beginning() -> None:
    result = ranking({"selected": {"category": "c" * 65, "id": "t" * 201}, "alternatives": [{"category": "c" * 64}]})
    first, second = result.entries
    assert len(first.category) == 64
    assert first.category != second.category == "c" * 64
    assert first.task is not None
    assert len(first.task) == 200
    assert len(result.warnings) == 2


def test_entries_and_warnings_are_bounded() -> None:
    result = ranking({"all_scores": {f"c{n}": n for n in range(2000)}, "alternatives": [{}] * 2000})
    assert len(result.entries) == 500
    assert result.entries[0].category == "c1999"
    assert len(result.warnings) == 51
    assert len(rejection({"all_scores": {f"c{n}": "x" for n in range(2000)}}).keys) == 20


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=80),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(["code", "news", "infra", "infrastructure", "x y", "\x1b[2J", "", "a" * 70]) | st.text(
    max_size=8
)
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=5) | st.integers() | st.none(),
        "category": NAMES | st.none(),
        "execution_surface": st.none() | st.fixed_dictionaries({}, optional={"category": NAMES}),
    },
)
SCORE = st.integers(-9, 9) | st.floats(-9, 9)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "tier": st.integers(1, 3) | st.none(),
        "selected": ITEM | st.none(),
        "diversity_alternatives": st.lists(ITEM, max_size=4) | st.none(),
        "alternatives": st.lists(ITEM, max_size=4),
        "all_scores": st.dictionaries(NAMES, SCORE, max_size=5)
        | st.lists(st.fixed_dictionaries({"category": NAMES, "score": SCORE}), max_size=5),
        "extra": st.text(max_size=5) | st.lists(st.integers(), max_size=2),
    },
)
ALIASES = {"infra": "infrastructure"}


@given(st.binary(max_size=300) | st.text(alphabet='{}[]":,\\ue1 \x00', max_size=60).map(str.encode))
def test_no_bytes_make_parse_raise(raw: bytes) -> None:
    assert isinstance(parse(raw), Ranking | Rejection)


@given(st.dictionaries(st.sampled_from(["tier", "diversity_warnings", *RULES]), JSON) | JSON)
def test_no_json_makes_parse_raise_and_its_answer_can_be_stored(payload: object) -> None:
    result = answer(payload, default_category="code")
    texts = result.warnings if isinstance(result, Ranking) else (result.text, *result.keys)
    json.dumps(texts, ensure_ascii=False).encode()
    assert not {unicodedata.category(c) for text in texts for c in text} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


@given(SHAPED)
@settings(max_examples=200)
def test_a_ranking_names_only_what_was_named_once_and_by_rule(payload: dict[str, Any]) -> None:
    result = answer(payload, aliases=ALIASES, default_category="code")
    if isinstance(result, Rejection):
        assert result.reason in ("unknown_shape", "no_category")
        return
    items = [payload.get("selected") or {}, *(payload.get("diversity_alternatives") or [])]
    items += payload.get("alternatives") or []
    scores = payload.get("all_scores") or {}
    said = [item.get("category") for item in items]
    said += [(item.get("execution_surface") or {}).get("category") for item in items]
    said += list(scores) if isinstance(scores, dict) else [score["category"] for score in scores]
    plain = {name for name in said if name}
    for entry in result.entries:
        changed = any("taken out" in warning or "cut to" in warning for warning in result.warnings)
        assert changed or entry.category in plain | {ALIASES.get(name, "") for name in plain} | {"code"}
    names = [entry.category for entry in result.entries]
    assert len(set(names)) == len(names)
    ranks = [RULES.index(entry.rule) for entry in result.entries]
    assert ranks == sorted(ranks)
    points = [entry.score for entry in result.entries if entry.score is not None]
    assert points == sorted(points, reverse=True)
    assert all(point > 0 for point in points)


# Runs that are no answer


def ran(**changes: Any) -> CommandResult:
    facts: dict[str, Any] = {
        "argv": ("./s",), "code": 0, "signal": None, "stdout": b"{}", "stderr": b"", "seconds": 0.1, "failure": None,
        "text": "said",
    }  # fmt: skip
    return CommandResult(**facts | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failure": "timeout", "code": None, "signal": 9}, "timeout"),
        ({"failure": "too_large", "code": None, "signal": 9}, "too_large"),
        ({"failure": "not_found", "code": None}, "no_answer"),
        ({"failure": "os_error", "code": None}, "no_answer"),
        ({"code": 3}, "exit_code"),
        ({"code": None, "signal": 11}, "exit_code"),
        ({"stdout": b" \n"}, "no_answer"),
    ],
)
def test_a_run_that_went_wrong_is_a_rejection(changes: dict[str, Any], reason: str) -> None:
    result = rejected_by_run(ran(**changes))
    assert result is not None
    assert result.reason == reason


def test_a_run_that_went_well_is_none() -> None:
    assert rejected_by_run(ran()) is None
