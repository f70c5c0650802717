"""Verdicts and reasons in words, for people: one sentence per code, with the facts that the decision recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from loop.output import clean, local, span
from projections.feedback import BOUNDS

Detail = dict[str, Any]


def _until(detail: Detail) -> str:
    return f" until {local(detail['until'])}" if detail.get("until") else ""


def _restrained(word: str) -> Callable[[Detail], str]:
    def text(detail: Detail) -> str:
        scope = str(detail.get("scope", "all"))
        return (f"the loop is {word}" if scope == "all" else f"{scope.replace(':', ' ')} is {word}") + _until(detail)

    return text


def _over_allocated(detail: Detail) -> str:
    if "most" not in detail:
        return "it would get more than its share"
    ratio, target = detail["max_ratio"] / 1e6, detail["target"] / 1e4
    return (
        f"it had {detail['started']} of {detail['total']} starts, and of one more {detail['most']} are the most that "
        f"{ratio:g} times its target of {target:.0f} % allows"
    )


def _ago(detail: Detail) -> str:
    return f" ({span(detail['age'])} ago)" if detail.get("age") else ""


def _code(detail: Detail) -> str:
    return " without an exit code" if detail.get("exit_code") is None else f" with exit code {detail['exit_code']}"


def _blocked(detail: Detail) -> str:
    task = clean(detail.get("task"), 40)
    other = f"a task other than {task}" if task else "a task"
    return (
        f"session {clean(detail.get('session'))} found it blocked; it waits for {other},"
        f" a gate that turns to work, or{_until(detail).replace(' until', '')}"
    )


def _figures(detail: Detail) -> str:
    """The figures outside their bounds, from a detail that has each under its name and its bound's."""
    parts = [figure(name, detail.get(BOUNDS[name]), bound) for name, bound in detail.items() if name in BOUNDS]
    return f": {'; '.join(parts)}" if parts else ""


def figure(bound_name: str, value: float | None, bound: float) -> str:
    """A figure of the host beside its bound, for people: `load per CPU 2.1, at most 1.5`."""
    name, most = BOUNDS[bound_name], "at most" if bound_name.startswith("max_") else "at least"

    def shown(number: float) -> str:
        return f"{number / 2**30:.1f} GiB" if name == "disk_free" else f"{number:g}"

    text = name.replace("_", " ").replace("cpu", "CPU")
    return f"{text} {'not measured' if value is None else shown(value)}, {most} {shown(bound)}"


def amount(kind: str, number: int | None) -> str:
    """A number of a budget's kind, for people; None is unknown."""
    if number is None:
        return "unknown"
    return f"${number / 1e6:,.2f}" if kind == "cost" else f"{number:,} {kind}"


def _budget_spent(detail: Detail) -> str:
    if "scope" not in detail:
        return "a budget is spent" + _until(detail)
    kind, scope = detail["kind"], clean(detail["scope"].replace(":", " "), 80)
    text = f"the budget of {scope} is {amount(kind, detail['limit'])} a day, of which {amount(kind, detail['spent'])}"
    text += f" spent and {amount(kind, detail['reserved'])} reserved" if kind != "runs" else " spent"
    if detail["unknown"]:
        text += f" ({detail['unknown']} sessions did not tell)"
    return text + (f"; something of it leaves the day at {local(detail['until'])}" if detail.get("until") else "")


VERDICTS: dict[str, Callable[[Detail], str]] = {
    "chosen": lambda d: "started",
    "unknown_category": lambda d: "no such category in the config",
    "not_allowed": lambda d: "outside the parallel allowlist (parallel = false)",
    "not_ranked": lambda d: "the selector did not ask for it",
    "frozen": _restrained("frozen"),
    "draining": _restrained("draining"),
    "paused": _restrained("paused"),
    "lock_held": lambda d: f"its lock {clean(d.get('key'))} is held by {clean(d.get('session'))}",
    "task_taken": lambda d: (
        f"task {clean(d.get('task'), 40)} {'was' if d.get('over') else 'is'} with {clean(d.get('session'))}"
        + (", and the answer is from before" if d.get("over") else "")
    ),
    "not_alone": lambda d: (
        f"{clean(d['alone'])} runs alone" if "alone" in d else f"it runs alone, and {d.get('live')} are live"
    ),
    "cooling_down": lambda d: (
        f"backing off{_until(d)}: {d['noops']} of its last {d.get('of')} were NOOPs"
        if "noops" in d
        else "cooling down" + _until(d)
    ),
    "respawn_spent": lambda d: f"the chain has had its {d.get('limit')} respawn",
    "no_work": lambda d: _blocked(d) if d.get("because") == "blocked" else f"its gate says: no work{_ago(d)}",
    "gate_error": lambda d: {
        "not_asked": "its gate was not asked yet",
        "too_old": f"its gate's last answer is too old{_ago(d)}",
    }.get(str(d.get("because")), f"its gate failed{_code(d)}{_ago(d)}"),
    "over_allocated": _over_allocated,
    "budget_spent": _budget_spent,
    "no_backend": lambda d: "no backend can take it" + _until(d),
    "host_busy": lambda d: "the host is too busy" + _figures(d),
    "rate_limited": lambda d: f"{d.get('starts')} starts in the last {d.get('window')}, the limit is {d.get('limit')}",
    "no_slot": lambda d: (
        f"the safety net has its {d['fallback_slots']} slot" if "fallback_slots" in d else "no slot was left"
    ),
}

