"""What a preset is: the words of a command, and a parser of what that command printed.

This is the interface of plug-ins too: an entry point of the group `loop.presets` names a `Preset`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Usage = dict[str, int | float | None]  # a session's own outcome file may count other things, in fractions
Refusal = Literal["failed", "limited"]
USAGE = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cost_micros")
MOST = 10**15  # of anything counted: beyond it a number is a mistake
LATEST = 4_102_444_800  # 2100, in seconds since the epoch: a reset beyond it is a mistake
TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


@dataclass(frozen=True, slots=True)
class Output:
    """What a session printed, bounded. Everything in it is hostile: any shape may come.

    `records` are the JSON objects that fill a line of stdout, in order, read as they are asked for. `whole`, once they
    were gone through, is False where the middle of the output was not kept or a line was too long to be read: a sum of
    the records is then too small. `ended_at` is in seconds since the epoch. `exit_code` is None where a signal ended
    it, or nobody knows. `resumed` is the conversation that it was to go on with.
    """

    records: Iterable[dict[str, Any]]
    whole: Callable[[], bool]
    session: str
    ended_at: float
    exit_code: int | None = None
    resumed: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What an agent's own words say about its session; what they do not say is None.

    `outcome` is `failed` or `limited`, never success: that an agent reached its end is no evidence of work. `reason` is
    a code for it, `error` the agent's message, which `limit_patterns` are tried on. `limited` says that the
    backend refused, until `resets_at` (seconds since the epoch; None: unknown), however the session ended. `usage` has
    the names of USAGE; `resume_token` is what the agent calls the session.
    """

    outcome: Refusal | None = None
    reason: str | None = None
    error: str | None = None
    resets_at: float | None = None
    usage: Usage | None = None
    resume_token: str | None = None
    summary: str | None = None
    limited: bool = False


Parser = Callable[[Output], Result]


@dataclass(frozen=True, slots=True)
class Preset:
    """An agent: `command`, then a backend's own `args`, then `prompt` make its argv, all of them templates.

    `resume` are the words before `prompt` that go on with a conversation, which `{resume}` names; without any its
    sessions always begin anew. `login` are the words after the program that ask, without spending anything, whether
    somebody is logged in: exit code 0 says so.

    `parse` reads what it printed, or None where there is nothing to read. `exit_codes` maps those that mean something
    beyond success and failure to outcomes. `limit_patterns` are regular expressions, the last resort: tried on the
    `error` of the parser's result, or else on the end of the output of a session that ended with another code than 0.
    `evidence = "exit"` takes exit code 0 as evidence of work. `env` are variables that an unattended run should have.
    """

    command: tuple[str, ...]
    prompt: tuple[str, ...] = ("{prompt}",)
    parse: Parser | None = None
    exit_codes: Mapping[int, str] = field(default_factory=dict)
    limit_patterns: tuple[str, ...] = ()
    evidence: Literal["exit"] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    resume: tuple[str, ...] = ()
    login: tuple[str, ...] = ()


# What parsers share: one value of a foreign shape, or None.


def table(value: object) -> dict[str, Any]:
    """`value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str | None:
    """`value` if it is a string that says something."""
    return value if isinstance(value, str) and value.strip() else None


def count(value: object) -> int | None:
    """`value` if it is a whole number of things."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST else None


def micros(dollars: object) -> int | None:
    """An amount of dollars as whole micro-dollars."""
    if isinstance(dollars, bool) or not isinstance(dollars, int | float) or not 0 <= dollars <= MOST / 1e6:
        return None
    return round(dollars * 1_000_000)


def instant(seconds: object) -> float | None:
    """A plausible time in seconds since the epoch."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LATEST:
        return None
    return float(seconds)


def token(value: object) -> str | None:
    """A session's name that can be given back to the agent as one plain word, which is no option."""
    return value if isinstance(value, str) and TOKEN.fullmatch(value) else None
