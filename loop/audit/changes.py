"""A change of one fact, and the kinds of it: a limit raised, a place in the ranking, a session ended.

They come as *ladders*: the ways in which one fact could differ, the smallest first (one slot more, two more, …). Facts
have the names of status expressions (`capacity`, `locks["code"].session`) or, for what only the config has, its key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from loop.audit import alter
from loop.decider import Decision
from projections.view import Category, View

RUNGS = 64  # ways tried of one fact; more would be no small change


@dataclass(frozen=True, slots=True)
class Change:
    """One fact that differs. `text` completes "it would have started if …"; `command` does it now, `setting` is what
    loop.toml would say."""

    fact: str
    old: Any
    new: Any
    text: str
    apply: Callable[[View], View]
    command: str | None = None
    setting: str | None = None


Ladder = list[Change]


def more(
    fact: str,
    limit: int,
    in_use: int,
    text: Callable[[int], str],
    apply: Callable[[int], Callable[[View], View]],
    key: str,
) -> Ladder:
    """A limit raised by one, two, …, from where it leaves room for one more than is in use."""
    first = max(limit, in_use) + 1
    return [
        Change(fact, limit, count, text(count), apply(count), None, f"{key} = {count}")
        for count in range(first, first + RUNGS)
    ]


def ranks(view: View, name: str, command: str | None) -> Ladder:
    """The category named in the ranking: at its end or one place higher, then ever further ahead, last in front."""
    answer = view.answer
    assert answer is not None
    names = [entry.category for entry in answer.ranking]
    old = names.index(name) + 1 if name in names else None
    last = len(names) if old is None else old - 2
    places = [place for place in range(last, -1, -1) if place == 0 or last - place < RUNGS - 1]
    return [
        Change(
            fact=f'ranking["{name}"]',
            old=old,
            new=place + 1,
            text=f"the selector had named it, at rank {place + 1}" + ("" if old is None else f" instead of {old}"),
            apply=alter.ranked(name, place),
            command=command,
        )
        for place in places
    ]


def sessions_ended(view: View, sessions: Iterable[str]) -> Iterator[Ladder]:
    for session in sessions:
        text, command = f"{session_text(view, session)} had ended", stop_command(view, session)
        yield [Change(f'session["{session}"].live', True, False, text, alter.ended(session), command)]


def session_text(view: View, session: str) -> str:
    live = view.live.get(session)
    return f"session {session}" + ("" if live is None else f" ({live['category']})")


def stop_command(view: View, session: str) -> str | None:
    return f"loop stop {session}" if session in view.live else None


def competitors(view: View, decision: Decision, keys: tuple[str, ...] | None = None) -> Iterator[Ladder]:
    """Those chosen by the same decision (with `keys`: that took one of them) had not been asked for."""
    ranks = {candidate.category: candidate.rank for candidate in decision.candidates}
    for choice in decision.chosen:
        other = choice.category
        if keys is not None and not set(keys) & set(choice.keys):
            continue
        if choice.parent is not None:
            text = f"the respawn of {other} had not been due"
            yield [Change(f'due["{choice.parent}"]', True, False, text, alter.not_due(choice.parent))]
        elif choice.rule not in ("allowlist", "manual"):
            text = f"the selector had not named {other}, which it served before"
            yield [Change(f'ranking["{other}"]', ranks[other], None, text, alter.unranked(other))]


def parallel(category: Category, text: str, command: str | None = None) -> Change:
    name = category.name
    fact, setting = f'category["{name}"].parallel', f"[categories.{name}] parallel = true"
    return Change(fact, category.parallel, True, text, alter.category(name, parallel=True), command, setting)


def respawn_limit(view: View, limit: int) -> Change:
    text, setting = f"a chain might have {limit} respawns", f"[respawn] limit = {limit}"
    return Change("respawn.limit", view.respawn_limit, limit, text, alter.loop(respawn_limit=limit), None, setting)
