"""The loop itself: its mode, the config in force, the pass under way, the last fire, the controller."""

from __future__ import annotations

from typing import Any, TypedDict

from events.envelope import Event
from events.lifecycle import LOOP
from projections import fires
from projections.fold import Handlers, keep_recent


class Mode(TypedDict):
    mode: str  # paused, draining or frozen
    until: str | None
    since: str


class Pass(TypedDict):
    id: str | None
    at: str
    trigger: str
    nominal: str | None
    missed: int
    ended: str | None  # the session whose end brought a session-end pass
    started: int


class Request(TypedDict):
    tick: str | None
    action: str
    category: str | None
    task: str | None
    backend: str | None


class Control(TypedDict):
    store: str
    config: dict[str, Any] | None
    modes: dict[str, Mode]  # "all", "category:code", "backend:opus"
    current: Pass | None  # the newest pass
    last: Pass | None  # the newest that was no session-end pass
    served: list[str]  # sessions whose end had its pass
    request: Request | None
    fires: dict[str, str]  # timer -> its last used nominal instant
    used: dict[str, list[list[str]]]  # timer -> spans of used instants, see projections.fires
    last_timer: str | None  # when a timer last fired
    awaited: str | None  # since when the next fire is awaited; None while nobody is there to fire
    invalid_config: str | None  # since when, until the next good pass
    skipped: dict[str, int]
    controller: dict[str, Any] | None
    clock: dict[str, Any] | None  # boot, boottime, awake and wall time of one instant


SERVED_KEPT = 64


def initial() -> Control:
    return Control(
        store="",
        config=None,
        modes={},
        current=None,
        last=None,
        served=[],
        request=None,
        fires={},
        used={},
        last_timer=None,
        awaited=None,
        invalid_config=None,
        skipped={},
        controller=None,
        clock=None,
    )


def migrated(state: Control, event: Event) -> None:
    state["store"] = event.data["store"]


def configured(state: Control, event: Event) -> None:
    state["config"] = event.data


def _scope(event: Event) -> str:
    scope, name = event.data["scope"], event.data["name"]
    return scope if name is None else f"{scope}:{name}"


def restrained(state: Control, event: Event) -> None:
    """The newest restraint counts, but beside a freeze whichever lasts longer: a pause that runs out must not thaw."""
    scope, until = _scope(event), event.data["until"]
    known = state["modes"].get(scope)
    if known is not None and known["until"] is not None and known["until"] <= event.at:
        known = None  # it has run out
    mode = LOOP["running" if known is None else known["mode"], event.type]
    since = event.at
    if known is not None and mode == "frozen":
        until = None if None in (known["until"], until) else max(known["until"], until)
        since = known["since"] if known["mode"] == "frozen" else since
    state["modes"][scope] = Mode(mode=mode, until=until, since=since)


def resumed(state: Control, event: Event) -> None:
    scope = _scope(event)
    if scope == "all":
        state["modes"].clear()
    else:
        state["modes"].pop(scope, None)


def tick_started(state: Control, event: Event) -> None:
    data = event.data
    started: Pass = {
        "id": event.tick,
        "at": event.at,
        "trigger": data["trigger"],
        "nominal": data["nominal"],
        "missed": data["missed"],
        "ended": data["ended"],
        "started": 0,
    }
    state["current"] = started
    state["request"] = None
    state["invalid_config"] = None
    if data["ended"] is not None:
        keep_recent(state["served"], data["ended"], SERVED_KEPT)
    if data["trigger"] != "session_end":
        state["last"] = started.copy()
    if data["timer"] is not None:
        state["fires"][data["timer"]] = data["nominal"]
        fires.note(state["used"].setdefault(data["timer"], []), data["nominal"], data["missed"])
        state["last_timer"] = state["awaited"] = event.at
    state["clock"] = {
        "boot": data["boot"], "boottime": data["boottime"], "awake": data.get("awake"), "at": event.at,
    }  # fmt: skip


RESTRAINED = ("paused", "draining", "frozen")  # a fire that came, and that somebody does not want


def tick_skipped(state: Control, event: Event) -> None:
    reason = event.data["reason"]
    if event.data["trigger"] == "timer" and reason in RESTRAINED:
        state["last_timer"] = state["awaited"] = event.at
    state["skipped"][reason] = state["skipped"].get(reason, 0) + 1
    if reason == "invalid_config" and state["invalid_config"] is None:
        state["invalid_config"] = event.at


def operator_requested(state: Control, event: Event) -> None:
    data = event.data
    if data["action"] == "timer_install":
        state["awaited"] = event.at
        return
    if data["action"] == "timer_remove":
        state["awaited"] = None if state["controller"] is None else state["awaited"]
        return
    state["request"] = Request(
        tick=event.tick,
        action=data["action"],
        category=event.category,
        task=data["task"],
        backend=data["backend"],
    )


def session_started(state: Control, event: Event) -> None:
    for known in (state["current"], state["last"]):
        if known is not None and known["id"] == event.tick:
            known["started"] += 1


def controller_started(state: Control, event: Event) -> None:
    data = event.data
    state["controller"] = {
        "pid": data["pid"],
        "start": data["start"],
        "boot": data["boot"],
        "at": event.at,
    }
    state["awaited"] = event.at


def controller_stopped(state: Control, event: Event) -> None:
    if state["controller"] is not None and state["controller"]["pid"] == event.data["pid"]:
        state["controller"] = None
        state["awaited"] = None  # until a timer fires again


def stepped(state: Control, event: Event) -> None:
    state["clock"] = None  # the next pass takes a new bearing
    if state["awaited"] is not None and state["awaited"] > event.at:
        state["awaited"] = event.at  # or a clock that had been ahead would hide that nobody fires


HANDLERS: Handlers = {
    "store.migrated": migrated,
    "loop.configured": configured,
    "loop.paused": restrained,
    "loop.draining": restrained,
    "loop.frozen": restrained,
    "loop.resumed": resumed,
    "tick.started": tick_started,
    "tick.skipped": tick_skipped,
    "operator.requested": operator_requested,
    "session.started": session_started,
    "controller.started": controller_started,
    "controller.stopped": controller_stopped,
    "clock.stepped": stepped,
}
