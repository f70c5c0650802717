"""`loop doctor --as-timer`: would a fire of the timer unit find its commands, and do its sessions live on after it?"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from events.errors import LoopError
from loop.command import run_bounded
from loop.doctor.check import Check, listed
from loop.home import Home
from loop.timer import linger, systemd
from loop.timer.units import argv_of, name_of, path_of, pinned_path

if TYPE_CHECKING:
    from projections.state import State

KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
SECONDS = 20.0  # for loop to say that the config is valid
LARGEST = 1 << 16  # bytes of what it says
MAKE = "loop timer install; or have cron do it: loop timer show --cron"


def environment(home: Home, environ: Mapping[str, str]) -> dict[str, str]:
    """What a fire of the unit finds: what the user's systemd knows of itself, and the PATH that is pinned, of the unit
    that is installed or else of the one that would be; nothing that a shell's profile sets."""
    service = _installed(home, environ, "service")
    path = path_of(service or "") or pinned_path(environ)
    return {name: environ[name] for name in KEPT if name in environ} | {"PATH": path}


def examine(home: Home, environ: Mapping[str, str], seen: Mapping[str, str], state: State | None) -> list[Check]:
    """All that is about the timer: `environ` is the asker's, `seen` the unit's (see `environment`)."""
    return [_unit(home, environ), _program(home, environ, seen), _linger(), _cgroup(home, environ, state)]


def _unit(home: Home, environ: Mapping[str, str]) -> Check:
    from loop.commands.timer import NOW, timer_of

    name = name_of(home.config)
    try:
        texts = {kind: _installed(home, environ, kind) for kind in ("service", "timer")}
        if missing := [f"{name}.{kind}" for kind, text in texts.items() if text is None]:
            return Check("timer", "warn", f"not installed: {listed(missing)}; this is what would be", MAKE)
        wanted = timer_of(home, environ, path=path_of(texts["service"] or ""))
        stale = [file for file, text in wanted.units().items() if texts[file.rpartition(".")[2]] != text]
    except LoopError as error:
        return Check("timer", "fail", error.message, error.hint)
    known = systemd.properties(f"{name}.timer", systemd.PROPERTIES, environ)
    if not known:
        return Check("timer", "fail", f"{name} is written, and systemd --user does not answer", MAKE)
    following = systemd.following(known) or (NOW if systemd.is_firing(known) else None)
    if known.get("ActiveState") != "active" or following is None:
        state = known.get("ActiveState") or "unknown"
        return Check("timer", "fail", f"{name}.timer is {state} and will not fire", "loop timer install")
    detail = f"{name}.timer fires next: {following}"
    if stale:
        return Check("timer", "warn", f"{detail}; not as loop.toml now says: {listed(stale)}", "loop timer install")
    return Check("timer", "ok", detail)


def _program(home: Home, environ: Mapping[str, str], seen: Mapping[str, str]) -> Check:
    """The unit's own command, asked for nothing but whether it understands the config, in the unit's environment."""
    from loop.commands.timer import program

    argv = list(argv_of(_installed(home, environ, "service") or "")[:-2])  # without `tick --timer`
    argv = [*(argv or [*program(), "--config", str(home.config)]), "config", "check"]
    result = run_bounded(argv, cwd=Path("/"), env=seen, timeout=SECONDS, limit_bytes=LARGEST)
    if not result.ok:
        detail = f"{argv[0]} does not work in the timer's environment: {systemd.said(result)}"
        return Check("timer_program", "fail", detail, "install loop anew, then: loop timer install")
    return Check("timer_program", "ok", f"{argv[0]}, with PATH {seen['PATH']}")


def _linger() -> Check:
    found = linger.lingers()
    if found is None:
        detail = f"systemd does not run here ({linger.BOOTED} is missing), and nothing of its units"
        return Check("linger", "warn", detail, "have cron do it: loop timer show --cron; or: loop run")
    if not found:
        detail = f"{linger.user()} does not linger: at logout the timer ends, and every session with it"
        return Check("linger", "warn", detail, linger.ENABLE)
    return Check("linger", "ok", f"{linger.user()} lingers: the timer needs no login")


def _cgroup(home: Home, environ: Mapping[str, str], state: State | None) -> Check:
    """Where the kernel has put the sessions that live now, and what their unit does to them when it is stopped."""
    live = {} if state is None else state.sessions["live"]
    pids = {id: each["pid"] or each["shim_pid"] for id, each in live.items()}
    places = {id: place for id, pid in pids.items() if (place := cgroup_of(pid)) is not None}
    if not places:
        return Check("cgroup", "warn", "not looked at: no session lives", "ask again while one does")
    unit = f"{name_of(home.config)}.service"
    ours = [id for id, place in places.items() if unit in place.split("/")]
    if ours:
        mode = systemd.properties(unit, ("KillMode",), environ).get("KillMode")
        if mode != "process":
            detail = f"{listed(ours)} in {unit}, whose KillMode is {mode or 'not known'}"
            return Check("cgroup", "fail", f"{detail}: stopping it may end them", "loop timer install")
    problems = [f"{id} is in {words}" for id, place in places.items() if id not in ours and (words := risk(place))]
    if problems:
        return Check("cgroup", "warn", listed(problems, "\n"), "those that the timer unit starts are in its own cgroup")
    return Check("cgroup", "ok", f"looked at {listed(places)}: the end of nothing else ends them")


def cgroup_of(pid: int | None) -> str | None:
    """The path of a process's group in systemd's hierarchy; None where it is gone or there is none."""
    if pid is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return None
    found = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    return found.get("", found.get("name=systemd"))


def risk(place: str) -> str | None:
    """Why the end of something else may end a session whose cgroup this is; None where nothing of the kind is known."""
    leaf = next((part for part in reversed(place.split("/")) if part.endswith((".service", ".scope"))), None)
    if leaf is None or re.fullmatch(r"loop-[a-z0-9-]+\.service", leaf):
        return None
    if re.fullmatch(r"session-\w+\.scope", leaf):
        return f"the login {leaf}: with KillUserProcesses=yes it ends at logout"
    return f"{leaf}: it ends with that, unless its KillMode is process"


def _installed(home: Home, environ: Mapping[str, str], kind: str) -> str | None:
    """The text of our unit of this kind; None too where another's file has its name, which `_unit` says."""
    try:
        return systemd.installed(systemd.directory(environ) / f"{name_of(home.config)}.{kind}")
    except LoopError:
        if kind == "timer":
            raise
        return None
