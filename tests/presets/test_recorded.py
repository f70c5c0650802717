"""What each real agent printed, read again: `make agents` records these outputs (`tests/agents/run.py --record`)."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from loop.presets.reading import read
from loop.presets.registry import preset
from loop.sessions.outcome import Verdict, judge
from loop.sessions.rundir import ExitFile, Reader

RECORDED = Path(__file__).resolve().parent / "recorded"
SESSION = "sq4zk2mtb7ra"


@dataclass(frozen=True)
class Case:
    """A recorded output, the exit code it came with, and what it comes to without an outcome file."""

    name: str
    code: int | None
    outcome: str
    reason: str
    tokens: tuple[int, int, int] | None  # fresh input, output, read from a cache
    cost: int | None = None
    killed: bool = False
    limited: bool = False
    resets: bool = False


CASES = [
    Case("claude-productive", 0, "unproven", "no_evidence", (200, 14, 80), 1096),
    Case("claude-an_answer", 0, "unproven", "no_evidence", (100, 7, 40), 548),
    Case("claude-a_bad_key", 1, "refused", "unauthorised", (0, 0, 0), 0),
    Case("claude-a_rate_limit", 1, "limited", "rate_limit", (0, 0, 0), 0, limited=True, resets=True),
    Case("claude-a_rate_limit_without_reset", 1, "limited", "rate_limit", (0, 0, 0), 0, limited=True),
    Case("claude-an_overload", 1, "limited", "overloaded", (0, 0, 0), 0, limited=True),
    Case("claude-a_rejected_request", 1, "failed", "api_error", (0, 0, 0), 0),
    Case("claude-a_hang", None, "timed_out", "timeout", None, killed=True),
    Case("codex-productive", 0, "unproven", "no_evidence", (200, 14, 80)),
    Case("codex-an_answer", 0, "unproven", "no_evidence", (100, 7, 40)),
    Case("codex-a_bad_key", 1, "refused", "unauthorised", None),
    Case("codex-a_rate_limit", 1, "limited", "rate_limit", None, limited=True, resets=True),
    Case("codex-a_rate_limit_without_reset", 1, "limited", "rate_limit", None, limited=True),
    Case("codex-an_overload", 1, "limited", "rate_limit", None, limited=True),
    Case("codex-a_cut_connection", 1, "failed", "turn_failed", None),
    Case("codex-a_rejected_request", 1, "failed", "turn_failed", None),
    Case("codex-a_hang", None, "timed_out", "timeout", None, killed=True),
    Case("codex-a_wait_for_quota", None, "timed_out", "timeout", None, killed=True, limited=True),
    Case("gptme-productive", 0, "unproven", "no_evidence", (200, 14, 80), 1410),
    Case("gptme-an_answer", 0, "unproven", "no_evidence", (100, 7, 40), 705),
    Case("gptme-a_bad_key", 76, "refused", "unauthorised", None),
    Case("gptme-a_rate_limit", 75, "limited", "exit_codes", None, limited=True),
    Case("gptme-an_overload", 1, "limited", "limit_pattern", None, limited=True),
    Case("gptme-a_cut_connection", 0, "unproven", "no_evidence", None),
    Case("gptme-a_rejected_request", 1, "failed", "exit_code", None),
    Case("gptme-a_hang", None, "timed_out", "timeout", None, killed=True),
]


def verdict(run_dir: Path, case: Case) -> Verdict:
    agent = case.name.partition("-")[0]
    for name in ("out", "err"):
        shutil.copyfile(RECORDED / f"{case.name}.{name}", run_dir / f"{name}.log")
    data = preset(agent)
    reader: Reader = {"parser": agent, "limit_patterns": list(data.limit_patterns)}
    reading = read(str(run_dir), SESSION, reader, ended_at=time.time(), exit_code=case.code)
    codes = {str(code): outcome for code, outcome in data.exit_codes.items()}
    return judge(ended(case), None, evidence="outcome", exit_codes=codes, commits=None, reading=reading)


def ended(case: Case) -> ExitFile:
    exit: Any = {"stage": "worker", "code": case.code, "signal": None, "reason": "timeout" if case.killed else None}
    return exit  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_recorded_session_is_classified(case: Case, tmp_path: Path) -> None:
    found = verdict(tmp_path, case)
    assert (found.outcome, found.reason, found.limited) == (case.outcome, case.reason, case.limited)
    assert (found.resets_at is not None) is case.resets
    if case.tokens is None:
        assert found.usage is None
    else:
        assert found.usage is not None
        names = ("input_tokens", "output_tokens", "cache_read_tokens")
        assert tuple(found.usage[name] for name in names) == case.tokens
        assert found.usage["cost_micros"] == case.cost
    assert found.resume_token
    if case.name.startswith("gptme"):
        assert found.resume_token == SESSION
