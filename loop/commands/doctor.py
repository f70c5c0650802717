"""`loop doctor`: is everything in place on this machine, for this config, in this state directory?

Each check is a function that looks and returns a `Check`, and changes nothing; what `--fix` may do about it is the
check's `mend`, called only then. Without `--fix` the store is read, never made, migrated or written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from events.clock import Clock, SystemClock
from events.errors import ConfigError, LoopError
from loop import output
from loop.doctor import answers, backends, guards, holders, machine, outputs, state_directory, work_trees
from loop.doctor import clock as clocks
from loop.doctor import config as configs
from loop.doctor import log as logs
from loop.doctor.check import Check
from loop.home import Home

if TYPE_CHECKING:
    from loop.config import Config

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings, and the head of the log that they are about."""

    checks: tuple[Check, ...]
    position: int
    at: str | None

    @property
    def ok(self) -> bool:
        return all(check.level != "fail" for check in self.checks)


def run(
    home: Home | None,
    *,
    fix: bool,
    as_json: bool,
    as_timer: bool = False,
    error: ConfigError | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> int:
    """Check everything and print a table or one JSON object. Returns 0, or 1 where a check failed; a warning is none.

    Without a `home` only what needs none is checked, and `error` says why there is none. With `fix` what can be mended
    is mended, said, and all of it checked again. With `as_timer` commands are looked for as a fire of the timer unit
    would, and what such a fire needs is checked too.
    """
    environ = os.environ if environ is None else environ
    clock = clock or SystemClock()
    found = examine(home, error, environ, clock, as_timer=as_timer)
    mended = [_mended(check) for check in found.checks if check.mend is not None] if fix else []
    if mended:
        found = examine(home, error, environ, clock, as_timer=as_timer)
    if as_json:
        output.print_json(
            {
                "schema": "loop.doctor/1",
                "as_of": output.as_of(found.position, found.at),
                "ok": found.ok,
                "checks": [check.as_dict() for check in found.checks],
                "mended": mended,
            }
        )
    else:
        _print(found, mended)
    return 0 if found.ok else 1


def examine(
    home: Home | None,
    error: ConfigError | None,
    environ: Mapping[str, str],
    clock: Clock,
    *,
    as_timer: bool = False,
) -> Examination:
    """Every check that applies, in the order they are shown. Changes nothing."""
    checks = [machine.python(), machine.packages(), machine.inside_session(environ)]
    if home is None:
        detail, mend = ("no loop.toml", "run: loop init") if error is None else (error.message, error.hint)
        checks += [machine.sqlite(None), Check("config", "fail", detail, mend)]
        return Examination(tuple(checks), 0, None)
    config, found = configs.valid(home)
    checks += found
    seen = environ
    if as_timer:
        from loop.doctor import timer

        seen = timer.environment(home, environ)
    if config is not None:
        checks += [
            *_selector(config, seen, clock),
            configs.commands(config, seen),
            *backends.examine(config, seen),
            configs.directories(config),
            *configs.git(config, seen),
            answers.feasible(config),
            *work_trees.examine(config),
        ]
    checks += [*state_directory.examine(home, environ)]
    store, log, state = logs.store(home)
    try:
        if as_timer:
            checks += timer.examine(home, environ, seen, state)
        checks += [machine.sqlite(None if log is None else (home, log)), store, state_directory.wal(home)]
        if log is None or state is None:
            return Examination(tuple(checks), 0, None)
        checks += [guards.triggers(home, log)]
        if log.origin is not None:  # what it tells of this machine, if anything, is of another
            return Examination(tuple(checks), state.position, state.at)
        checks += [
            clocks.examine(log, state.at, clock),
            logs.lock_files(home, log, state),
            holders.witnesses(home, log),
            holders.held_locks(home, log, state),
            holders.live_sessions(home, state),
            outputs.run_directories(home, log),
            *([] if config is None else [outputs.kept(home, log, config, clock)]),
            logs.fires(state, clock.now()),
        ]
        return Examination(tuple(checks), state.position, state.at)
    finally:
        if log is not None:
            log.close()


def _selector(config: Config, environ: Mapping[str, str], clock: Clock) -> list[Check]:
    """Whether it is there, and if it is, whether it answers."""
    there = configs.selector(config, environ)
    return [there] if there.level == "fail" else [there, answers.selector(config, environ, clock)]


def _mended(check: Check) -> str:
    assert check.mend is not None
    try:
        return f"{check.name}: {check.mend()}"
    except LoopError as error:
        return f"{check.name}: not mended: {error.message}"
    except OSError as error:
        return f"{check.name}: not mended: {error}"


def _print(found: Examination, mended: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "bold red")}
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in found.checks:
        detail = Text("\n".join(output.clean(line) for line in check.detail.splitlines()))
        if check.fix:
            detail.append(f"\n→ {output.clean(check.fix)}", "cyan")
        table.add_row(Text(*styles[check.level]), Text(check.name.replace("_", " ")), detail)
    console = output.console()
    for line in mended:
        console.print(Text(f"mended {output.clean(line)}"))
    console.print(table)
    failed, warned = (sum(check.level == level for check in found.checks) for level in ("fail", "warn"))
    if failed:
        console.print(Text(f"{failed} of {len(found.checks)} checks failed", "bold red"))
    else:
        console.print(Text("all is well" if not warned else f"all is well, with {warned} to look at", "green"))
