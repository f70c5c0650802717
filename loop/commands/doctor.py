"""`loop doctor`: is everything in place on this machine, for this config, in this state directory?

Each check is a function that looks and returns a `Check`, and changes nothing; what `--fix` may do about it is the
check's `mend`, called only then. Without `--fix` the store is read, never made, migrated or written.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from events.clock import Clock, SystemClock
from events.envelope import short_id, to_micros
from events.errors import ConfigError, LoopError, StoreError
from events.store import EventLog, Filter, sqlite_version, wal_is_safe
from loop import output
from loop.home import Home

if TYPE_CHECKING:
    from loop.config import Config
    from projections.state import State

Level = Literal["ok", "warn", "fail"]

PACKAGES = ("events", "projections", "migrations", "cli")
WAL_LIMIT = 64 << 20  # bytes; the log's write-ahead file is cut back to as much
DISK_LOW, DISK_OUT = 1 << 30, 64 << 20  # bytes free
LISTED = 5  # findings that a detail spells out
NETWORK = re.compile(r"nfs\d?|cifs|smb.*|fuse(?!blk|ctl).*|9p|afs|ceph|lustre|glusterfs|gpfs|beegfs|vboxsf|virtiofs")
FORGETFUL = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `warn` is no failure; `fix` says what a person can do, `mend` does it and says what it did."""

    name: str
    level: Level
    detail: str
    fix: str | None = None
    mend: Callable[[], str] | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.level != "fail",
            "level": self.level,
            "detail": self.detail,
            "fix": self.fix,
        }


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
    error: ConfigError | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Clock | None = None,
) -> int:
    """Check everything and print a table or one JSON object. Returns 0, or 1 where a check failed; a warning is none.

    Without a `home` only what needs none is checked, and `error` says why there is none. With `fix` what can be mended
    is mended, said, and all of it checked again.
    """
    environ = os.environ if environ is None else environ
    clock = clock or SystemClock()
    found = examine(home, error, environ, clock)
    mended = [_mended(check) for check in found.checks if check.mend is not None] if fix else []
    if mended:
        found = examine(home, error, environ, clock)
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


def examine(home: Home | None, error: ConfigError | None, environ: Mapping[str, str], clock: Clock) -> Examination:
    """Every check that applies, in the order they are shown. Changes nothing."""
    checks = [_python(), _packages(), _session(environ)]
    if home is None:
        detail, mend = ("no loop.toml", "run: loop init") if error is None else (error.message, error.hint)
        checks += [_sqlite(None), Check("config", "fail", detail, mend)]
        return Examination(tuple(checks), 0, None)
    config, found = _config(home)
    checks += found
    if config is not None:
        checks += [
            _selector(config, environ),
            _commands(config, environ),
            _directories(config),
            *_git(config, environ),
        ]
    checks += [*_state_directory(home, environ)]
    store, log, state = _store(home)
    try:
        checks += [_sqlite(None if log is None else (home, log)), store, _wal(home)]
        if log is None or state is None:
            return Examination(tuple(checks), 0, None)
        checks += [_lock_files(home, log, state), _run_directories(home, log), _fires(state, clock.now())]
        return Examination(tuple(checks), state.position, state.at)
    finally:
        if log is not None:
            log.close()


def _mended(check: Check) -> str:
    assert check.mend is not None
    try:
        return f"{check.name}: {check.mend()}"
    except LoopError as error:
        return f"{check.name}: not mended: {error.message}"
    except OSError as error:
        return f"{check.name}: not mended: {error}"


# ── the machine ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _python() -> Check:
    detail = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux" or not os.path.exists("/proc/self/environ"):
        mend = "sessions need Linux with /proc; reading works here"
        return Check("platform", "fail", f"{detail}, no /proc", mend)
    return Check("platform", "ok", detail)


def _packages() -> Check:
    """The package names are generic: another distribution's, first on the path, would be imported in their place."""
    import loop

    ours = Path(loop.__file__).resolve().parent.parent
    wrong: list[str] = []
    for name in PACKAGES:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        if spec is None or spec.origin is None:
            wrong.append(f"{name} is not found")
        elif not Path(spec.origin).resolve().is_relative_to(ours):
            wrong.append(f"{name} is {spec.origin}")
    if wrong:
        mend = "install loop into an environment of its own (pipx install, uv tool install)"
        return Check("packages", "fail", f"not ours: {_listed(wrong)}", mend)
    return Check("packages", "ok", f"{', '.join(PACKAGES)} are ours")


