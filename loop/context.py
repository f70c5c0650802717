"""What a session may want to know of itself: why it was chosen, and what the last ones of its category did.

It is the file `$LOOP_CONTEXT`, one JSON object (`loop.context/1`), written before the session starts. Summaries in it
are other sessions' words.
"""

from __future__ import annotations

from typing import Any

from events.envelope import Record, content, private_content
from events.store import EventLog, Filter
from loop.config import Config
from loop.passes import Decided, Grant
from loop.text import visible
from loop.words import BACKEND_WORDS, RULES
from projections.view import Entry

SESSIONS = 5  # of the category, that a context tells of
WITHIN = 10_000  # events: how far back they are looked for
MAX_WORDS = 500  # characters of what one of them said


def context_of(log: EventLog, config: Config, decided: Decided, grant: Grant) -> dict[str, Any]:
    """The context of a session that was just granted. Raises StoreError."""
    choice = grant.choice
    candidate = next(
        (each for each in decided.decision.candidates if (each.category, each.verdict) == (choice.category, "chosen")),
        None,
    )
    answer = decided.seen.answer
    word = None if candidate is None or candidate.backends is None else candidate.backends.get(choice.backend)
    return {
        "schema": "loop.context/1",
        "session": grant.session,
        "category": choice.category,
        "task": choice.task or None,
        "note": config.categories[choice.category].note,
        "why": {
            "rule": choice.rule,
            "text": RULES.get(choice.rule, choice.rule),
            "rank": None if candidate is None else candidate.rank,
            "score": _score(choice.category, () if answer is None else answer.ranking),
            "tier": None if answer is None else answer.tier,
            "trigger": grant.trigger,
            "position": decided.position,
        },
        "backend": {"name": choice.backend, "why": word, "text": BACKEND_WORDS.get(word or "")},
        "chain": choice.chain,
        "follows": choice.parent,
        "resumes": None if grant.resumes is None else grant.resumes["session"],
        "deadline": grant.deadline,
        "last": _last(log, choice.category),
    }


def _score(category: str, ranking: tuple[Entry, ...]) -> float | None:
    score = next((entry.score for entry in ranking if entry.category == category), None)
    return None if score is None else score / 1_000_000


def _last(log: EventLog, category: str) -> list[dict[str, Any]]:
    """The last ends of the category, newest first."""
    ends = Filter(
        types=("session.ended", "session.lost"), category=category, after=max(0, log.head().position - WITHIN)
    )
    return [_told(log, end) for end in reversed(log.select(ends, limit=SESSIONS, newest=True))]


def _told(log: EventLog, end: Record) -> dict[str, Any]:
    data = content(end)
    requested, *graded = log.select(Filter(types=("session.requested", "session.graded"), session=end.session))
    asked = content(requested)
    words = (private_content(end) or {}).get("summary")
    return {
        "session": end.session,
        "task": data.get("done_task") or asked["task"] or None,
        "backend": asked["backend"],
        "ended_at": end.at,
        "outcome": data.get("outcome") or "lost",
        "reason": data.get("reason") or data.get("why"),
        "grade": content(graded[-1])["grade"] if graded else data.get("grade"),
        "seconds": data.get("seconds"),
        "summary": None if not isinstance(words, str) else visible(words, MAX_WORDS),
    }
