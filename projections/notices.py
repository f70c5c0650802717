"""What somebody should be told of, by kind and subject, and what they were told: bounded, whatever is never told."""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import Handlers, keep_recent
from projections.spending import scopes_of

SUBJECTS_KEPT = 128  # kinds and subjects raised; of more the longest unheard of goes
SENT_KEPT = 32  # times of the last attempts, for the rate limit
RESTRAINTS = frozenset({"paused", "draining", "frozen", "stopped", "invalid_config"})


class Raised(TypedDict):
    kind: str
    subject: str
    position: int  # of the newest event that raised it
    at: str
    times: int  # since it was last told
    detail: dict[str, Any]


class Told(TypedDict):
    position: int  # up to which it was told
    at: str
    failed: bool


class Notices(TypedDict):
    raised: dict[str, Raised]  # "violation code"
    told: dict[str, Told]
    attempts: list[str]
    invalid: bool  # the config, since the last good pass: one notice for all the fires that it costs
    excused: list[str]  # fires that were skipped for a reason since the last used one
    granted: dict[str, int]  # "category:code", "backend:opus", "pool:max" -> token of its last session


def initial() -> Notices:
    return Notices(raised={}, told={}, attempts=[], invalid=False, excused=[], granted={})


def key_of(kind: str, subject: str) -> str:
    return f"{kind} {subject}"


def _raise(state: Notices, event: Event, kind: str, subject: str, detail: dict[str, Any]) -> None:
    key = key_of(kind, subject)
    known = state["raised"].pop(key, None)  # the newest last
    state["raised"][key] = Raised(
        kind=kind,
        subject=subject,
        position=event.position,
        at=event.at,
        times=1 if known is None else known["times"] + 1,
        detail=detail,
    )
    _bound(state["raised"])


def _bound(kept: dict[str, Any]) -> None:
    if len(kept) > SUBJECTS_KEPT:
        del kept[next(iter(kept))]


def detected(state: Notices, event: Event) -> None:
    _raise(state, event, "violation", event.data["key"] or event.data["kind"], {"kind": event.data["kind"]})


def frozen(state: Notices, event: Event) -> None:
    scope, name = event.data["scope"], event.data["name"]
    _raise(state, event, "frozen", scope if name is None else f"{scope} {name}", {"because": event.data["because"]})


def limited(state: Notices, event: Event) -> None:
    _raise(state, event, "pool_limited", event.data["pool"], {"until": event.data["until"]})


def requested(state: Notices, event: Event) -> None:
    granted, token = state["granted"], event.position
    for scope in scopes_of(event):
        granted.pop(scope, None)  # the newest last
        granted[scope] = token
        _bound(granted)


def lost(state: Notices, event: Event) -> None:
    _raise(state, event, "session_lost", event.category or "", {"session": event.session, "why": event.data["why"]})


def rejected(state: Notices, event: Event) -> None:
    _raise(state, event, "pass_failed", "selector", {"reason": event.data["reason"]})


def tick_skipped(state: Notices, event: Event) -> None:
    reason, nominal = event.data["reason"], event.data["nominal"]
    if reason in RESTRAINTS and nominal is not None and nominal not in state["excused"]:
        keep_recent(state["excused"], nominal, SUBJECTS_KEPT)
    if reason == "invalid_config" and not state["invalid"]:
        state["invalid"] = True
        _raise(state, event, "pass_failed", "config", {"reason": reason})


def tick_started(state: Notices, event: Event) -> None:
    state["invalid"] = False
    if event.data["timer"] is not None:
        excused = sum(nominal < event.data["nominal"] for nominal in state["excused"])
        missed = event.data["missed"] - excused
        state["excused"] = []
        if missed > 0:
            _raise(state, event, "fire_missed", event.data["timer"], {"missed": missed})


def _attempt(state: Notices, event: Event, *, failed: bool) -> None:
    keep_recent(state["attempts"], event.at, SENT_KEPT)
    data = event.data
    upto, subject = data["about"] or 0, data["subject"]
    if subject is None:  # many at once, or of a release that named no subject
        told = [key for key, raised in state["raised"].items() if not failed and raised["position"] <= upto]
    else:
        told = []
    for key in [*told, key_of(data["kind"], subject or "")]:
        state["told"].pop(key, None)
        state["told"][key] = Told(position=upto, at=event.at, failed=failed)
        _bound(state["told"])
        if not failed and key in state["raised"] and state["raised"][key]["position"] <= upto:
            del state["raised"][key]


def sent(state: Notices, event: Event) -> None:
    _attempt(state, event, failed=False)


def failed(state: Notices, event: Event) -> None:
    _attempt(state, event, failed=True)


HANDLERS: Handlers = {
    "violation.detected": detected,
    "loop.frozen": frozen,
    "backend.limited": limited,
    "session.requested": requested,
    "session.lost": lost,
    "selection.rejected": rejected,
    "tick.skipped": tick_skipped,
    "tick.started": tick_started,
    "notice.sent": sent,
    "notice.failed": failed,
}
