"""`loop demo`: the whole loop on a real store, with real processes, in half a minute.

It writes a project into a directory of its own (config, selector, session script, something to read), starts `loop run`
there, looks at the log while that works, stops it, and prints what the log says. No figure is made here: all are read
from the status object, and what did not come about is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from events.errors import LoopError, UsageError
from events.store import EventLog, Filter
from loop import home as homes
from loop.command import literal
from loop.commands import status as status_command
from loop.commands import why
from loop.commands.passes import refuse_inside
from loop.home import CONFIG_NAME, Home
from loop.moment import resolve
from loop.output import clean, console
from loop.status import status
from projections.fold import RECENT

BACKENDS = tuple(f"{size}-{account}" for size in ("large", "medium", "small") for account in range(1, 7))
USED_UP = ("medium-6", "small-3")
USED_UP_FOR = timedelta(hours=6)
TASKS = 12
ROOMS = ("loop", "events", "projections", "migrations")
LOOK_SECONDS = 0.5
LINE_SECONDS = 2.0  # between two lines where stdout is no terminal
PATIENCE_SECONDS = 60.0  # how much longer it may take until everything to be shown has happened
STOP_SECONDS = 90.0  # more than a session's timeout and its grace
DRAIN_UNTIL = "2m"  # it ends by itself if the demo is interrupted before it can say `loop resume`
INTERRUPTED = 130

Report = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at the store: the status object, and what of the demo has not happened yet, in words."""

    report: Report
    missing: tuple[str, ...]


def run(directory: Path | None, *, seconds: float) -> int:
    """Show the loop at work for `seconds`, or up to a minute longer until all has happened; 1 if something has not.

    The project is written into `directory`, which must be empty or new, or into a new temporary one; it is kept.
    Raises UsageError where `directory` holds something, LoopError where the controller does not stay up.
    """
    refuse_inside(os.environ, "demo")
    home = prepare(directory)
    print(f"a project of its own, with real processes, in {clean(home.root)}", flush=True)
    try:
        with _interruptible(), _controller(home) as controller:
            watch(home, controller, seconds)
        print("stopped the controller with SIGTERM: nobody fires any more; waiting for the sessions: loop drain --wait")
        _loop(home, "drain", "--wait", "--until", DRAIN_UNTIL)
        _loop(home, "resume")
    except KeyboardInterrupt:
        print("\ninterrupted: the controller is stopped; what was asked for last comes to its end by itself")
        _say_where(home)
        return INTERRUPTED
    missing = summary(home)
    _say_where(home)
    return 1 if missing else 0


# ── the project ───────────────────────────────────────────────────────────────────────────────────────────────────────


def prepare(directory: Path | None, now: datetime | None = None) -> Home:
    """Write the demo's project: config, selector and session script, material, tasks, and the accounts used up."""
    root = _root(directory)
    data = resources.files("loop").joinpath("data", "demo")
    for name in ("selector.py", "session.py"):
        (root / name).write_text(data.joinpath(name).read_text("utf-8"), "utf-8")
    (root / CONFIG_NAME).write_text(_config(data.joinpath(CONFIG_NAME).read_text("utf-8")), "utf-8")
    material = _copy_material(root / "material")
    _write(root / "checksums.json", {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in material})
    resets_at = (now or datetime.now(UTC)) + USED_UP_FOR
    _write(root / "used-up.json", {name: resets_at.isoformat(timespec="seconds") for name in USED_UP})
    _open_tasks(root / "tasks", material)
    return homes.at(root / CONFIG_NAME)


def _root(directory: Path | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="loop-demo-")).resolve()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise UsageError(f"{directory} is not empty; nothing was written", "name a new directory, or none")
    except OSError as error:
        raise UsageError(f"cannot use {directory}: {error.strerror}", "name a directory that can be made") from None
    return directory.resolve()


