"""Gates, NOOPs, blocks and the host, settled at an instant: what of them still counts, and until when.

The rules and where their figures come from: docs/gates.md. Times are microseconds; State has the facts, and nothing
here is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from events.envelope import to_micros, to_text
from projections import schedule
from projections.state import State
from projections.supply import Said

PERIODS = 48  # a NOOP back-off looks so many periods back from the last NOOP
NOOPS = 3  # NOOPs in that window from which a category backs off …
ONE_IN = 3  # … where they are at least one in so many of its assessed ends
LONGEST = 8  # periods that a back-off lasts at most, and a wait after `blocked` altogether

Supply = Literal["work", "none", "unknown"]


class Gate(NamedTuple):
    """A category's gate. `answer` is the last one if it still counts, else None; `age` is None if it never answered."""

    answer: Said | None
    age: int | None
    exit_code: int | None


class Backoff(NamedTuple):
    """Until when a category backs off, because `noops` of its `of` last assessed ends were NOOPs."""

    until: int
    noops: int
    of: int


class Wait(NamedTuple):
    """A category that `session` found blocked, with this task ("": none); it waits for another task, or `until`."""

    session: str
    task: str
    until: int


class Measure(NamedTuple):
    """A bound of `[host]` and the figure it bounds; `value` None: it could not be measured, or not lately."""

    bound_name: str
    bound: float
    name: str
    value: float | None
    ok: bool


BOUNDS = {
    "max_load_per_cpu": "load_per_cpu",
    "min_memory_available": "memory_available",
    "min_disk_free": "disk_free",
}
"""The keys of `[host]` and the figures of `host.measured` that they bound; `max_` from above, `min_` from below."""


def gate(state: State, config: dict[str, Any], name: str, now: int) -> Gate | None:
    """The gate of a category; None where it has none. An answer counts for `selector.max_age`, as a ranking does."""
    if not config["categories"][name]["gate"]:
        return None
    last = state.supply["gates"].get(name)
    if last is None:
        return Gate(None, None, None)
    age = now - to_micros(last["at"])
    return Gate(last["answer"] if counts(config, age) else None, age, last["exit_code"])


def counts(config: dict[str, Any], age: int) -> bool:
    """Whether what was observed `age` ago may still be decided on."""
    limit: int = round(config["selector"]["max_age"] * 1_000_000)
    return 0 <= age <= limit


def backoff(state: State, config: dict[str, Any], name: str, now: int) -> Backoff | None:
    """The NOOP back-off of a category at `now`: counted in a window, so that no single success ends it.

    In the PERIODS before its last NOOP, and since: k NOOPs of n assessed ends. From NOOPS on, where 3k >= n, it backs
    off for min(2**(k - 2), LONGEST) periods from the last NOOP.
    """
    if state.supply["noops"].get(name, 0) < NOOPS:
        return None
    ends = state.supply["ends"][name]
    times = [end["at"] for end in ends if end["noop"]]
    last = to_micros(times[-1])
    period = schedule.period(config, last)
    if not last <= now < last + LONGEST * period:
        return None
    since, latest = to_text(max(0, last - PERIODS * period)), to_text(now)  # stored times compare as text
    k = len([at for at in times if since < at <= times[-1]])
    if k < NOOPS:
        return None
    n = len([end for end in ends if since < end["at"] <= latest])
    if k * ONE_IN < n:
        return None
    until = last + min(2 ** (k - 2), LONGEST) * period
    return Backoff(until, k, n) if now < until else None


def wait(state: State, config: dict[str, Any], name: str, now: int) -> Wait | None:
    """Whether a category waits after `blocked`: until its gate turns to `work`, and LONGEST periods at most."""
    block = state.supply["blocks"].get(name)
    if block is None:
        return None
    since = to_micros(block["at"])
    until = since + LONGEST * schedule.period(config, since)
    return Wait(block["session"], block["task"], until) if since <= now < until else None


def waiting(blocked: Mapping[str, str], config: dict[str, Any], now: int) -> Iterator[str]:
    """Of tasks with the time at which each was found blocked, those that still wait for that alone."""
    # Of a cron line each period has its own length; of `every` the oldest that counts is known before any is looked at.
    oldest = "" if config["cron"] is not None else to_text(max(0, now - LONGEST * schedule.period(config, now)))
    for task, at in blocked.items():
        if at > oldest and (since := to_micros(at)) <= now < since + LONGEST * schedule.period(config, since):
            yield task


def supply(state: State, config: dict[str, Any], name: str, now: int) -> Supply:
    """Whether a category has work, as far as anything still says; no ranking is evidence of that."""
    return told(wait(state, config, name, now), gate(state, config, name, now), name in lacking(state, config, now))


def told(waits: Wait | None, asked: Gate | None, lacks: bool) -> Supply:
    """What a wait after `blocked`, a gate's answer and the task files (`lacks`) say of a category's supply."""
    if waits is not None:
        return "none"
    said = None if asked is None else asked.answer
    return "work" if said == "work" else "none" if said == "no_work" or lacks else "unknown"


def lacking(state: State, config: dict[str, Any], now: int) -> Sequence[str]:
    """The categories that the built-in selector found without work; as with a gate, its word counts for a while."""
    last = state.supply["lacking"]
    return last["categories"] if last is not None and counts(config, now - to_micros(last["at"])) else ()


def host(state: State, config: dict[str, Any], now: int) -> tuple[Measure, ...]:
    """Every bound of `[host]` that is set, and whether it holds; what was not measured lately does not."""
    last = state.host["last"]
    known = last if last is not None and counts(config, now - to_micros(last["at"])) else None
    return tuple(_measures(config, known))


def _measures(config: dict[str, Any], known: Any) -> Iterator[Measure]:
    for bound_name, name in BOUNDS.items():
        bound = config["host"][bound_name]
        if bound is None:
            continue
        value = None if known is None else known[name]
        ok = value is not None and (value <= bound if bound_name.startswith("max_") else value >= bound)
        yield Measure(bound_name, bound, name, value, ok)
