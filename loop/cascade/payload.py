"""The built-in selector's answer as a payload of the documented shape, and that payload made again from the log.

Beside the known keys it has `terms` (each score term by term), `needs_supply`, and `read`: the position and time of the
view, the weights, and what was read of the task files, per category. Task files are not in the log, so `read` is what
makes an answer reproducible: with it and the log `derived` prints the same payload at any later time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from events.envelope import to_json
from loop.cascade.tasks import Files, Lane, lanes
from loop.cascade.terms import base
from loop.cascade.tiers import Scored, answer, withheld
from projections.view import View

Payload = dict[str, Any]


def payload(
    view: View,
    files: Files,
    *,
    aliases: Mapping[str, str],
    weights: Mapping[str, float],
    learn: bool,
    default: str | None = None,
) -> Payload:
    """What the built-in selector prints for a view and the task files."""
    found, odd = lanes(
        files.tasks, view.categories, aliases, withheld(view), default, archived=files.archived, now=view.now
    )
    return _payload(view, found, weights, learn, [*files.warnings, *odd])


def derived(view: View, recorded: Mapping[str, Any]) -> Payload:
    """The payload once more, from a view of then and what the `recorded` one says that it read.

    Raises KeyError, TypeError or ValueError where that is no payload of ours.
    """
    read = recorded["read"]
    found = {str(name): Lane(**lane) for name, lane in read["lanes"].items()}
    return _payload(view, found, dict(read["weights"]), bool(read["learn"]), list(read["warnings"]))


def kept(answer: Payload, longest: int) -> Payload:
    """What of an answer the log keeps: all of it, or of one with more characters what `derived` needs."""
    return answer if len(to_json(answer)) <= longest else {"read": answer["read"]}


def _payload(
    view: View, found: Mapping[str, Lane], weights: Mapping[str, float], learn: bool, odd: list[str]
) -> Payload:
    made = answer(view, found, weights, learn=learn)
    warnings = [f"{name} needs supply: {why}" for name, why in made.empty.items()]
    if made.plateau is not None:
        word = " (seen too often: it only nudges)" if made.saturated else ""
        warnings.append(f"plateau: {made.plateau} crowds out others with work{word}")
    first = made.ranked[0] if made.ranked and made.tier < 3 else None
    result: Payload = {"tier": made.tier}
    if first is not None:
        result["selected"] = _entry(first)
        result["diversity_alternatives"] = [_entry(each) for each in made.ranked[1:]]
    elif any(each.task for each in made.ranked):
        result["diversity_alternatives"] = [_entry(each) for each in made.ranked]
    return {
        **result,
        "all_scores": {each.category: each.score for each in made.ranked},
        "diversity_warnings": [*warnings, *odd],
        "needs_supply": dict(made.empty),
        "plateau": made.plateau,
        "base": round(base(weights), 4),
        "terms": {
            each.category: {
                term.name: {"value": term.value, "weight": term.weight, "points": round(term.points, 4)}
                for term in each.terms
            }
            for each in made.ranked
        },
        "read": {
            "position": view.position,
            "now": view.now,
            "weights": dict(weights),
            "learn": learn,
            "lanes": {
                name: {key: value for key, value in lane._asdict().items() if value} for name, lane in found.items()
            },
            "warnings": odd,
        },
    }


def _entry(each: Scored) -> dict[str, Any]:
    found: dict[str, Any] = {"category": each.category, "score": each.score}
    return found if each.task is None else {"id": each.task, **found}