def _config(template: str) -> str:
    python = _toml(literal(sys.executable))
    words = ", ".join([python, *map(_toml, ("session.py", "{category}", "{task}", "{backend}"))])
    backends = "".join(f"\n[backends.{name}]\ncommand = [{words}]\n" for name in BACKENDS)
    return template.replace("@python@", python) + backends


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _copy_material(target: Path) -> list[Path]:
    """Something real to read: loop's own source files."""
    target.mkdir()
    source = Path(__file__).resolve().parents[1]
    files = [path for room in ROOMS for path in (source / room).rglob("*.py") if "data" not in path.parts]
    for path in files:
        shutil.copy2(path, target / ".".join(path.relative_to(source).parts))
    return sorted(target.iterdir())


def _open_tasks(target: Path, material: Sequence[Path]) -> None:
    """Tasks for the selector: the longest files, each for one category."""
    target.mkdir()
    longest = sorted(material, key=lambda path: -path.stat().st_size)[:TASKS]
    categories = itertools.cycle(("code", "research", "content", "triage", "strategic"))
    for number, (path, category) in enumerate(zip(longest, categories, strict=False), start=1):
        _write(target / f"{number:02}-{path.name.removesuffix('.py')}.json", {"category": category, "file": path.name})


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


# ── the controller ────────────────────────────────────────────────────────────────────────────────────────────────────


def _argv(home: Home, *arguments: str) -> list[str]:
    # -P: a file cli.py where the reader happens to be is not ours.
    return [sys.executable, "-P", "-m", "cli", "-C", str(home.root), *arguments]


def _environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("LOOP_")}


def _loop(home: Home, *arguments: str) -> None:
    """Run one command of the loop to its end."""
    try:
        subprocess.run(
            _argv(home, *arguments), env=_environ(), check=True, capture_output=True, text=True, timeout=STOP_SECONDS
        )
    except subprocess.TimeoutExpired:
        text = f"loop {' '.join(arguments)} took more than {STOP_SECONDS:.0f} s"
        raise LoopError(text, f"look at the sessions: loop -C {home.root} status") from None
    except subprocess.CalledProcessError as error:
        raise LoopError(f"loop {' '.join(arguments)}: {error.stderr.strip()}", f"look into {home.root}") from None


@contextlib.contextmanager
def _controller(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    """`loop run` in the project; at the end of the block, however it ends, it is stopped with SIGTERM."""
    with _run_log(home).open("wb") as log:
        controller = subprocess.Popen(
            _argv(home, "run"), env=_environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield controller
    finally:
        controller.terminate()
        try:
            controller.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            controller.kill()
            controller.wait()


def _run_log(home: Home) -> Path:
    return home.root / "run.log"


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that no controller is left behind."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# ── looking at it ─────────────────────────────────────────────────────────────────────────────────────────────────────


def look(db: Path) -> Sight:
    """The store as it is now."""
    log = EventLog.read(db)
    try:
        moment = resolve(log, None)
        state = moment.state(log)
    finally:
        log.close()
    report = status(state, moment.now)
    return Sight(report, tuple(_missing(report, set(BACKENDS) - state.backends["last_used"].keys())))


def _missing(report: Report, unused: set[str]) -> Iterator[str]:
    """What the demo wants to show and the log does not hold."""
    slots, noop = report["slots"], report["noop"]
    if not slots["capacity"] or (slots["peak"] or 0) < slots["capacity"]:
        yield "the slots were never all in use at once"
    if unused:
        yield f"{len(unused)} backends were never used: {', '.join(sorted(unused))}"
    states = {item["name"]: item["state"] for item in report["backends"]["items"]}
    if unnoticed := [name for name in USED_UP if states.get(name) != "limited"]:
        yield f"not known to be used up: {', '.join(unnoticed)}"
    if noop["of"] < RECENT:
        yield f"only {noop['of']} sessions were assessed, not {RECENT}"


def watch(home: Home, controller: subprocess.Popen[bytes], seconds: float) -> None:
    """Show the store for `seconds`; longer, within bounds, while something has not happened yet."""
    begun = time.monotonic()
    with _shown() as show:
        while True:
            sight, passed = look(home.db), time.monotonic() - begun
            show(sight, passed)
            if controller.poll() is not None:
                raise LoopError(
                    f"the controller ended by itself, exit code {controller.returncode}", f"read {_run_log(home)}"
                )
            if passed >= seconds and (not sight.missing or passed >= seconds + PATIENCE_SECONDS):
                return
            time.sleep(LOOK_SECONDS)


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[Sight, float], None]]:
    """What shows a sight: a live view on a terminal, otherwise a line now and then."""
    out = console()
    if not out.is_terminal:
        yield _Lines().show
        return
    from rich.live import Live

    with Live(console=out, auto_refresh=False, transient=True) as live:
        yield lambda sight, passed: live.update(status_command.render(sight.report), refresh=True)


