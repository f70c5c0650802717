"""Claude Code: `claude -p`, whose stream ends in one `result` record.

Shell commands are allowed, and edits in the working directory and in the run directory, where the outcome file goes;
whatever else would ask is denied, since nobody is there to answer. A variable switches off its updates of itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loop.presets.preset import Output, Preset, Result, Usage, count, instant, micros, table, text, token

REFUSED: Mapping[int, str] = {429: "rate_limit", 529: "overloaded"}  # status -> reason
UNAUTHORISED = frozenset({401, 403})


def parse(output: Output) -> Result:
    """The last `result`; a rejected `rate_limit_event` gives the time of its reset."""
    session: str | None = None
    result: dict[str, Any] = {}
    limit: dict[str, Any] = {}
    for record in output.records:
        session = token(record.get("session_id")) or session
        if record.get("type") == "rate_limit_event":
            limit = table(record.get("rate_limit_info"))
        elif record.get("type") == "result":
            result = record
    said = text(result.get("result"))
    if result.get("is_error") is not True:
        return Result(usage=_usage(result), resume_token=session, summary=said)
    status = count(result.get("api_error_status"))
    rejected = limit.get("status") == "rejected"
    refusal = "rate_limit" if rejected else REFUSED.get(status or 0)
    return Result(
        outcome="limited" if refusal else "failed",
        reason=refusal or ("no_conversation" if output.resumed and _is_gone(result) else _failure(result, status)),
        error=said,
        resets_at=instant(limit.get("resetsAt")) if rejected else None,
        usage=_usage(result),
        resume_token=session,
        summary=said,
        limited=refusal is not None,
    )


def _is_gone(result: Mapping[str, Any]) -> bool:
    """Whether it came to nothing because there is no conversation of that id: it says so without a turn."""
    errors = result.get("errors")
    return isinstance(errors, list) and any(str(error).startswith("No conversation found") for error in errors)


def _failure(result: Mapping[str, Any], status: int | None) -> str:
    """`unauthorised`, `api_error`, or the subtype, such as `error_max_turns`."""
    if status in UNAUTHORISED:
        return "unauthorised"
    subtype = text(result.get("subtype"))
    return "api_error" if status is not None or subtype in (None, "success") else str(subtype)


def _usage(result: Mapping[str, Any]) -> Usage | None:
    used = table(result.get("usage"))
    if not used:
        return None
    return {
        "input_tokens": count(used.get("input_tokens")),
        "output_tokens": count(used.get("output_tokens")),
        "cache_read_tokens": count(used.get("cache_read_input_tokens")),
        "cache_write_tokens": count(used.get("cache_creation_input_tokens")),
        "cost_micros": micros(result.get("total_cost_usd")),
    }


PRESET = Preset(
    command=(
        "claude", "-p", "--output-format", "stream-json", "--verbose", "--permission-mode", "acceptEdits",
        "--allowedTools=Bash", "--add-dir={run_dir}",
    ),
    prompt=("--", "{prompt}"),
    parse=parse,
    env={"DISABLE_AUTOUPDATER": "1"},
    resume=("--resume={resume}",),
    login=("auth", "status"),
)  # fmt: skip
