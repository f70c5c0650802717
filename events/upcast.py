"""Old shapes of events read as today's: pure functions on decoded dicts, one per (type, version) left behind.

A step turns version n into n+1 and never looks at anything but its argument. A test checks that the steps of each type
lead without a gap to the version in `events.catalog`.
"""

from __future__ import annotations

from collections.abc import Callable

from events.envelope import Json
from events.errors import StoreTooNew

Upcaster = Callable[[Json], Json]


def _without_ledger(data: Json) -> Json:
    """Decisions had no credit ledger."""
    return {**data, "ledger": None}


def _no_observation(data: Json) -> Json:
    """Before lock histories of other programs could be imported."""
    return {"foreign": None, **data}


def _no_rungs(data: Json) -> Json:
    """Before slots that were raised under a red rung were recorded."""
    return {**data, "red_rungs": []}


def _no_rule(data: Json) -> Json:
    """Before the storm guard froze."""
    return {**data, "because": None}


def _no_subject(data: Json) -> Json:
    """Before notices were told apart by their subject."""
    return {**data, "subject": None}


_UNBOUNDED = {"max_tokens_per_day": None, "max_cost_per_day": None}


def _no_budgets(data: Json) -> Json:
    """Before budgets, and limits of whole pools."""
    categories = {name: {**each, "max_runs_per_day": None, **_UNBOUNDED} for name, each in data["categories"].items()}
    backends = {name: {**each, **_UNBOUNDED} for name, each in data["backends"].items()}
    return {**data, "categories": categories, "backends": backends, "pools": {}}


def _no_backends_considered(data: Json) -> Json:
    """Before decisions said why each candidate got its backend, or none."""
    return {**data, "candidates": [{**each, "backends": None} for each in data["candidates"]]}


def _no_terms(data: Json) -> Json:
    """Before the built-in selector had weights, and configs were known by their text."""
    return {**data, "selector": {**data["selector"], "weights": {}, "learn": False}, "source": None}


def _no_plateau(data: Json) -> Json:
    """Before the built-in selector looked for one."""
    return {**data, "plateau": None}


def _no_empty_lanes(data: Json) -> Json:
    """Before an answer told which categories it found without work."""
    return {**data, "empty": []}


def _no_resume(data: Json) -> Json:
    """Before sessions were resumed."""
    return {**data, "resumes": None}


def _no_grader(data: Json) -> Json:
    """Before graders."""
    return {**data, "to_grade": False}


def _no_token(data: Json) -> Json:
    """Before a lost session could be resumed."""
    return {**data, "resume_token": None}


UPCASTERS: dict[tuple[str, int], Upcaster] = {
    ("loop.configured", 1): _no_rungs,
    ("loop.configured", 2): _no_budgets,
    ("loop.configured", 3): _no_terms,
    ("selection.made", 1): _no_plateau,
    ("selection.made", 2): _no_empty_lanes,
    ("fanout.decided", 1): _without_ledger,
    ("fanout.decided", 2): _no_backends_considered,
    ("lock.acquired", 1): _no_observation,
    ("session.requested", 1): _no_resume,
    ("session.ended", 1): _no_grader,
    ("session.lost", 1): _no_token,
    ("loop.frozen", 1): _no_rule,
    ("notice.sent", 1): _no_subject,
    ("notice.failed", 1): _no_subject,
}

LATEST = {type: version + 1 for type, version in sorted(UPCASTERS)}
"""Today's version of each type that ever had another; that of all others is 1."""


def upcast(type: str, version: int, data: Json) -> Json:
    """`data` of an event of `type` stored at `version`, as today's version has it.

    Raises StoreTooNew for a version that no step leads to: only a newer loop can have written it; ValueError for data
    that a fault has made unlike its version.
    """
    while step := UPCASTERS.get((type, version)):
        try:
            data = step(data)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no {type} of version {version}: {error.__class__.__name__} {error}") from error
        version += 1
    if version > 1 and (type, version - 1) not in UPCASTERS:
        raise StoreTooNew(
            f"an event of type {type!r} has version {version}, which this loop does not know",
            "upgrade loop: pip install --upgrade loop-control",
        )
    return data
