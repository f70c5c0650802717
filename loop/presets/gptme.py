"""gptme: `gptme --non-interactive --output-format json`, one message a line; its exit codes tell what went wrong.

The conversation is named after the session, so that its name is what resumes it.
"""

from __future__ import annotations

from loop.presets.preset import USAGE, Output, Preset, Result, Usage, count, micros, table, text, token

EXIT_CODES = {75: "limited"}  # 77, no such model, is a failure as it is
BAD_CREDENTIALS = 76


def parse(output: Output) -> Result:
    """The usage of all answers together, and the last of them."""
    said: str | None = None
    began = False
    total: Usage | None = None
    for record in output.records:
        began = began or record.get("type") == "message"
        if record.get("role") != "assistant":
            continue
        said = text(record.get("content")) or said
        metadata = table(record.get("metadata"))
        used = table(metadata.get("usage"))
        if used:
            one: Usage = {name: count(used.get(name)) for name in USAGE[:-1]}
            total = _added(total, {**one, "cost_micros": micros(metadata.get("cost"))})
    refused = output.exit_code == BAD_CREDENTIALS
    return Result(
        outcome="failed" if refused else None,
        reason="unauthorised" if refused else None,
        usage=total if output.whole() else None,
        resume_token=token(output.resumed or output.session) if began else None,
        summary=said,
    )


def _added(total: Usage | None, one: Usage) -> Usage:
    """Both together; what neither counts is unknown, and so is a cost of which one part is."""
    if total is None:
        return one
    added: Usage = {}
    for name in USAGE:
        first, second = total[name], one[name]
        unknown = first is None or second is None if name == "cost_micros" else first is None and second is None
        added[name] = None if unknown else (first or 0) + (second or 0)
    return added


PRESET = Preset(
    command=("gptme", "--non-interactive", "--output-format", "json", "--name", "{session}"),
    prompt=("--", "{prompt}"),
    parse=parse,
    exit_codes=EXIT_CODES,
    resume=("--name={resume}",),  # the last one counts, and one that is there is gone on with
    limit_patterns=(r"\bError code: 529\b",),  # an overload ends with exit code 1, and a sentence
)