def _session(environ: Mapping[str, str]) -> Check:
    if session := environ.get("LOOP_SESSION"):
        detail = f"this is inside session {session}: tick, run and stop refuse"
        return Check("session", "warn", detail, "use a shell that loop did not start")
    return Check("session", "ok", "not inside a session")


def _sqlite(store: tuple[Home, EventLog] | None) -> Check:
    safe = wal_is_safe()
    detail = f"SQLite {sqlite_version()} {'with' if safe else 'without'} the fix for the WAL-reset bug"
    mode = None
    if store is not None and store[0].db.exists():
        log = store[1]
        with contextlib.suppress(StoreError):  # the check of the store says so
            mode = log.journal_mode()
            detail += f", journal mode {mode}"
    mend = "install the pysqlite3 wheel, or a Python with SQLite 3.51.3 or later"
    if not safe and mode == "wal":
        assert store is not None
        return Check("sqlite", "fail", detail, f"loop doctor --fix; and {mend}", _opened(store[0]))
    return Check("sqlite", "ok", detail) if safe else Check("sqlite", "warn", f"{detail}: slower, and safe", mend)


# ── the config ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _config(home: Home) -> tuple[Config | None, list[Check]]:
    from loop.config_file import load
    from loop.config_report import warnings

    try:
        config = load(home.config)
    except ConfigError as error:
        return None, [Check("config", "fail", error.message, error.hint)]
    count = len(config.categories)
    checks = [Check("config", "ok", f"{home.config}, {count} {'category' if count == 1 else 'categories'}")]
    if found := warnings(config):
        checks.append(Check("config_warnings", "warn", "\n".join(found), "mend loop.toml, then: loop config check"))
    return config, checks


def _selector(config: Config, environ: Mapping[str, str]) -> Check:
    if config.selector.command is None:
        return Check("selector", "ok", "builtin")
    problem = _unusable(config.selector.command[0], config.directory, environ)
    if problem:
        return Check("selector", "fail", problem, "mend selector.command; it runs in the directory of loop.toml")
    return Check("selector", "ok", config.selector.command[0])


def _commands(config: Config, environ: Mapping[str, str]) -> Check:
    """The program of every command line; one that a placeholder decides cannot be known before its session."""
    looked, problems = set[str](), dict[str, None]()
    for place, program, cwd, path in _programs(config, environ):
        looked.add(program)
        if problem := _unusable(program, cwd, path):
            problems[f"{place}: {problem}"] = None
    if problems:
        return Check("commands", "fail", _listed(problems, "\n"), "install them, or mend the commands in loop.toml")
    return Check("commands", "ok", f"found: {', '.join(sorted(looked)) or 'none is configured'}")


def _programs(config: Config, environ: Mapping[str, str]) -> Iterator[tuple[str, str, Path | None, Mapping[str, str]]]:
    """(where it stands, program, directory it is started in or None where unknown, environment)."""
    from loop.config_file import session_env

    for name, category in config.categories.items():
        settings = config.session_of(name)
        hooks = {"gate": category.gate, "before": settings.before, "after": settings.after}
        cwd = _fixed(settings.cwd)
        for backend in config.backends_of(name):
            env = dict(environ)
            with contextlib.suppress(ConfigError):  # an env_file that cannot be read is a warning of the config
                env |= session_env(config, name, backend)
            place = f"{name} on {backend}" if len(config.backends) > 1 else name
            program = _fixed(config.command_of(name, backend)[0])
            if program is not None:
                yield place, program, None if cwd is None else Path(cwd), env
            for hook, argv in hooks.items():
                if argv is not None and (program := _fixed(argv[0])) is not None:
                    yield f"{name}, {hook}", program, config.directory, environ if hook == "gate" else env
    for backend, section in config.backends.items():
        if section.command is not None and (program := _fixed(section.command[0])) is not None:
            used = any(backend in config.backends_of(name) for name in config.categories)
            if not used:
                yield f"backend {backend}", program, None, environ


