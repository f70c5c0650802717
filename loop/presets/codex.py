"""Codex: `codex exec --json`, whose turn ends in `turn.completed` or `turn.failed`.

It may write in its working directory and in the run directory, where the outcome file goes. An error is one sentence
without a code, so that here even a structured result needs patterns to tell a refusal from a failure; and it may wait
for a quota as long as it is let, saying so in `error` records.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from loop.presets.preset import Output, Preset, Result, Usage, count, table, text, token

LIMITS = (
    r"\busage limit\b", r"\bquota exceeded\b", r"\b429 Too Many Requests\b", r"\bstatus 529\b", r"\bat capacity\b",
)  # fmt: skip
UNAUTHORISED = re.compile(r"\bstatus 40[13] ")
RESET = re.compile(r"try again at (?:([A-Z][a-z]{2} \d{1,2})(?:st|nd|rd|th), (\d{4}) )?(\d{1,2}:\d{2} [AP]M)")


def parse(output: Output) -> Result:
    """How the last turn ended; where it did not, the last error is what it was waiting for."""
    session: str | None = None
    ended = False
    error: str | None = None
    usage: Usage | None = None
    said: str | None = None
    for record in output.records:
        match record.get("type"):
            case "thread.started":
                session = token(record.get("thread_id"))
            case "turn.started":
                ended, error = False, None
            case "item.completed" if table(record.get("item")).get("type") == "agent_message":
                said, error = text(record["item"].get("text")), None
            case "error":
                error = text(record.get("message"))
            case "turn.completed":
                ended, error, usage = True, None, _usage(table(record.get("usage")))
            case "turn.failed":
                ended, error = True, text(table(record.get("error")).get("message")) or error or "no message"
    if error is None and session is None and output.resumed and output.exit_code:
        return Result(outcome="failed", reason="no_conversation")  # it says so on stderr alone
    if error is None:
        return Result(usage=usage, resume_token=session, summary=said)
    return Result(
        outcome="failed" if ended else None,
        reason="unauthorised" if UNAUTHORISED.search(error) else "turn_failed",
        error=error,
        resets_at=reset_of(error, output.ended_at),
        usage=usage,
        resume_token=session,
        summary=error,
    )


def reset_of(message: str, ended_at: float) -> float | None:
    """The time that a refusal names, in local time and to the minute, of which the end is taken."""
    found = RESET.search(message)
    if found is None:
        return None
    day, year, clock = found.groups()
    now = datetime.fromtimestamp(ended_at)
    try:
        at = datetime.strptime(f"{day or now.strftime('%b %d')} {year or now.year} {clock}", "%b %d %Y %I:%M %p")
        return at.timestamp() + 60
    except (ValueError, OverflowError, OSError):
        return None


def _usage(used: Mapping[str, Any]) -> Usage | None:
    """Its input counts what a cache held; ours does not. It tells no cost."""
    if not used:
        return None
    given, cached = count(used.get("input_tokens")), count(used.get("cached_input_tokens"))
    return {
        "input_tokens": None if given is None else max(0, given - (cached or 0)),
        "output_tokens": count(used.get("output_tokens")),
        "cache_read_tokens": cached,
        "cache_write_tokens": count(used.get("cache_write_input_tokens")),
        "cost_micros": None,
    }


PRESET = Preset(
    command=(
        "codex", "exec", "--json", "--skip-git-repo-check", "--sandbox", "workspace-write", "--add-dir", "{run_dir}",
    ),
    prompt=("--", "{prompt}"),
    parse=parse,
    limit_patterns=LIMITS,
    resume=("resume", "{resume}"),
    login=("login", "status"),
)  # fmt: skip
