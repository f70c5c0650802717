"""Another program's locks, imported: how many were held at once, and which lock twice, from times of one second.

An interval is known only as [since, until] in whole seconds, so that each end may have come up to a second later than
it says. Two holds of one lock overlap for certain only where each ends in a later second than the other begins; where
they share no more than a second, or the first has no release, nobody can tell, and that is counted apart.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypedDict

from events.envelope import Event
from projections.fold import keep_recent

OPEN_KEPT = 1_024  # holds looked at for overlaps; more are never held at once
KEYS_KEPT = 256  # locks that are counted by name
OTHERS = "…"  # and the name of all others


class Counts(TypedDict):
    acquired: int
    certain: int  # overlaps of two holders
    same_second: int  # pairs that share a second and no more
    unknown: int  # taken by another process while the holder before it has no release: an overlap, or it was killed
    unreleased: int  # holds of which no release is told


class Foreign(TypedDict):
    total: Counts
    keys: dict[str, Counts]
    open: list[list[Any]]  # [key, pid, since, until], those that the next acquire may still find
    peak: int  # the most processes that certainly held a lock at once
    peak_at: str | None
    peak_possible: int  # the same if each hold without a release lasted until its lock was taken again, inclusive
    orphans: int  # releases of which no acquire is told
    since: str | None
    until: str | None


class _Hold(NamedTuple):
    key: str
    pid: int
    since: str
    until: str | None


def initial() -> Foreign:
    return Foreign(
        total=_counts(), keys={}, open=[], peak=0, peak_at=None, peak_possible=0, orphans=0, since=None, until=None
    )


def _counts() -> Counts:
    return Counts(acquired=0, certain=0, same_second=0, unknown=0, unreleased=0)


def acquired(state: Foreign, event: Event) -> bool:
    """Fold an acquire; returns whether it certainly overlaps a hold of the same lock. Events come in order of time."""
    data = event.data
    new = _Hold(data["key"], data["foreign"]["pid"], event.at, data["foreign"]["until"])
    _seen(state, event.at)
    counts = (state["total"], _of_key(state, new.key))
    _add(counts, "acquired")
    if new.until is None:
        _add(counts, "unreleased")
    overlaps = False
    kept: list[_Hold] = []
    together, possible = {new.pid}, {new.pid}
    for old in (_Hold(*item) for item in state["open"]):
        if old.until is not None and old.until < new.since:
            continue
        if old.until is None and old.key == new.key:  # its end is unknown, and the last moment to ask is now
            if old.pid != new.pid:
                possible.add(old.pid)
                _add(counts, "unknown")
            continue
        kept.append(old)
        certain = _overlap(old, new)
        possible.add(old.pid)
        if certain:
            together.add(old.pid)
        if old.key == new.key and old.pid != new.pid:
            _add(counts, "certain" if certain else "same_second")
            overlaps = overlaps or certain
    state["open"] = [list(hold) for hold in kept]
    keep_recent(state["open"], list(new), OPEN_KEPT)
    state["peak_possible"] = max(state["peak_possible"], len(possible))
    if len(together) > state["peak"]:
        state["peak"], state["peak_at"] = len(together), event.at
    return overlaps


def released(state: Foreign, event: Event) -> None:
    """Fold a release. What it ends was told when it began; one that ends nothing is counted."""
    _seen(state, event.at)
    if event.data["token"] == event.position:
        state["orphans"] += 1


def _overlap(old: _Hold, new: _Hold) -> bool:
    """Whether the two were certainly held at one instant; `old` began in the same second as `new` or before."""
    if old.until is None:
        return False
    return old.until > new.since and (old.since < new.since or (new.until is not None and new.until > old.since))


def _of_key(state: Foreign, key: str) -> Counts:
    if key not in state["keys"] and len(state["keys"]) >= KEYS_KEPT:
        key = OTHERS
    return state["keys"].setdefault(key, _counts())


def _add(
    counts: tuple[Counts, ...], name: Literal["acquired", "certain", "same_second", "unknown", "unreleased"]
) -> None:
    for each in counts:
        each[name] += 1


def _seen(state: Foreign, at: str) -> None:
    state["since"] = state["since"] or at
    state["until"] = at
