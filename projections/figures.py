"""Figures of a State at an instant: rates with their denominators, windows with their sample sizes.

Everything here may be shown; nothing here decides. None means *no data*, never zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from events.envelope import to_micros, to_text
from projections import feedback, schedule
from projections.fold import EXACT, first_hour, truncated
from projections.foreign import Counts
from projections.rates import upper95
from projections.selection import GRANTED, NOT_CONSIDERED, NOT_STARTED, STARTING, Fire
from projections.state import State
from projections.view import cooldown_until, counted, restraints

ENOUGH = 5.0  # expected starts (target times total) from which a ratio is worth judging: more than the 4 from which on
# a cap of 1.75 keeps every ratio under 2, since ceil(1.75 e) / e < 1.75 + 1/e
OVER = 2.0  # share over target from which an allocation is a problem
NEGLECT = 3.0  # gap times target above which a category counts as neglected
UNACTED = frozenset({NOT_STARTED, "voided"})  # ways in which a choice came to nothing by loop's own doing
UNHEARD = (NOT_CONSIDERED, "not_ranked")  # what no decision can say of a category that its ranking names
SILENT_PERIODS = 2  # periods without a fire after which nobody seems to fire any more


def noop(state: State) -> dict[str, Any]:
    """The NOOP rate of the last assessed sessions, and how many unproven ones ended since the oldest of them."""
    assessed = state.outcomes["assessed"]
    count = sum(item["outcome"] == "noop" for item in assessed)
    of = len(assessed)
    before = assessed[0]["unproven_before"] if of >= 20 else 0
    return {
        "count": count,
        "of": of,
        "unproven": state.outcomes["unproven"] - before,
        "rate": count / of if of else None,
        "upper95": upper95(count, of),
    }


def only_locks(state: State) -> bool:
    """Whether all that is known are another program's locks: then the rest is unknown, and not zero."""
    return state.locks["foreign"]["since"] is not None and state.sessions["requested"] == 0


def foreign(state: State) -> dict[str, Any] | None:
    """Another program's locks: peak, overlaps certain and possible, releases that are missing; None without any."""
    found = state.locks["foreign"]
    if found["since"] is None:
        return None
    keys = sorted(found["keys"].items(), key=lambda item: (-item[1]["certain"], -item[1]["acquired"], item[0]))
    return {
        "from": found["since"],
        "to": found["until"],
        **_acquisitions(found["total"]),
        "orphan_releases": found["orphans"],
        "peak": {
            "count": found["peak"] or None,
            "at": found["peak_at"],
            "possible": found["peak_possible"] or None,
        },
        "locks": [{"key": key, **_acquisitions(counts)} for key, counts in keys],
    }


def _acquisitions(counts: Counts) -> dict[str, Any]:
    overlaps = {name: counts[name] for name in ("certain", "same_second", "unknown")}
    possible = counts["same_second"] + counts["unknown"]
    return {
        "acquisitions": counts["acquired"],
        "unreleased": counts["unreleased"],
        "overlaps": {**overlaps, "possible": possible},
    }


def live(state: State) -> int | None:
    """How many sessions live; None where only another program's locks are known."""
    return None if only_locks(state) else len(state.sessions["live"])


def peak(state: State, now: int, window: int) -> tuple[int | None, str | None]:
    """The most sessions alive at once in the window, and when; (None, None) before the first.

    Of another program's locks it is the most that were certainly held at once, in all of the history.
    """
    if only_locks(state):
        return state.locks["foreign"]["peak"], state.locks["foreign"]["peak_at"]
    first, last = first_hour(now, window), first_hour(now, 0)
    most, when = 0, None
    for hour, (count, at) in sorted(state.sessions["peaks"].items()):
        if first <= hour <= last and count > most:
            most, when = count, at
    alive = len(state.sessions["live"])
    if alive > most:
        return alive, state.at
    return (None, None) if state.sessions["requested"] == 0 else (most, when)