class _Lines:
    """Progress for a pipe or a file."""

    def __init__(self) -> None:
        self.due = 0.0

    def show(self, sight: Sight, passed: float) -> None:
        if passed < self.due or not sight.report["categories"]:
            return
        self.due = passed + LINE_SECONDS
        report = sight.report
        slots, backends = report["slots"], report["backends"]
        started = sum(line["spawned"] for line in report["categories"])
        live = " ".join(session["category"] for session in report["sessions"]["live"])
        print(
            f"{passed:5.0f} s  {slots['live']} of {slots['capacity']} slots, {started:2} started,"
            f" {backends['available']} of {backends['total']} backends  {live}",
            flush=True,
        )


# ── the end ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def summary(home: Home) -> tuple[str, ...]:
    """Print the status, one decision on a Tier 1 answer, and the figures; returns what has not come about."""
    _command(home, "status")
    status_command.run(home.db, at=None, as_json=False, watch=None, check=False)
    if (position := tier1_decision(home.db)) is not None:
        _command(home, "why", str(position))
        why.run(home.db, str(position), at=None, as_json=False)
    sight = look(home.db)
    missing = list(sight.missing)
    if sight.report["violations"]["same_lock"]:
        missing.append("a lock was held twice, which must never be: loop log --type 'lock.*'")
    print("\nwhat this log says:")
    for name, value in figures(sight.report):
        print(f"  {name:<22}{value}")
    for text in missing:
        print(f"  ✗ {text}")
    return tuple(missing)


def figures(report: Report) -> list[tuple[str, str]]:
    """The figures that a fleet is judged by, each with its denominator."""
    slots, locks, backends, noop = (report[name] for name in ("slots", "violations", "backends", "noop"))
    followed = report["selection"]["followed"]
    return [
        ("peak concurrency", f"{slots['peak']} of {slots['capacity']} slots"),
        ("same-lock violations", f"{locks['same_lock']} in {locks['of']} locks taken"),
        ("available backends", f"{backends['available']} of {backends['total']}"),
        ("NOOP sessions", f"{noop['count']} of the last {noop['of']} assessed, {noop['unproven']} unproven"),
        ("selector's intent", f"{followed['count']} of {followed['of']} starts came from its ranking"),
    ]


def tier1_decision(db: Path) -> int | None:
    """The position of the fire's decision on a Tier 1 answer that started most, the latest of equals."""
    log = EventLog.read(db)
    try:
        answers = log.select(Filter(types=("selection.made",)))
        passes = {record.tick for record in answers if json.loads(record.data)["tier"] == 1}
        decided = [record for record in log.select(Filter(types=("fanout.decided",))) if record.tick in passes]
    finally:
        log.close()
    best = max(decided, key=lambda record: (len(json.loads(record.data)["chosen"]), record.position), default=None)
    return None if best is None else best.position


def _command(home: Home, *arguments: str) -> None:
    print(f"\n$ {_program()} -C {clean(home.root)} {' '.join(arguments)}", flush=True)


def _say_where(home: Home) -> None:
    print(f"\nthe store and everything else is kept in {clean(home.root)}; go on with it:")
    for words in ("log", "status --at -10s", "why last", "sessions", "run"):
        print(f"  {_program()} -C {clean(home.root)} {words}")


def _program() -> str:
    """How the reader calls this program."""
    called = sys.argv[0]
    return called if Path(called).name == "loop" and shutil.which("loop") is None else "loop"
