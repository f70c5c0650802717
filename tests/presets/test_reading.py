"""A session's output is hostile: whatever it holds, reading it is bounded and never raises."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loop.presets import reading
from loop.presets.codex import reset_of
from loop.presets.preset import Output
from loop.presets.reading import Reading, read
from loop.presets.registry import preset
from loop.sessions.outcome import OutcomeFile, judge
from loop.sessions.output import HEAD, TAIL

READ_BY = ("claude", "codex", "gptme")
SUCCESS = {"type": "result", "subtype": "success", "is_error": False, "session_id": "abc", "usage": {"input_tokens": 3}}
REFUSED = {"type": "result", "subtype": "success", "is_error": True, "api_error_status": 429, "result": "no"}


def exited(code: int | None, **over: Any) -> Any:
    return {"stage": "worker", "code": code, "signal": None, "reason": None, **over}


def read_lines(
    run_dir: Path, lines: list[object], parser: str | None = "claude", patterns: list[str] | None = None
) -> Reading:
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)
    (run_dir / "out.log").write_text(text)
    return read(str(run_dir), "s1", {"parser": parser, "limit_patterns": patterns or []}, time.time())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    "type", "session_id", "thread_id", "is_error", "api_error_status", "subtype", "result", "usage", "total_cost_usd",
    "rate_limit_info", "status", "resetsAt", "item", "text", "message", "error", "role", "metadata", "content", "cost",
    "input_tokens",
)  # fmt: skip
TYPES = (
    "result", "rate_limit_event", "thread.started", "turn.started", "turn.completed", "turn.failed", "error",
    "item.completed", "message", "rejected", "agent_message", "assistant",
)  # fmt: skip
record = st.dictionaries(st.sampled_from(NAMES), json_values | st.sampled_from(TYPES), max_size=8)
records = st.lists(record, max_size=6)


@pytest.mark.parametrize("parser", READ_BY)
@given(found=records)
def test_no_record_makes_a_parser_raise_or_say_what_the_log_cannot_hold(
    parser: str, found: list[dict[str, Any]]
) -> None:
    parse = preset(parser).parse
    assert parse is not None
    result = parse(Output(found, lambda: True, "s1", time.time()))
    for name, number in (result.usage or {}).items():
        assert number is None or (isinstance(number, int) and number >= 0), name
    verdict = judge(exited(1), None, evidence="outcome", exit_codes={}, commits=None, reading=Reading(result))
    json.dumps([verdict.usage, verdict.resets_at, verdict.resume_token], allow_nan=False)


@pytest.mark.parametrize(
    "line",
    ["", "{", "[" * 100_000, '{"a":' * 50_000, "\0" * 9, "null", '"result"', '{"type":"result"', "\udcff", "9" * 5000],
    ids=["empty", "brace", "deep", "deeper", "nul", "null", "string", "cut", "not-utf8", "long-number"],
)
def test_a_line_that_is_no_record_is_passed_over(line: str, tmp_path: Path) -> None:
    with (tmp_path / "out.log").open("w", errors="surrogateescape") as file:
        file.write(f"{line}\n{json.dumps(SUCCESS)}\n")
    found = read(str(tmp_path), "s1", {"parser": "claude", "limit_patterns": []}, time.time()).result
    assert (found.outcome, found.resume_token) == (None, "abc")


def test_of_an_endless_output_only_what_is_kept_is_read_and_a_sum_over_it_is_unknown(tmp_path: Path) -> None:
    answer = {"type": "message", "role": "assistant", "metadata": {"usage": {"input_tokens": 5}, "cost": 0.1}}
    path = tmp_path / "out.log"
    path.write_text(json.dumps(answer) + "\n")
    whole = read(str(tmp_path), "s1", {"parser": "gptme", "limit_patterns": []}, time.time()).result
    assert whole.usage is not None
    assert (whole.usage["input_tokens"], whole.usage["cost_micros"]) == (5, 100_000)
    with path.open("ab") as file:
        file.truncate(HEAD + TAIL + (1 << 30))
        file.seek(0, os.SEEK_END)
        file.write(b"\n" + json.dumps({**answer, "content": "the last"}).encode() + b"\n")
    began = time.monotonic()
    cut = read(str(tmp_path), "s1", {"parser": "gptme", "limit_patterns": []}, time.time()).result
    assert (cut.usage, cut.summary) == (None, "the last")
    assert time.monotonic() - began < 10


def test_records_are_not_all_kept_at_once(tmp_path: Path) -> None:
    (tmp_path / "out.log").write_text('{"type": "noise"}\n' * 100_000)
    tracemalloc.start()
    try:
        read(str(tmp_path), "s1", {"parser": "gptme", "limit_patterns": []}, time.time())
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()


def test_a_line_too_long_is_passed_over_and_what_follows_is_read(tmp_path: Path) -> None:
    long = json.dumps({**REFUSED, "result": "x" * (reading.MAX_LINE + 5)})
    assert read_lines(tmp_path, [long, SUCCESS]).result.outcome is None
    assert read_lines(tmp_path, [SUCCESS, long]).result.outcome is None
    assert read_lines(tmp_path, [SUCCESS, "x" * reading.MAX_LINE + json.dumps(REFUSED)]).result.outcome is None
    answer = {"type": "message", "role": "assistant", "metadata": {"usage": {"input_tokens": 5}}}
    assert read_lines(tmp_path, [answer], "gptme").result.usage is not None
    assert read_lines(tmp_path, [answer, long], "gptme").result.usage is None


@pytest.mark.parametrize("made", ["missing", "link", "fifo", "directory"])
def test_an_output_that_is_no_plain_file_says_nothing(made: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(REFUSED))
    path = tmp_path / "out.log"
    makers = {"link": lambda: path.symlink_to("elsewhere"), "fifo": lambda: os.mkfifo(path), "directory": path.mkdir}
    makers.get(made, lambda: None)()
    assert read(str(tmp_path), "s1", {"parser": "claude", "limit_patterns": ["no"]}, time.time()) == Reading()


@pytest.mark.parametrize("name", ["--resume=x", "a b", "a\n", "x" * 129, 7, "", "../x", "$(id)"])
def test_a_session_name_that_is_no_plain_word_is_no_resume_token(name: object, tmp_path: Path) -> None:
    assert read_lines(tmp_path, [{**SUCCESS, "session_id": name}]).result.resume_token is None


def test_a_rejection_that_the_agent_got_over_is_no_limit(tmp_path: Path) -> None:
    rejected = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": 1_900_000_000}}
    assert not read_lines(tmp_path, [rejected, SUCCESS]).result.limited
    found = read_lines(tmp_path, [rejected, {**REFUSED, "api_error_status": None}]).result
    assert (found.outcome, found.resets_at) == ("limited", 1_900_000_000.0)


def test_a_limit_of_turns_is_a_failure_with_its_name(tmp_path: Path) -> None:
    found = read_lines(tmp_path, [{"type": "result", "subtype": "error_max_turns", "is_error": True}]).result
    assert (found.outcome, found.reason, found.limited) == ("failed", "error_max_turns", False)


@pytest.mark.parametrize("resets", [-5, 0, 10**13, "soon", 1e300, True, None])
def test_a_reset_that_cannot_be_is_unknown(resets: object, tmp_path: Path) -> None:
    rejected = {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected", "resetsAt": resets}}
    found = read_lines(tmp_path, [rejected, REFUSED]).result
    assert (found.outcome, found.resets_at) == ("limited", None)


def test_codex_names_a_reset_with_or_without_its_day() -> None:
    now = datetime(2026, 11, 24, 8, 30)
    for text, expected in (
        ("or try again at 1:51 PM.", datetime(2026, 11, 24, 13, 52)),
        ("try again at Nov 30th, 2026 12:05 AM.", datetime(2026, 11, 30, 0, 6)),
        ("try again at Nov 31st, 2026 12:05 AM.", None),
        ("try again later", None),
    ):
        assert reset_of(text, now.timestamp()) == (expected and expected.timestamp())


def test_codex_that_waited_and_went_on_was_not_limited(tmp_path: Path) -> None:
    patterns = list(preset("codex").limit_patterns)
    waiting = {"type": "error", "message": "Reconnecting... 1/5 (last status: 429 Too Many Requests)"}
    begun = [{"type": "thread.started", "thread_id": "t1"}, {"type": "turn.started"}, waiting]
    assert read_lines(tmp_path, begun, "codex", patterns).result.limited
    answer = {"type": "item.completed", "item": {"type": "agent_message", "text": "done"}}
    assert not read_lines(tmp_path, [*begun, answer], "codex", patterns).result.limited
    assert not read_lines(tmp_path, [*begun, {"type": "turn.completed", "usage": {}}], "codex", patterns).result.limited


# ── precedence ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_patterns_are_the_last_resort(tmp_path: Path) -> None:
    (tmp_path / "err.log").write_text("sorry: Usage Limit reached\n")
    found = read_lines(tmp_path, ["text"], None, ["usage limit"])

    def outcome(code: int, **exit_codes: str) -> tuple[str, str, bool]:
        named = {name.removeprefix("code_"): word for name, word in exit_codes.items()}
        verdict = judge(exited(code), None, evidence="outcome", exit_codes=named, commits=None, reading=found)
        return verdict.outcome, verdict.reason, verdict.limited

    assert outcome(1) == ("limited", "limit_pattern", True)
    assert outcome(0) == ("unproven", "no_evidence", False)
    assert outcome(1, code_1="refused") == ("refused", "exit_codes", False)


def test_a_structured_result_is_stronger_than_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "err.log").write_text("usage limit\n")
    maxed = {"type": "result", "subtype": "error_max_turns", "is_error": True, "result": "too many turns"}
    assert read_lines(tmp_path, [maxed], "claude", ["usage limit"]).result.outcome == "failed"


def test_the_outcome_file_decides_over_the_result_and_the_pool_is_closed_all_the_same(tmp_path: Path) -> None:
    found = read_lines(tmp_path, [REFUSED])
    file = OutcomeFile("productive", usage={"tokens": 7})
    verdict = judge(exited(1), file, evidence="outcome", exit_codes={}, commits=None, reading=found)
    assert (verdict.outcome, verdict.limited) == ("productive", True)
    killed = judge(exited(None, reason="silence"), None, evidence="outcome", exit_codes={}, commits=None, reading=found)
    assert (killed.outcome, killed.limited) == ("stalled", True)


def test_success_is_no_evidence(tmp_path: Path) -> None:
    found = read_lines(tmp_path, [SUCCESS])
    verdict = judge(exited(0), None, evidence="outcome", exit_codes={}, commits=None, reading=found)
    assert (verdict.outcome, verdict.proved) == ("unproven", False)
    failed = judge(exited(3), None, evidence="outcome", exit_codes={}, commits=None, reading=found)
    assert (failed.outcome, failed.reason) == ("failed", "exit_code")