def _directories(config: Config) -> Check:
    places = {cwd for name in config.categories if (cwd := _fixed(config.session_of(name).cwd)) is not None}
    if missing := [cwd for cwd in sorted(places) if not os.path.isdir(cwd)]:
        return Check("cwd", "fail", f"no directory {_listed(missing)}", "make it, or mend cwd in loop.toml")
    return Check("cwd", "ok", _listed(sorted(places)) or "made for each session")


def _git(config: Config, environ: Mapping[str, str]) -> list[Check]:
    from loop.commands.init import work_tree

    wanted = [name for name, category in config.categories.items() if category.evidence == "git"]
    if not wanted:
        return []
    if shutil.which("git", path=environ.get("PATH", os.defpath)) is None:
        detail = f'evidence = "git" in {_listed(wanted)}, and no git on PATH'
        return [Check("git", "fail", detail, "install git, or choose other evidence")]
    fixed = {name: cwd for name in wanted if (cwd := _fixed(config.session_of(name).cwd)) is not None}
    if outside := [f"{name} ({cwd})" for name, cwd in fixed.items() if work_tree(Path(cwd)) is None]:
        detail = f'evidence = "git", but no work tree: {_listed(outside)}'
        return [Check("git", "warn", detail, "no commit can be found there; mend cwd or evidence")]
    return [Check("git", "ok", f"looked at for {_listed(wanted)}")]


def _fixed(template: str) -> str | None:
    """What a template always renders to; None where a placeholder has a say."""
    from loop.command import PLACEHOLDERS, render

    one, other = (render(template, dict.fromkeys(PLACEHOLDERS, letter)) for letter in "ab")
    return one if one == other else None


def _unusable(program: str, cwd: Path | None, environ: Mapping[str, str]) -> str | None:
    """Why a program cannot be started, or None; one with a slash is looked for from `cwd`, others on PATH."""
    if "/" not in program:
        found = shutil.which(program, path=environ.get("PATH", os.defpath))
        return None if found else f"no program {program} on PATH"
    if cwd is None and not os.path.isabs(program):
        return None
    path = (cwd or Path("/")) / program
    if not path.is_file():
        return f"no program {path}" + (" (~ is not expanded in a command)" if program.startswith("~") else "")
    return None if os.access(path, os.X_OK) else f"{path} is not executable; chmod +x is missing"


# ── the state directory ───────────────────────────────────────────────────────────────────────────────────────────────


def _state_directory(home: Home, environ: Mapping[str, str]) -> list[Check]:
    return [_permissions(home), _filesystem(home), _disk(home), _gitignore(home, environ)]


