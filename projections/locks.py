"""Who holds which key under which token, and every sign that two ever held one key at once.

The verdict never rests on the controller's belief: it compares the physical intervals that the shims measured on the
boot clock, the live sessions that name a key, the acquires, and the tokens; each finding counts once per key and later
token.
"""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections import foreign
from projections.fold import RECENT, Handlers, keep_recent

INTERVALS_KEPT = 8  # per key; a session cannot overlap one that ended eight holders ago without overlapping a later one
FINDINGS_KEPT = 256


class Held(TypedDict):
    session: str
    token: int
    since: str


class Violation(TypedDict):
    position: int
    at: str
    kind: str
    key: str
    token: int
    session: str | None
    recorded: bool  # by whoever saw it; otherwise the fold found it


class Locks(TypedDict):
    held: dict[str, Held]
    claims: dict[str, dict[str, int]]  # key -> live sessions that were granted it -> their tokens
    last_token: dict[str, int]
    intervals: dict[str, list[list[Any]]]  # key -> [boot, from_ns, to_ns, token]
    acquired: int
    violations: int
    items: list[Violation]
    found: list[list[Any]]  # [key, later token] already counted
    foreign: foreign.Foreign


def initial() -> Locks:
    return Locks(
        held={}, claims={}, last_token={}, intervals={}, acquired=0, violations=0, items=[], found=[],
        foreign=foreign.initial(),
    )  # fmt: skip


def requested(state: Locks, event: Event) -> None:
    assert event.session is not None
    for key in event.data["keys"]:
        claims = state["claims"].setdefault(key, {})
        if claims:
            _violation(state, event, "two_live_sessions", key, event.position)
        claims[event.session] = event.position


def acquired(state: Locks, event: Event) -> None:
    data = event.data
    key, token = data["key"], data["token"]
    if data["imported"]:
        if data["foreign"] is not None:
            state["acquired"] += 1
            if foreign.acquired(state["foreign"], event):
                _violation(state, event, "foreign_overlap", key, token)
        return
    state["acquired"] += 1
    before = state["last_token"].get(key, 0)
    latest = state["last_token"][key] = max(token, before)
    if key in state["held"]:
        _violation(state, event, "acquired_while_held", key, latest)
    elif token <= before:
        _violation(state, event, "overtaken_token", key, latest)
    state["held"][key] = {"session": event.session or "", "token": token, "since": event.at}


def released(state: Locks, event: Event) -> None:
    data = event.data
    key, token = data["key"], data["token"]
    if data["imported"]:
        foreign.released(state["foreign"], event)
        return
    held = state["held"].get(key)
    if held is not None and held["token"] == token:
        del state["held"][key]
    elif token < (latest := state["last_token"].get(key, 0)):
        _violation(state, event, "overtaken_token", key, latest)


def ended(state: Locks, event: Event) -> None:
    session = event.session or ""
    for key in [key for key, claims in state["claims"].items() if session in claims]:
        token = state["claims"][key].pop(session)
        if not state["claims"][key]:
            del state["claims"][key]
        if interval := event.data["held"].get(key):
            _check_interval(state, event, key, token, interval)


def detected(state: Locks, event: Event) -> None:
    data = event.data
    if data["key"] is not None:
        _violation(state, event, data["kind"], data["key"], data["token"] or event.position)


def _check_interval(state: Locks, event: Event, key: str, token: int, interval: dict[str, Any]) -> None:
    boot, begin, end = interval["boot"], interval["from_ns"], interval["to_ns"]
    known = state["intervals"].setdefault(key, [])
    for other_boot, other_begin, other_end, other_token in known:
        if begin < other_end and other_begin < end and boot == other_boot:
            _violation(state, event, "intervals_overlap", key, max(token, other_token))
    keep_recent(known, [boot, begin, end, token], INTERVALS_KEPT)


def _violation(state: Locks, event: Event, kind: str, key: str, token: int) -> None:
    if [key, token] in state["found"]:
        return
    keep_recent(state["found"], [key, token], FINDINGS_KEPT)
    state["violations"] += 1
    item = Violation(
        position=event.position, at=event.at, kind=kind, key=key, token=token, session=event.session,
        recorded=event.type == "violation.detected",
    )  # fmt: skip
    keep_recent(state["items"], item, RECENT)


HANDLERS: Handlers = {
    "session.requested": requested,
    "lock.acquired": acquired,
    "lock.released": released,
    "session.ended": ended,
    "session.lost": ended,
    "session.spawn_failed": ended,
    "violation.detected": detected,
}
