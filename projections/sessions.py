"""Who lives: sessions requested and not at their end, the last ends, the peak, and how often the loop starts one."""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from projections.fold import RECENT, Handlers, Hours, bucket, keep_exact, keep_recent


class Live(TypedDict):
    category: str
    task: str
    backend: str
    pool: str
    keys: list[str]
    token: int
    chain: int
    rule: str
    trigger: str
    tick: str | None
    granter: list[Any]  # [pid, start, boot] of the process that granted it, and that may yet start it
    requested_at: str
    deadline: str
    status: str
    started_at: str | None
    pid: int | None
    start: int | None
    shim_pid: int | None
    shim_start: int | None
    boot: str | None
    warned: list[str]
    stopping: str | None


class Ended(TypedDict):
    id: str
    category: str
    task: str
    backend: str
    outcome: str
    reason: str | None
    grade: float | None
    seconds: float | None
    exit_code: int | None
    signal: int | None
    chain: int
    ended_at: str


class Sessions(TypedDict):
    granter: list[Any]
    live: dict[str, Live]
    recent: list[Ended]
    peaks: Hours  # hour -> [most live at once, when]
    requests: Hours  # hour -> how many were requested
    exact: list[list[Any]]  # [time] of the last requests
    requested: int
    started: int
    ended: int


def initial() -> Sessions:
    return Sessions(granter=[], live={}, recent=[], peaks={}, requests={}, exact=[], requested=0, started=0, ended=0)


def tick_started(state: Sessions, event: Event) -> None:
    state["granter"] = [event.data["pid"], event.data["start"], event.data["boot"]]


def requested(state: Sessions, event: Event) -> None:
    assert event.session is not None
    assert event.category is not None
    data = event.data
    state["live"][event.session] = {
        "category": event.category,
        "task": data["task"],
        "backend": data["backend"],
        "pool": data["pool"],
        "keys": data["keys"],
        "token": event.position,
        "chain": data["chain"],
        "rule": data["rule"],
        "trigger": data["trigger"],
        "tick": event.tick,
        "granter": state["granter"],
        "requested_at": event.at,
        "deadline": data["deadline"],
        "status": "requested",
        "started_at": None,
        "pid": None,
        "start": None,
        "shim_pid": None,
        "shim_start": None,
        "boot": None,
        "warned": [],
        "stopping": None,
    }
    state["requested"] += 1
    requests, at = state["requests"], event.at
    requests[at[:13]] = bucket(requests, at, int) + 1
    keep_exact(state["exact"], [at])
    _note_peak(state, at)


def started(state: Sessions, event: Event) -> None:
    live = state["live"].get(event.session or "")
    if live is None:
        return
    data = event.data
    live["status"] = "started"
    live["started_at"] = event.at
    live["pid"], live["start"] = data["pid"], data["start"]
    live["shim_pid"], live["shim_start"], live["boot"] = data["shim_pid"], data["shim_start"], data["boot"]
    state["started"] += 1


def warned(state: Sessions, event: Event) -> None:
    live = state["live"].get(event.session or "")
    if live is not None and event.data["why"] not in live["warned"]:
        live["warned"].append(event.data["why"])


def stopping(state: Sessions, event: Event) -> None:
    live = state["live"].get(event.session or "")
    if live is not None:
        live["stopping"] = event.data["why"]


def ended(state: Sessions, event: Event) -> None:
    data = event.data
    _end(state, event, data["outcome"], data["reason"])


def lost(state: Sessions, event: Event) -> None:
    _end(state, event, "lost", event.data["why"])


def spawn_failed(state: Sessions, event: Event) -> None:
    _end(state, event, "refused", event.data["code"])


def graded(state: Sessions, event: Event) -> None:
    for item in state["recent"]:
        if item["id"] == event.session:
            item["grade"] = event.data["grade"]


def _end(state: Sessions, event: Event, outcome: str, reason: str | None) -> None:
    _note_peak(state, event.at)  # before it goes: a session that outlives an hour counts in every hour it touches
    live = state["live"].pop(event.session or "", None)
    if live is None:
        return
    data = event.data
    state["ended"] += 1
    item: Ended = {
        "id": event.session or "",
        "category": live["category"],
        "task": live["task"],
        "backend": live["backend"],
        "outcome": outcome,
        "reason": reason,
        "grade": data.get("grade"),
        "seconds": data.get("seconds"),
        "exit_code": data.get("exit_code"),
        "signal": data.get("signal"),
        "chain": live["chain"],
        "ended_at": event.at,
    }
    keep_recent(state["recent"], item, RECENT)


def _note_peak(state: Sessions, at: str) -> None:
    count = len(state["live"])
    peak = bucket(state["peaks"], at, _no_peak)
    if count > peak[0]:
        peak[:] = count, at


def _no_peak() -> list[Any]:
    return [-1, ""]


HANDLERS: Handlers = {
    "tick.started": tick_started,
    "session.requested": requested,
    "session.started": started,
    "session.warned": warned,
    "session.stopping": stopping,
    "session.ended": ended,
    "session.lost": lost,
    "session.spawn_failed": spawn_failed,
    "session.graded": graded,
}