def _permissions(home: Home) -> Check:
    """Directories 0700, files 0600. What sessions write into their run directories is theirs, behind a closed door."""
    if not home.state.is_dir():
        return Check("permissions", "ok", f"{home.state} is not there yet")
    owner = home.state.stat().st_uid
    if owner != os.geteuid():
        detail = f"{home.state} belongs to user {owner}, this is user {os.geteuid()}"
        return Check("permissions", "warn", detail, "run loop as one user")
    wide = {path: mode for path in _ours(home) if (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077}
    if not wide:
        return Check("permissions", "ok", f"{home.state} is closed to others")

    def mend() -> str:
        for path, mode in wide.items():
            path.chmod(mode & ~0o077)
        return f"closed {_listed(map(str, wide))} to others"

    detail = _listed(f"{path} is {mode:04o}" for path, mode in wide.items())
    return Check("permissions", "fail", f"open to others: {detail}", "loop doctor --fix", mend)


def _ours(home: Home) -> Iterator[Path]:
    yield home.state
    for directory in (home.state, home.lock_dir, home.runs_dir):
        with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
            yield from (Path(entry.path) for entry in entries if not entry.is_symlink())


def _filesystem(home: Home) -> Check:
    """SQLite's write-ahead log and flock need a file system of this machine."""
    place = _existing(home.state).resolve()
    kind, point = _mount(place)
    if kind is None:
        return Check("filesystem", "ok", "unknown")
    if NETWORK.fullmatch(kind):
        detail = f"{place} is on {kind} ({point}): locks and the log may not hold there"
        return Check("filesystem", "warn", detail, "name a local directory in loop.state")
    if kind in FORGETFUL:
        detail = f"{place} is on {kind} ({point}): a reboot loses the log"
        return Check("filesystem", "warn", detail, "name a directory on a disk in loop.state")
    return Check("filesystem", "ok", f"{kind} ({point})")


def _mount(place: Path) -> tuple[str | None, str]:
    """(type, mount point) of the file system of a path without links, from mountinfo; (None, "") where unknown."""
    found: tuple[str | None, str] = (None, "")
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
        # Of two on one point the later covers the earlier.
        if place.is_relative_to(point) and len(point) >= len(found[1]):
            found = (after.split()[0], point)
    return found


def _disk(home: Home) -> Check:
    from loop.duration import format_bytes

    usage = shutil.disk_usage(_existing(home.state))
    detail = f"{usage.free / 2**30:.1f} GiB free"
    if usage.free >= DISK_LOW:
        return Check("disk", "ok", detail)
    level: Level = "fail" if usage.free < DISK_OUT else "warn"
    return Check("disk", level, f"{detail}, less than {format_bytes(DISK_LOW)}", "free some space")


def _wal(home: Home) -> Check:
    try:
        size = os.path.getsize(f"{home.db}-wal")
    except OSError:
        size = 0
    if size <= WAL_LIMIT:
        return Check("wal", "ok", f"{size / 2**20:.1f} MiB to be written back")
    detail = f"{home.db}-wal has {size >> 20} MiB: a reader has kept it from being written back"
    return Check("wal", "warn", detail, f"end it, the next pass does the rest: fuser {home.db}")


def _gitignore(home: Home, environ: Mapping[str, str]) -> Check:
    from loop.commands.init import ignore, is_ignored, work_tree

    tree = work_tree(_existing(home.state.parent))
    if tree is None:
        return Check("gitignore", "ok", "the state directory is in no git work tree")
    if not home.state.parent.is_dir() or is_ignored(home.state, environ):
        return Check("gitignore", "ok", f"the state directory is ignored in {tree}")
    detail = f"{home.state} is in the work tree {tree} and not ignored: it could be committed"
    if home.root.is_relative_to(home.state):
        return Check("gitignore", "warn", detail, "name a directory of its own in loop.state")

    def mend() -> str:
        path = ignore(home.state, home.root, environ)
        return f"added {home.state.name}/ to {path}"

    return Check("gitignore", "warn", detail, "loop doctor --fix", mend)


def _existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))


# ── the log ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _store(home: Home) -> tuple[Check, EventLog | None, State | None]:
    """The store read-only and its state at head; nothing of what cannot be had."""
    from events.store import SCHEMA
    from projections import snapshots

    log = None
    try:
        log = EventLog.read(home.db)
        if not home.db.exists():
            return Check("store", "ok", f"{home.db} is not there yet; the first pass makes it"), log, None
        schema = log.schema()
        if damage := log.quick_check():
            detail = f"{home.db} is damaged: {_listed(damage)}"
            return Check("store", "fail", detail, "restore it from a backup"), log, None
        state = snapshots.load(log)
    except LoopError as error:
        return Check("store", "fail", error.message, error.hint), log, None
    except (ValueError, LookupError, TypeError) as error:
        detail = f"{home.db} holds events that cannot be folded: {type(error).__name__} {error}"
        return Check("store", "fail", detail, "look at it: loop log --json"), log, None
    detail = f"{home.db}, at position {state.position}, quick_check ok"
    if schema < SCHEMA:
        detail += f"; schema {schema}, this loop writes {SCHEMA}"
        mend = "the next pass migrates it, or: loop doctor --fix"
        return Check("store", "warn", detail, mend, _opened(home)), log, state
    return Check("store", "ok", detail), log, state


def _opened(home: Home) -> Callable[[], str]:
    """A mend: open the store as every writer does, which migrates it and sets its journal mode."""

    def mend() -> str:
        from loop import __version__

        log = EventLog.open(home.db, release=__version__)
        try:
            return f"{home.db} has the schema and the journal mode of this loop"
        finally:
            log.close()

    return mend


