"""The names of the expression language: what kind each is, how a State gives it, and when it can change.

A name states which events of which projections it rests on (`folds`), so that a scan of the log folds and reads those
alone, and the instants at which time by itself can change it. An instant too many costs an evaluation; one too few
would be an error, which the tests look for with the whole status object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from events.envelope import to_micros, to_text
from events.lifecycle import SESSION_ENDS
from loop.status import DEFAULT_WINDOW, categories, credit, mode
from projections import backends, feedback, figures, ledger, locks, pools, selection, supply, view
from projections.fold import EXACT, HOUR
from projections.state import State

Kind = Literal["number", "text", "time", "none"]
Folds = Mapping[str, frozenset[str]]  # projection -> the types of event that the name rests on
Table = Mapping[str, Mapping[str, Any]]
Instants = Callable[[State, str, int, int], Iterable[int]]
Load = Callable[[State, int, Collection[str]], Any]
Update = Callable[[dict["Term", Any], State, int], None]

FEW = 48  # hours that are tested one by one; of more, only those that hold something


class Term(NamedTuple):
    """A name in an expression: `live`, or `locks["code"].session` as root, key and field."""

    root: str
    key: str | None = None
    field: str | None = None

    def __str__(self) -> str:
        if self.key is None:
            return self.root
        return f"{self.root}[{json.dumps(self.key, ensure_ascii=False)}].{self.field}"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a name's value comes from.

    `load(state, now, keys)` gives the value of a plain name, and for one with a field rows by key, at least those of
    `keys`; `instants(state, key, after, upto)` the times in (after, upto] at which the value may change with no event;
    `words` all it can be; `quiet` the types that must be folded but never change the value themselves.
    """

    kind: Kind
    folds: Folds
    load: Load
    instants: Instants | None = None
    words: tuple[str, ...] | None = None
    quiet: frozenset[str] = frozenset()


# ── by time alone ─────────────────────────────────────────────────────────────────────────────────────────────────


def _within(after: int, upto: int, times: Iterable[int]) -> Iterator[int]:
    return (time for time in times if after < time <= upto)


def _pauses(state: State, _: str, after: int, upto: int) -> Iterator[int]:
    until = (found["until"] for found in state.control["modes"].values())
    return _within(after, upto, [to_micros(text) for text in until if text is not None])


def _limits(state: State, key: str, after: int, upto: int) -> Iterator[int]:
    return _within(after, upto, pools.instants(state, key))


def _cooldown(state: State, key: str, after: int, upto: int) -> Iterator[int]:
    last = state.outcomes["last"].get(key)
    if last is None:
        return iter(())
    ended = to_micros(last["at"])
    over = view.cooldown_until(state, key, ended)
    return _within(after, upto, (ended,) if over is None else (ended, over))


def _supply(state: State, key: str, after: int, upto: int) -> Iterator[int]:
    config = state.control["config"]
    if config is None or key not in config["categories"]:
        return iter(())
    times = []
    for answered in (state.supply["gates"].get(key), state.supply["lacking"]):
        if answered is not None:
            at = to_micros(answered["at"])
            times += [at, at + round(config["selector"]["max_age"] * 1_000_000) + 1]
    if (block := state.supply["blocks"].get(key)) is not None:
        since = to_micros(block["at"])
        wait = feedback.wait(state, config, key, since)
        times += [since] if wait is None else [since, wait.until]
    return _within(after, upto, times)


def _backoff(state: State, key: str, after: int, upto: int) -> Iterator[int]:
    config = state.control["config"]
    if config is None or key not in config["categories"]:
        return iter(())
    times = {to_micros(end["at"]) for end in state.supply["ends"].get(key, ())}
    found = [feedback.backoff(state, config, key, at) for at in times]
    return _within(after, upto, times | {back.until for back in found if back is not None})


def _window(state: State) -> int:
    config = state.control["config"]
    return DEFAULT_WINDOW if config is None else round(config["window"] * 1_000_000)


def _hours(hours: Mapping[str, Any], window: int, after: int, upto: int) -> Iterator[int]:
    """When a window of whole hours takes in an hour, and when it lets one go."""
    for offset in {0, window % HOUR}:
        first, last = (after - offset) // HOUR + 1, (upto - offset) // HOUR
        if last - first < FEW:
            yield from (hour * HOUR + offset for hour in range(first, last + 1))
        else:
            begins = [to_micros(f"{hour}:00:00Z") for hour in hours]
            yield from _within(after, upto, (begin + wait for begin in begins for wait in (0, HOUR + window)))


def _counted(state: State, _: str, after: int, upto: int) -> Iterator[int]:
    window = _window(state)
    if window > EXACT:
        return _hours(state.allocation["hours"], window, after, upto)
    starts = [to_micros(item[0]) for item in state.allocation["exact"]]
    return _within(after, upto, (start + wait for start in starts for wait in (0, window)))


def _lost(state: State, _: str, after: int, upto: int) -> Iterator[int]:
    return _hours(state.selection["hours"], _window(state), after, upto)


# ── from the state ────────────────────────────────────────────────────────────────────────────────────────────────


def _slots(state: State, now: int, _: Collection[str]) -> int | None:
    config = state.control["config"]
    return None if config is None else int(config["slots"])


def _told(load: Callable[[State, int], Any]) -> Load:
    """What another program's lock history does not tell is missing, as it is in the status."""
    return lambda state, now, _: None if figures.only_locks(state) else load(state, now)


def _categories(state: State, now: int, keys: Collection[str]) -> Table:
    return {line["name"]: line for line in figures.categories(state, now, only=keys)}