def targets(config: dict[str, Any]) -> dict[str, float | None]:
    """Category -> its target share, normalised over those that have one; None where it has none."""
    stated = {name: settings["target"] for name, settings in config["categories"].items()}
    total = sum(target for target in stated.values() if target is not None)
    return {
        name: target / total if target is not None and total else None for name, target in stated.items()
    }


def categories(
    state: State, now: int, window: int | None = None, only: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """One line per configured category: what it got in a window (the allocation window), against its target.

    `only`: lines of these alone, for who asks at every event of a log.
    """
    config = state.control["config"]
    if config is None:
        return []
    counts = counted(state, now, round(config["window"] * 1_000_000) if window is None else window)
    total = sum(counts.get(name, (0, 0.0))[0] for name in config["categories"])
    wanted = targets(config)
    live = Counter(session["category"] for session in state.sessions["live"].values())
    lines = []
    for name in config["categories"]:
        if only is not None and name not in only:
            continue
        supply = feedback.supply(state, config, name, now)
        spawned, seconds = counts.get(name, (0, 0.0))
        share = spawned / total if total else None
        target = wanted[name]
        last = state.allocation["last_started"].get(name)
        ratio = share / target if share is not None and target else None
        enough = target is not None and target * total >= ENOUGH
        cooling = cooldown_until(state, name, now)
        lines.append(
            {
                "name": name,
                "target": target,
                "spawned": spawned,
                "minutes": round(seconds / 60, 2),
                "share": share,
                "ratio": ratio,
                "entitlement": None if target is None else target * total,
                "enough_data": enough,
                "over_allocated": enough and ratio is not None and ratio > OVER,
                "neglected": supply != "none" and owed(state, name, target) > NEGLECT,
                "supply": supply,
                "live": live[name],
                "last_started_at": last[0] if last else None,
                "cooldown_until": None if cooling is None else to_text(cooling),
                **_feedback(state, config, name, now),
            }
        )
    return lines


def owed(state: State, name: str, target: float | None) -> float:
    """How much of the starts since its last one would have been a category's: the gap times its target."""
    last = state.allocation["last_started"].get(name)
    gap = state.allocation["total"] - (last[1] if last else 0)
    return 0.0 if target is None else gap * target


def neglected(state: State, now: int) -> set[str]:
    """The categories that are owed more than NEGLECT starts and are not known to be without work."""
    config = state.control["config"]
    if config is None:
        return set()
    return {
        name
        for name, target in targets(config).items()
        if owed(state, name, target) > NEGLECT and feedback.supply(state, config, name, now) != "none"
    }


def _feedback(state: State, config: dict[str, Any], name: str, now: int) -> dict[str, Any]:
    """What a category's gate said last, however long ago, and until when it backs off or waits after `blocked`."""
    asked = state.supply["gates"].get(name) if config["categories"][name]["gate"] else None
    back, wait = feedback.backoff(state, config, name, now), feedback.wait(state, config, name, now)
    return {
        "gate": None if asked is None else asked["answer"],
        "gate_at": None if asked is None else asked["at"],
        "gate_exit_code": None if asked is None else asked["exit_code"],
        "backoff_until": None if back is None else to_text(back.until),
        "blocked_until": None if wait is None else to_text(wait.until),
    }


def window_truncated(state: State, now: int, window: int) -> bool:
    """Whether the allocation window reaches further back than the fold remembers."""
    return window > EXACT and truncated(state.allocation["hours"], now, window)


def selection(state: State, now: int, window: int) -> dict[str, Any]:
    """The last answer, and in the window: starts by rule, granted and why not, followed, starts that no ranking asked
    for. `ignored`: starts beside a readable answer that did not name them, and names of one that no decision heard."""
    first, last_hour = first_hour(now, window), first_hour(now, 0)
    sums = {"granted": 0, "granted_of": 0, "followed": 0, "followed_of": 0, "ignored": 0}
    rules: dict[str, int] = {}
    losses: dict[str, int] = {}
    for hour, cell in state.selection["hours"].items():
        if first <= hour <= last_hour:
            for name in sums:
                sums[name] += cell[name]
            for found, counts in ((rules, cell["rules"]), (losses, cell["losses"])):
                for word, count in counts.items():
                    found[word] = found.get(word, 0) + count
    last = state.selection["last"]
    return {
        "tier": last["tier"] if last else None,
        "at": last["at"] if last else None,
        "rejected": last["rejected"] if last else False,
        "reason": last["reason"] if last else None,
        "rules": rules,
        "intent_lost": intent_lost(state, now, window),
        "ignored": sums["ignored"] + sum(losses.get(reason, 0) for reason in UNHEARD),
        "granted": {"count": sums["granted"], "of": sums["granted_of"]},
        "losses": dict(sorted(losses.items(), key=lambda item: (-item[1], item[0]))),
        "followed": {"count": sums["followed"], "of": sums["followed_of"]},
    }


def intent_lost(state: State, now: int, window: int) -> int:
    """Starts in the window that no ranking asked for."""
    first, last = first_hour(now, window), first_hour(now, 0)
    return sum(cell["lost"] for hour, cell in state.selection["hours"].items() if first <= hour <= last)


def never_started(state: State, now: int) -> tuple[Fire, dict[str, str]] | None:
    """The last fire whose choices are settled, if loop itself failed to start any: it, and category -> how.

    A choice is settled once it was started, or came to nothing, or has been under way for longer than a session of it
    may run and a period besides: a `before` hook takes its time. What a session's own command, hook or directory
    spoiled, and a prompt that is gone, is not loop's and has a problem of its own.
    """
    config = state.control["config"]
    if config is None:
        return None
    for fire in reversed(state.selection["fires"].values()):
        at = to_micros(fire["at"])
        if now <= at:  # at the position of a decision: what it grants follows in the same transaction, at the same time
            continue
        choices = {**fire["wanted"], **fire["others"]}
        acted = {name: how for name, how in choices.items() if how in (GRANTED, STARTING) or how in UNACTED}
        waited = now - at - schedule.period(config, at) if STARTING in acted.values() else 0
        failed = {
            name: how
            for name, how in acted.items()
            if how in UNACTED or (how == STARTING and waited > _timeout(config, name))
        }
        if failed:
            return fire, failed
        if acted and STARTING not in acted.values():
            return None
    return None


def _timeout(config: dict[str, Any], name: str) -> int:
    settings = config["categories"].get(name)
    return 0 if settings is None else round(settings["timeout"] * 1_000_000)


def host(state: State, now: int) -> list[dict[str, Any]] | None:
    """The bounds of `[host]` and what was measured; None where nothing was, or too long ago to count."""
    config, last = state.control["config"], state.host["last"]
    if config is None or last is None or not feedback.counts(config, now - to_micros(last["at"])):
        return None
    return [measure._asdict() for measure in feedback.host(state, config, now)]


def next_fire(state: State, now: int) -> int | None:
    """The next nominal instant, if anybody is there to fire: a recorded controller, or a timer fire lately."""
    config = state.control["config"]
    if config is None:
        return None
    due = state.control["awaited"] is not None and silent_since(state, now) is None
    return schedule.next_fire(config, now) if due or state.control["controller"] is not None else None


def silent_since(state: State, now: int) -> str | None:
    """Since when no timer has fired, if for more than two periods; None while one does, or nobody is there to fire, or
    the whole loop is restrained: then no fire is due.

    It is counted from the last fire, or since a controller or a timer came up that never fired.
    """
    config, since = state.control["config"], state.control["awaited"]
    if config is None or since is None or "all" in restraints(state, now):
        return None
    return since if now > schedule.later(config, to_micros(since), SILENT_PERIODS) else None