def _lock_files(home: Home, log: EventLog, state: State) -> Check:
    """A key that was ever held must have its lock file; whether it may be made anew, only the machine can tell."""
    from loop.sessions import locks

    held = sorted(key for key, intervals in state.locks["intervals"].items() if intervals)
    paths = {key: locks.path_of(str(home.lock_dir), key) for key in held}
    missing = {key: path for key, path in paths.items() if not os.path.exists(path)}
    if not missing:
        return Check("lock_files", "ok", f"there, for {_listed(held)}" if held else "no key has been held yet")
    store = log.store_id
    known = {key: _holders(state, store, key) for key in missing}

    def mend() -> str:
        said: list[str] = []
        for key, path in missing.items():
            if why := _still_alive(state, key, known[key], path):
                said.append(f"{key} is left alone: {why}")
            else:
                locks.create(str(home.lock_dir), key)
                said.append(f"made {path}")
        return "; ".join(said)

    detail = f"missing though sessions have held the key: {_listed(missing.values())}; nothing starts under it"
    return Check("lock_files", "fail", detail, "once nothing of it runs: loop doctor --fix", mend)


def _holders(state: State, store: str, key: str) -> list[str]:
    """The sessions that held a key, as far back as its intervals are kept, and those that live under it."""
    past = [short_id("s", store, token) for *_, token in state.locks["intervals"].get(key, [])]
    return [*past, *state.locks["claims"].get(key, {})]


def _still_alive(state: State, key: str, sessions: Sequence[str], path: str) -> str | None:
    """Why a key may still be held by somebody, though its lock file is gone; None when two sweeps find nobody."""
    from loop.sessions import proc

    if live := list(state.locks["claims"].get(key, {})):
        return f"session {live[0]} has not ended"
    for _ in range(2):
        for session in sessions:
            if pids := proc.marked(session):
                return f"process {pids[0]} of session {session} lives"
        if (pid := _holder_of_deleted(path)) is not None:
            return f"process {pid} holds the deleted file"
    return None


def _holder_of_deleted(path: str) -> int | None:
    """A process that has the removed file `path` open, and with it perhaps its lock."""
    wanted = f"{os.path.realpath(path)} (deleted)"
    for pid in (int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path) == wanted:
                        return pid
    return None


def _run_directories(home: Home, log: EventLog) -> Check:
    try:
        names = sorted(os.listdir(home.runs_dir))
    except FileNotFoundError:
        names = []
    alien = [name for name in names if not log.select(Filter(session=name), limit=1)]
    if alien:
        detail = f"{len(alien)} in {home.runs_dir} of which the log knows no session: {_listed(alien)}"
        return Check("run_directories", "warn", detail, "was the store replaced? if not, move them away")
    return Check("run_directories", "ok", f"{len(names)}, all of sessions in the log" if names else "none yet")


def _fires(state: State, now: int) -> Check:
    from loop.sessions import proc
    from projections.schedule import period
    from projections.view import restraints

    control = state.control
    config, controller, last = control["config"], control["controller"], control["last_timer"]
    if controller is None:
        ago = "never" if last is None else f"{output.span((now - to_micros(last)) / 1e6)} ago"
        return Check("fires", "ok", f"no controller is recorded as running; the last timer fire: {ago}")
    known = controller["start"] is not None  # who cannot be told from a later process of that pid counts as alive
    if known and not proc.alive(controller["pid"], controller["start"], controller["boot"]):
        detail = f"the controller (pid {controller['pid']}) has ended without a word"
        return Check("fires", "fail", detail, "start it again: loop run")
    if config is None or "all" in restraints(state, now):
        return Check("fires", "ok", "none is due")
    since = max(to_micros(controller["at"]), 0 if last is None else to_micros(last))
    late, wanted = now - since, period(config, now)
    if late > 2 * wanted:
        detail = f"no timer fire for {output.span(late / 1e6)}, though one is due every {output.span(wanted / 1e6)}"
        return Check("fires", "fail", detail, f"is pid {controller['pid']} stuck? stop it, then: loop run")
    return Check("fires", "ok", f"the controller (pid {controller['pid']}) fires in time")


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first few, and how many more."""
    found = list(items)
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return separator.join([*found[:LISTED], *more])


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