def _allotted(state: State, now: int, _: Collection[str]) -> Table:
    return {line["name"]: line for line in categories(state, now)}


def _credits(state: State, now: int, keys: Collection[str]) -> Table:
    config = state.control["config"]
    known = () if config is None else config["categories"]
    return {key: {"credit": credit(state, key)} for key in keys if key in known}


def _backends(state: State, now: int, _: Collection[str]) -> Table:
    found = view.backends(state, now)
    return {
        name: {"state": item.state, "until": None if item.until is None else to_text(item.until)}
        for name, item in found.items()
    }


REQUESTED = frozenset({"session.requested"})
LIVE = REQUESTED | SESSION_ENDS
STARTS = frozenset({"session.started", "session.ended", "session.lost"})
CONFIG: Folds = {"control": frozenset({"loop.configured"})}
MODES = frozenset({"loop.paused", "loop.draining", "loop.frozen", "loop.resumed", "tick.started", "tick.skipped"})

SCALARS: Mapping[str, Source] = {
    "live": Source("number", {"sessions": LIVE}, lambda state, now, _: figures.live(state)),
    "capacity": Source("number", CONFIG, _slots),
    "violations": Source(
        "number", {"locks": frozenset(locks.HANDLERS)}, lambda state, now, _: state.locks["violations"]
    ),
    "noop_rate": Source(
        "number", {"outcomes": LIVE}, lambda state, now, _: figures.noop(state)["rate"], quiet=REQUESTED
    ),
    "mode": Source(
        "text", {"control": MODES}, _told(mode), _pauses, ("running", "paused", "draining", "frozen", "invalid_config")
    ),
    "intent_lost": Source(
        "number",
        {"selection": frozenset(selection.HANDLERS), **CONFIG},
        _told(lambda state, now: figures.intent_lost(state, now, _window(state))),
        _lost,
        quiet=LIVE | {"selection.made", "selection.rejected"},
    ),
}


def _lock(kind: Kind) -> Source:
    taken = {"locks": frozenset({"lock.acquired", "lock.released"})}
    return Source(kind, taken, lambda state, now, _: state.locks["held"])


def _category(kind: Kind, folds: Folds, instants: Instants | None = None) -> Source:
    return Source(kind, {**folds, **CONFIG}, _categories, instants)


def _supplied(kind: Kind, instants: Instants | None = None, words: tuple[str, ...] | None = None) -> Source:
    folds = {"supply": frozenset(supply.HANDLERS), **CONFIG}
    return Source(kind, folds, _categories, instants, words, quiet=LIVE - {"session.ended"})


def _backend(kind: Kind, words: tuple[str, ...] | None = None) -> Source:
    folds = {"backends": frozenset(backends.HANDLERS), "control": CONFIG["control"] | {"store.migrated"}}
    return Source(kind, folds, _backends, _limits, words)


# With the config the fold keeps the window's sum up; without it each figure would add up all hours of it again.
_STARTED: Folds = {"allocation": STARTS | CONFIG["control"]}

INDEXED: Mapping[str, Mapping[str, Source]] = {
    "locks": {"session": _lock("text"), "token": _lock("number"), "since": _lock("time")},
    "category": {
        "ratio": _category("number", _STARTED, _counted),
        "share": _category("number", _STARTED, _counted),
        "target": _category("number", {}),
        "spawned": _category("number", _STARTED, _counted),
        "minutes": _category("number", _STARTED, _counted),
        "enough_data": _category("number", _STARTED, _counted),
        "neglected": _category("number", _STARTED),
        "entitlement": _category("number", _STARTED, _counted),
        "over_allocated": _category("number", _STARTED, _counted),
        "supply": _supplied("text", _supply, ("work", "none", "unknown")),
        "gate": _supplied("text", None, ("work", "no_work", "error")),
        "gate_at": _supplied("time"),
        "gate_exit_code": _supplied("number"),
        "backoff_until": _supplied("time", _backoff),
        "blocked_until": _supplied("time", _supply),
        "live": _category("number", {"sessions": LIVE}),
        "last_started_at": _category("time", _STARTED),
        "cooldown_until": _category("time", {"outcomes": LIVE}, _cooldown),
        "capped": Source("number", {**_STARTED, "sessions": LIVE | STARTS, **CONFIG}, _allotted, _counted),
        "credit": Source("number", {"ledger": frozenset(ledger.HANDLERS), **CONFIG}, _credits),
        "name": _category("text", {}),
    },
    "backend": {"state": _backend("text", ("available", "limited", "unknown")), "until": _backend("time")},
}


def source_of(term: Term) -> Source:
    """Where a term's value comes from."""
    return SCALARS[term.root] if term.field is None else INDEXED[term.root][term.field]


def updater(terms: Iterable[Term]) -> Update:
    """A function that writes the values of `terms` at (state, now) into a dict; what is missing is None."""
    plain: list[tuple[Term, Load]] = []
    tables: dict[Load, list[Term]] = {}
    for term in terms:
        source = source_of(term)
        if term.field is None:
            plain.append((term, source.load))
        else:
            tables.setdefault(source.load, []).append(term)

    keys = {load: frozenset(term.key or "" for term in wanted) for load, wanted in tables.items()}

    def update(values: dict[Term, Any], state: State, now: int) -> None:
        for term, load in plain:
            values[term] = load(state, now, ())
        for load, wanted in tables.items():
            rows = load(state, now, keys[load])
            for term in wanted:
                row = rows.get(term.key or "")
                values[term] = None if row is None else row[term.field or ""]

    return update
