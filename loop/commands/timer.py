"""`loop timer install|show|remove`: the systemd user units that fire this project, printed before they are written."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import loop
from events.clock import SystemClock
from events.errors import RefusedError
from loop import output
from loop.home import Home
from loop.timer import linger, systemd
from loop.timer.units import Timer, name_of, path_of, pinned_path
from loop.timer.wakes import wakes

NOW = "once the fire that runs now is over"


def timer_of(home: Home, environ: Mapping[str, str], *, path: str | None = None) -> Timer:
    """What would be installed: for the config as it is, with `path` or the PATH of `environ`. Raises ConfigError."""
    from loop.config_file import load

    timer = load(home.config).loop
    schedule = {"every": timer.every, "cron": timer.cron, "timezone": timer.timezone}
    pattern = wakes(schedule, SystemClock().now())
    return Timer(home.config, program(), path or pinned_path(environ), pattern, timer.jitter)


def program() -> tuple[str, ...]:
    """How this loop is called from anywhere: the script beside its Python, or its cli.py where there is none."""
    script = Path(sys.executable).with_name("loop")
    try:
        if "from cli import app" in script.read_text("utf-8", "replace") and os.access(script, os.X_OK):
            return (str(script),)
    except OSError:
        pass
    return (sys.executable, str(Path(loop.__file__).resolve().parent.parent / "cli.py"))


def install(home: Home, environ: Mapping[str, str], *, yes: bool, only_print: bool, as_json: bool) -> int:
    """Print the units; unless `only_print`, ask (or not, with `yes`), write them, and have systemd start the timer.

    Returns 0 once the timer will elapse, and 1 where it will not: then it says what was written and what is left to do.
    Raises ConfigError, RefusedError where a file of somebody else is in the way or nobody can be asked, StoreError.
    """
    from loop.commands.passes import refuse_inside

    timer = timer_of(home, environ)
    place = systemd.directory(environ)
    units = {place / name: text for name, text in timer.units().items()}
    if only_print or not as_json:
        _print_units(units, timer, as_json=as_json, home=home, environ=environ)
    if only_print:
        return 0
    refuse_inside(environ, "timer install")
    before = {path: systemd.installed(path) for path in units}
    if not yes and not _agreed(as_json):
        output.message("nothing was written")
        return 0
    _note(home, environ, "timer_install")
    for path, text in units.items():
        systemd.write(path, text)
    unit = f"{timer.name}.timer"
    steps = [["daemon-reload"], ["enable", "--now", unit]]
    if before[place / unit] is not None:
        steps.append(["restart", unit])  # a running timer keeps the calendar that it was started with
    problem, left = _done(steps, environ)
    known = systemd.properties(unit, systemd.PROPERTIES, environ)
    following = systemd.following(known) or (NOW if systemd.is_firing(known) else None)
    if problem is None and following is None:
        problem, left = "systemd does not say when the timer fires next", [["status", unit]]
    lingers = linger.lingers()
    if as_json:
        output.print_json({**_report(home, environ, timer), "problem": problem, "left": [_argv(step) for step in left]})
    else:
        print(f"wrote {', '.join(output.clean(path) for path in units)}")
        if problem is None:
            print(f"the timer runs; next fire: {output.clean(following or '')}")
    if problem is not None:
        output.message(f"the timer is not running: {problem}")
        for step in left:
            output.message(f"  → {' '.join(_argv(step))}")
    if lingers is False:
        output.message(f"without lingering it ends when you log out, and so do its sessions: {linger.ENABLE}")
    return 0 if problem is None else 1


def show(home: Home, environ: Mapping[str, str], *, cron: bool, as_json: bool) -> int:
    """Print what is installed, how it differs from what would be, and when it fires next. Raises ConfigError."""
    timer = timer_of(home, environ)
    if cron and not as_json:
        print(timer.crontab(_offset()))
        return 0
    report = _report(home, environ, timer)
    if as_json:
        output.print_json(report)
        return 0
    if not report["installed"]:
        print(f"{timer.name}: not installed; see what would be: loop timer install --print")
    elif report["differs"]:
        print(f"{timer.name}: installed, but not what would be installed now; to renew it: loop timer install")
        for unit in report["units"]:
            lines = ((unit["installed"] or "").splitlines(), unit["text"].splitlines())
            for line in difflib.unified_diff(*lines, unit["path"], "now", n=0, lineterm=""):
                print(output.clean(line))
    else:
        print(f"{timer.name}: installed, and up to date")
    if report["installed"]:
        known = report["active"]
        print("systemd does not answer" if known is None else f"systemd says: {output.clean(known)}")
        if report["next"] is not None or report["firing"]:
            print(f"next wake: {output.clean(report['next'] or NOW)}")
    print(f"wakes at {timer.wakes.calendar()}" + ("" if timer.wakes.why is None else f": {timer.wakes.why}"))
    return 0


def remove(home: Home, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Stop and disable the timer, and take its files away; sessions go on. Returns 0, also where there was none.

    Raises RefusedError where the files are somebody else's, StoreError.
    """
    from loop.commands.passes import refuse_inside

    refuse_inside(environ, "timer remove")
    name = name_of(home.config)
    paths = [systemd.directory(environ) / f"{name}.{kind}" for kind in ("timer", "service")]
    there = [path for path in paths if systemd.installed(path) is not None]
    problem, left = None, list[list[str]]()
    if there:
        _note(home, environ, "timer_remove")
        problem, _ = _done([["disable", "--now", f"{name}.timer"]], environ)
        for path in there:
            systemd.remove(path)
        if problem is None:
            problem, left = _done([["daemon-reload"]], environ)
        else:
            left = [["daemon-reload"], ["stop", f"{name}.timer"]]
    if as_json:
        output.print_json(
            {
                "schema": "loop.timer.remove/1",
                "as_of": _as_of(home),
                "name": name,
                "removed": [str(path) for path in there],
                "problem": problem,
                "left": [_argv(step) for step in left],
            }
        )
    else:
        print(f"removed {', '.join(output.clean(path) for path in there)}" if there else f"{name}: not installed")
    if problem is not None:
        output.message(f"systemd was not told: {problem}")
        for step in left:
            output.message(f"  → {' '.join(_argv(step))}")
    return 0


# ── steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _agreed(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise RefusedError("there is nobody to ask whether these units are to be written", "say so: --yes, or --print")
    print("write these files and start the timer? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _note(home: Home, environ: Mapping[str, str], action: Literal["timer_install", "timer_remove"]) -> None:
    """An operator's word goes into the log before it is acted on; from an installation on `status` awaits fires."""
    from events.catalog import OperatorRequested
    from loop.config_file import load
    from loop.controller import Loop
    from loop.passes import configure

    config = load(home.config) if action == "timer_install" else None
    with Loop(home, environ) as held, held.journal.transaction() as entry:
        if config is not None:
            configure(entry, config)
        entry.append(OperatorRequested(action=action, reason=None), actor="operator")


def _done(steps: Sequence[list[str]], environ: Mapping[str, str]) -> tuple[str | None, list[list[str]]]:
    """Have systemd do these, in order, until one fails: (why, what is left to do)."""
    for number, step in enumerate(steps):
        result = systemd.run(step, environ)
        if not result.ok:
            return systemd.said(result), list(steps[number:])
    return None, []


def _argv(step: Sequence[str]) -> list[str]:
    return [*systemd.SYSTEMCTL, *step]


def _print_units(
    units: Mapping[Path, str], timer: Timer, *, as_json: bool, home: Home, environ: Mapping[str, str]
) -> None:
    if as_json:
        output.print_json(_report(home, environ, timer))
        return
    for path, text in units.items():
        print(f"# {output.clean(path)}")
        for line in text.splitlines():
            print(output.clean(line))
        print()


def _report(home: Home, environ: Mapping[str, str], timer: Timer) -> dict[str, Any]:
    """The timer as data; what systemd does not say is null."""
    place = systemd.directory(environ)
    units = []
    for name, text in timer.units().items():
        units.append({"path": str(place / name), "text": text, "installed": systemd.installed(place / name)})
    known = systemd.properties(f"{timer.name}.timer", systemd.PROPERTIES, environ)
    return {
        "schema": "loop.timer/1",
        "as_of": _as_of(home),
        "name": timer.name,
        "installed": all(unit["installed"] is not None for unit in units),
        "differs": any(unit["installed"] not in (None, unit["text"]) for unit in units),
        "calendar": timer.wakes.calendar(),
        "exact": timer.wakes.exact,
        "why": timer.wakes.why,
        "jitter": timer.jitter,
        "cron": timer.crontab(_offset()),
        "path": timer.path,
        "installed_path": path_of(units[0]["installed"] or ""),
        "units": units,
        "active": known.get("ActiveState"),
        "firing": systemd.is_firing(known),
        "next": systemd.following(known),
        "linger": linger.lingers(),
    }


def _offset() -> int:
    """By how many minutes of the hour this machine's zone differs from UTC."""
    return time.localtime().tm_gmtoff // 60 % 60


def _as_of(home: Home) -> dict[str, Any]:
    from events.store import EventLog

    log = EventLog.read(home.db)
    try:
        head = log.head()
    finally:
        log.close()
    return output.as_of(head.position, head.at)