IDLE: dict[str, str] = {
    "rejected": "the selector's answer was rejected",
    "nothing_ranked": "nobody asked for it",
    "paused": "the loop is paused",
    "draining": "the loop is draining",
    "frozen": "the loop is frozen",
    "stopped": "the STOP file was there",
}

REJECTIONS: dict[str, str] = {
    "no_answer": "the selector gave no answer",
    "timeout": "the selector took too long",
    "exit_code": "the selector failed",
    "not_json": "the answer is not JSON",
    "too_large": "the answer is too large",
    "too_deep": "the answer is nested too deeply",
    "unknown_shape": "the answer has a shape that loop does not know",
    "wrong_type": "the answer has a known key in another type",
    "no_category": "the answer names no category",
    "too_old": "the last answer is too old",
}


def verdict(code: str, detail: Detail, *, planned: bool = False) -> str:
    """A verdict in words; `planned`: nothing was started on it."""
    if planned and code == "chosen":
        return "would start"
    text = VERDICTS.get(code)
    return code if text is None else text(detail)


def idle(reason: str) -> str:
    """Why a slot stayed idle, in words."""
    return IDLE.get(reason) or {
        "lock_held": "what was asked for already runs",
        "cooling_down": "what was asked for is cooling down",
        "not_allowed": "what was asked for is outside the allowlist",
        "over_allocated": "what was asked for has had its share",
        "no_backend": "no backend can take what was asked for",
        "budget_spent": "a budget of what was asked for is spent",
        "rate_limited": "the start-rate limit is reached",
        "respawn_spent": "the chain has had its respawn",
        "task_taken": "the task is taken",
        "not_alone": "something must run alone",
        "unknown_category": "the selector named a category that is not configured",
        "no_slot": "the safety net's slots are used",
        "no_work": "what was asked for has no work",
        "gate_error": "a gate gave no answer that counts",
        "host_busy": "the host is too busy",
    }.get(reason, reason)


RULES: dict[str, str] = {
    "selected": "the selector selected it",
    "diversity_alternatives": "the selector named it for diversity",
    "alternatives": "the selector named it as an alternative",
    "all_scores": "the selector scored it",
    "allowlist": "the selector's answer was rejected, and of the allowlist it was owed the most",
    "respawn": "the session before it earned a respawn",
    "manual": "it was asked for by hand",
}

BACKEND_WORDS: dict[str, str] = {
    "no_command": "has no command",
    "paused": "is paused",
    "limited": "refuses until its reset",
    "unknown": "refuses, nobody knows until when",
    "breaker": "failed too often of late",
    "probing": "is being tried by one session",
    "full": "has as many sessions as it may",
    "pool_full": "has a pool with as many sessions as it may",
    "budget": "has spent its budget, or its pool's",
    "probe": "is tried again",
    "asked_for": "was asked for",
    "first_named": "is named first",
    "next_named": "is the first named that could",
    "only_one": "is the only one that could",
    "unused_longest": "was unused for longest",
    "later": "could, too",
}
"""What a decision says of a backend that it considered (`loop.decider.BACKENDS`), in words."""

BACKENDS_SHOWN = 6


def weighed(backends: dict[str, str] | None) -> str:
    """What a decision says of the backends that it considered, in one line; empty where it says nothing."""
    shown = [f"{clean(name, 20)} {BACKEND_WORDS.get(word, word)}" for name, word in (backends or {}).items()]
    more = [f"and {len(shown) - BACKENDS_SHOWN} more"] if len(shown) > BACKENDS_SHOWN else []
    return "; ".join(shown[:BACKENDS_SHOWN] + more)


BACKENDS: dict[str | None, str] = {
    "asked_for": "asked for by hand",
    "first_named": "the first that the category names",
    "next_named": "the first of the category's that could take it",
    "only_one": "the only one that could take it",
    "unused_longest": "the one unused for longest of those that could take it",
    None: "by rules that this loop no longer has",
}


def granted_because(session: Detail) -> str:
    """Why a session was granted, in one sentence; `session` is what `loop.audit.why.session_of` found."""
    rule = RULES.get(session["rule"], session["rule"])
    rank = "" if session["rank"] is None or session["rule"] == "manual" else f", rank {session['rank']}"
    task = f", with task {clean(session['task'], 40)}" if session["task"] else ""
    backend = f"on {clean(session['backend'], 20)}, {BACKENDS[session['backend_reason']]}"
    if session["backend_reason"] == "unused_longest":
        backend += f" ({len(session['backends_able'])})"
    chain = "" if not session["chain"] else f"; number {session['chain'] + 1} of its chain, after {session['parent']}"
    how = "started" if session["started"] else "was to start"
    return f"{clean(session['category'], 24)} {how} because {rule}{rank}{task}; {backend}{chain}"
