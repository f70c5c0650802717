"""`loop status` as data: CONTRACT's object, from State and an instant alone. Problems come with their command."""

from __future__ import annotations

from typing import Any

from events.envelope import to_text
from loop.availability import spent_budgets
from loop.guard import why_frozen
from loop.output import as_of, clean
from loop.shares import UNIT, Starts, counted
from loop.text import count_of
from loop.words import REJECTIONS, figure
from projections import figures
from projections.state import State
from projections.view import backends, restraints, view

DEFAULT_WINDOW = 48 * 3_600_000_000


def status(state: State, now: int, since: int | None = None) -> dict[str, Any]:
    """The status object at `now` (microseconds); windows begin at `since`, or are as long as the config says.

    Of another program's lock history, what that cannot tell is null, and never zero.
    """
    config = state.control["config"]
    window = DEFAULT_WINDOW if config is None else round(config["window"] * 1_000_000)
    if since is not None:
        window = max(now - since, 1_000_000)
    peak, peak_at = figures.peak(state, now, window)
    fire = figures.next_fire(state, now)
    last = state.control["last"]
    report: dict[str, Any] = {
        "schema": "loop.status/1",
        "as_of": as_of(state.position, to_text(now)),
        "mode": mode(state, now),
        "problems": [],
        "slots": {
            "capacity": config["slots"] if config else None,
            "live": figures.live(state),
            "peak": peak,
            "peak_at": peak_at,
        },
        "locks": [
            {"key": key, "session": lock["session"], "token": lock["token"], "since": lock["since"]}
            for key, lock in sorted(state.locks["held"].items())
        ],
        "violations": {
            "same_lock": state.locks["violations"],
            "of": state.locks["acquired"],
            "items": state.locks["items"],
        },
        "sessions": {"live": _live(state), "recent": state.sessions["recent"][::-1]},
        "noop": figures.noop(state),
        "backends": _backends(state, now),
        "categories": categories(state, now, window),
        "selection": figures.selection(state, now, window),
        "last_tick": None
        if last is None
        else {"id": last["id"], "at": last["at"], "trigger": last["trigger"], "started": last["started"]},
        "next_fire": None if fire is None else to_text(fire),
        "host": figures.host(state, now),
        "restraints": {
            scope: {"mode": found.mode, "until": None if found.until is None else to_text(found.until)}
            for scope, found in restraints(state, now).items()
        },
        "window": {"seconds": window // 1_000_000, "truncated": figures.window_truncated(state, now, window)},
    }
    report["problems"] = problems(state, now, report)
    if (foreign := figures.foreign(state)) is not None:
        report["foreign"] = foreign
        if figures.only_locks(state):
            unknown(report)
    return report


def unknown(report: dict[str, Any]) -> None:
    """Empty every field that a lock history says nothing of."""
    report["mode"] = None
    report["noop"] = dict.fromkeys(report["noop"])
    report["backends"] = {"available": None, "total": None, "items": []}
    report["selection"].update(rules=None, rejected=None, intent_lost=None, ignored=None, losses=None)
    for ratio in ("granted", "followed"):
        report["selection"][ratio] = {"count": None, "of": None}


def mode(state: State, now: int) -> str:
    """`running`, `paused`, `draining`, `frozen`, or `invalid_config` until the next good pass."""
    if state.control["invalid_config"] is not None:
        return "invalid_config"
    restraint = restraints(state, now).get("all")
    return "running" if restraint is None else restraint.mode


def problems(state: State, now: int, report: dict[str, Any]) -> list[dict[str, str]]:
    """What is wrong, the worst first, each with the command that explains it."""
    found: list[dict[str, str]] = []

    def add(code: str, text: str, command: str) -> None:
        found.append({"code": code, "text": text, "command": command})

    if count := report["violations"]["same_lock"]:
        add("same_lock", count_of(count, "same-lock violation"), "loop log --type 'lock.*'")
    if report["mode"] == "invalid_config":
        add("invalid_config", "the config is invalid: nothing is started", "loop config check")
    for scope, restraint in report["restraints"].items():
        if restraint["mode"] == "frozen":
            what = "the loop" if scope == "all" else scope.replace(":", " ")
            option = "" if scope == "all" else f" --category {scope.partition(':')[2]}"
            add("frozen", f"{what} is frozen: {why_frozen(state, scope)}", f'loop resume{option} --reason "…"')
    chosen = report["selection"]
    if chosen["rejected"]:
        reason = REJECTIONS.get(chosen["reason"], clean(chosen["reason"]))
        add("selection_rejected", reason, "loop why last")
    if chosen["intent_lost"]:
        lost = count_of(chosen["intent_lost"], "start")
        add("intent_lost", f"{lost} that no ranking asked for", "loop log --type 'selection.*'")
    if chosen["ignored"]:
        ignored = count_of(chosen["ignored"], "time")
        add("intent_ignored", f"{ignored} a readable answer was not followed", "loop verify")
    if (never := figures.never_started(state, now)) is not None:
        fire, how = never
        ways = ", ".join(sorted({*how.values()}))
        text = f"{count_of(len(how), 'choice')} of the fire at {fire['at'][:19]}Z never started: {ways}"
        add("not_started", text, f"loop why {fire['tick']}")
    if (since := figures.silent_since(state, now)) is not None:
        add("fire_missed", f"no fire since {since[:19]}Z, for more than two periods", "loop doctor")
    for line in report["categories"]:
        if line["over_allocated"]:
            text = f"{line['name']} has {line['ratio']:.1f} times its target"
            if line["capped"] is None:
                text += "; nothing caps it: allocation.max_ratio = 1.75 would"
            elif line["capped"]:
                text += "; the cap lets it start no more"
            add("over_allocated", text, f"loop why-not {line['name']}")
    for line in report["categories"]:
        if line["neglected"] and not line["live"]:
            add("neglected", f"{line['name']} is neglected", f"loop why-not {line['name']}")
    total = report["backends"]
    if total["total"] and not total["available"]:
        add("no_backend", "no backend is available", "loop backends")
    for scope, until in spent_budgets(state, now).items():
        text = f"the budget of {scope.replace(':', ' ')} lets nothing start"
        add("budget_spent", text if until is None else f"{text} until {until[:19]}Z", "loop usage")
    for line in report["categories"]:
        if line["gate"] == "error":
            code = line["gate_exit_code"]
            text = f"{line['name']} has a gate that " + ("gave no answer" if code is None else f"exits with {code}")
            add("gate_error", text, f"loop log --json --type gate.answered --category {line['name']}")
    for measure in report["host"] or ():
        if not measure["ok"]:
            code = "host_unmeasured" if measure["value"] is None else "host_busy"
            text = figure(measure["bound_name"], measure["value"], measure["bound"])
            add(code, f"{text}: nothing is started", "loop log --json --type host.measured")
    for session in report["sessions"]["live"]:
        if "silence" in state.sessions["live"][session["id"]]["warned"]:
            add("silent", f"{session['id']} ({session['category']}) is silent", f"loop tail {session['id']}")
    failed = [item for item in state.sessions["recent"] if item["reason"] in SPAWN_PROBLEMS]
    if failed:
        worst = failed[-1]
        text = f"{len(failed)} of the last {len(state.sessions['recent'])} sessions never ran: {worst['reason']}"
        add("spawn_failed", text, f"loop log --session {worst['id']}")
    return found


SPAWN_PROBLEMS = frozenset(
    {
        "command_not_found",
        "not_executable",
        "bad_cwd",
        "before_failed",
        "lock_missing",
        "lock_replaced",
        "launch_failed",
        "argv_too_long",
    }
)


def _live(state: State) -> list[dict[str, Any]]:
    return [
        {
            "id": id,
            "category": live["category"],
            "backend": live["backend"],
            "task": live["task"],
            "started_at": live["started_at"],
            "requested_at": live["requested_at"],
            "pid": live["pid"],
            "token": live["token"],
            "chain": live["chain"],
            "trigger": live["trigger"],
            "rule": live["rule"],
            "deadline": live["deadline"],
            "stopping": live["stopping"],
        }
        for id, live in state.sessions["live"].items()
    ]


def categories(state: State, now: int, window: int | None = None) -> list[dict[str, Any]]:
    """The allocation, with what the next decision would make of it: `capped`, whether one start more would be over the
    cap (null: no cap), and `credit` in slots (null: no ledger). `ratio` is the standing one: as the window moves on it
    can rise without any start, so it can be over what the cap would allow."""
    lines = figures.categories(state, now, window)
    if not lines:
        return []
    seen = view(state, now)
    starts = Starts.of(seen)
    for line in lines:
        category = seen.categories[line["name"]]
        most = starts.most(seen, category)
        line["capped"] = None if most is None else counted(category) + 1 > most
        line["credit"] = credit(state, line["name"])
    return lines


def credit(state: State, name: str) -> float | None:
    """A category's credit in slots; None where the policy in force keeps no ledger."""
    config = state.control["config"]
    fair = config is not None and config["policy"] == "fair"
    return state.ledger["credits"].get(name, 0) / UNIT if fair else None


def _backends(state: State, now: int) -> dict[str, Any]:
    items = [
        {
            "name": backend.name,
            "pool": backend.pool,
            "state": backend.state,
            "until": None if backend.until is None else to_text(backend.until),
            "live": backend.live,
            "paused": backend.paused,
            "because": backend.because,
            "probe_due": bool(backend.trial),
        }
        for backend in backends(state, now).values()
    ]
    return {"available": sum(item["state"] == "available" for item in items), "total": len(items), "items": items}
