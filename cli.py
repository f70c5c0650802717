"""The `loop` command: parse, call, render. No SQL and no decisions; everything heavy is imported by the command run."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from events.errors import ConfigError, UsageError
from loop import __version__
from loop.program import INTERRUPTED, ReaderLeft, execute, fail, places_apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from loop.home import Home

F = TypeVar("F", bound="Callable[..., Any]")

DAILY, CONTROL, AUDIT, SETUP = "Daily", "Control", "Audit", "Setup"
USAGE = 2

EXIT_CODES = (
    "Exit codes: 0 done, nothing to start included · 1 error · 2 usage · 3 config or selector invalid"
    " · 4 an invariant is violated (verify, status --check) · 5 store busy, or another pass observes"
    " · 6 refused (--expect, inside a session, a second run, an imported store)"
    " · 10 with plan --exit-code, when something would start"
    " · 130 interrupted."
)


class LoopGroup(TyperGroup):
    """Takes -C and --config before or after the command, and turns our errors into messages and exit codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        places, others = places_apart(args)
        return super().parse_args(ctx, places + others)

    def main(self, args: Any = None, *rest: Any, **extra: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        as_json = "--json" in arguments
        execute(partial(self._run, arguments, as_json, *rest, **extra), as_json=as_json)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise ReaderLeft from None  # else Typer exits 1

    def _run(self, arguments: list[str], as_json: bool, *rest: Any, **extra: Any) -> Any:
        try:
            return super().main(arguments, *rest, **{**extra, "prog_name": "loop", "standalone_mode": False})
        except typer.TyperException as error:
            return _usage(error, as_json)
        except typer.Abort:
            return INTERRUPTED


class LoopCommand(TyperCommand):
    """Refuses an option that is given twice and counts once: the first would be dropped in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for option in {option.name: option for option in given if given.count(option) > 1}.values():
            if option.param_type_name == "option" and not option.multiple and not getattr(option, "is_flag", False):
                name = max(option.opts, key=len)
                text = f"{name} is given {given.count(option)} times, and counts once"
                raise UsageError(text, f"run {ctx.command_path} once for each, or see: {ctx.command_path} --help")
        return super().parse_args(ctx, args)


class MomentsCommand(LoopCommand):
    """Takes -2h for a moment, not for the options -2 and -h. Its own options are flags, so that their place is free."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        flags = [word for word in args if word.startswith("-") and word != "--" and not word[1:2].isdigit()]
        moments = [word for word in args if word not in (*flags, "--")]
        return super().parse_args(ctx, [*flags, "--", *moments])


class Commands(typer.Typer):
    """Whose commands are LoopCommands."""

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = None, **settings: Any
    ) -> Callable[[F], F]:
        return super().command(name, cls=cls or LoopCommand, **settings)


class LoopApp(Commands):
    """Builds only the command that is called: Typer inspects every parameter of every command, which costs more than
    the fold of a long log. Help, completion and unknown commands build them all."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _, words = places_apart(sys.argv[1:])
        called = [info for info in self.registered_commands if words[:1] == [_name_of(info)]]
        groups = [info for info in self.registered_groups if words[:1] == [info.name]]
        if (called or groups) and not args and not kwargs:
            self.registered_commands, self.registered_groups = called, groups
        return super().__call__(*args, **kwargs)


def _name_of(info: Any) -> str:
    return str(info.name or info.callback.__name__)


def _usage(error: Exception, as_json: bool) -> int:
    """A mistake on the command line, as Typer found it."""
    exit_code = int(getattr(error, "exit_code", USAGE))
    text = getattr(error, "format_message", lambda: str(error))()
    if not text:
        return exit_code  # the help is there already
    context = getattr(error, "ctx", None)
    command = f"{context.command_path} --help" if context is not None else "loop --help"
    return fail("usage", text, f"see: {command}", exit_code, as_json)


app = LoopApp(
    cls=LoopGroup,
    name="loop",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
config_app = Commands(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(config_app, name="config", rich_help_panel=SETUP, help="Check or show the effective config.")
timer_app = Commands(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(timer_app, name="timer", rich_help_panel=SETUP, help="Have systemd fire: its units.")
hook_app = Commands(no_args_is_help=True, rich_markup_mode="rich")
app.add_typer(hook_app, name="hook", rich_help_panel=SETUP, help="The git hook for evidence = \"git\".")
backends_app = Commands(invoke_without_command=True, rich_markup_mode="rich")
app.add_typer(backends_app, name="backends", rich_help_panel=DAILY)

places: dict[str, Path | None] = {"directory": None, "config": None}


def home() -> Home:
    """The project that -C, --config, LOOP_CONFIG and the working directory name."""
    from loop import home as homes

    return homes.find(places["directory"], places["config"], os.environ)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"loop {__version__}")
        raise typer.Exit


@app.callback()
def main(
    directory: Annotated[Path | None, typer.Option("-C", help="Work as if started in this directory.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="The config file (or LOOP_CONFIG).")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The control loop for fleets of agent sessions: which work deserves the free slots, and why.

    -C DIR and --config FILE may stand before or after the command.
    """
    places["directory"], places["config"] = directory, config
    if directory is not None or config is not None:
        from loop.output import say_places

        say_places(directory, config)


Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="WHEN", help="A position, time, -5m, session or pass instead of now.")
]
Reason = Annotated[str | None, typer.Option("--reason", help="Why, for the log.")]
Category = Annotated[str | None, typer.Option("--category", help="Only this category.")]
Backend = Annotated[str | None, typer.Option("--backend", help="Only this backend.")]


# ── daily ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command(rich_help_panel=DAILY)
def status(
    at: At = None,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option("-n", "--interval", min=0.1, help="Seconds between two looks.")] = 2.0,
    check: Annotated[bool, typer.Option("--check", help="Exit 4 if an invariant is violated.")] = False,
    json: Json = False,
) -> None:
    """Is it safe, is it right, is it useful: one screen, problems first.

    Example: loop status --at -30m
    """
    from loop.commands.status import run

    raise typer.Exit(run(home().db, at=at, as_json=json, watch=every if watch else None, check=check))


@app.command(rich_help_panel=DAILY)
def plan(
    payload: Annotated[
        str | None, typer.Option("--payload", metavar="FILE", help="Take the selector's answer from here; - is stdin.")
    ] = None,
    recorded: Annotated[bool, typer.Option("--recorded", help="Take the last recorded answer; run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only the chosen categories, on one line.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 10 if something would start.")] = False,
    at: At = None,
    json: Json = False,
) -> None:
    """What a pass would start now, and why; nothing is started and nothing written.

    Example: ./my-selector --json | loop plan -q --payload -
    """
    from loop.commands.passes import plan as run

    raise typer.Exit(
        run(
            home(),
            os.environ,
            payload=payload,
            recorded=recorded,
            at=at,
            quiet=quiet,
            exit_code=exit_code,
            as_json=json,
        )
    )


@app.command(rich_help_panel=DAILY)
def why(
    target: Annotated[str, typer.Argument(metavar="ID|last", help="A session, pass, event or position; or last.")],
    at: At = None,
    json: Json = False,
) -> None:
    """Why a decision fell as it did: every candidate with its verdict, every idle slot with its reason.

    Example: loop why last
    """
    from loop.commands.why import run

    raise typer.Exit(run(home().db, target, at=at, as_json=json))


@app.command("why-not", rich_help_panel=DAILY)
def why_not(
    category: Annotated[str, typer.Argument(help="The category that was not started.")],
    at: At = None,
    json: Json = False,
) -> None:
    """Why a category was not started, and the smallest changes of fact that would have started it.

    Example: loop why-not infrastructure --at 14:03
    """
    from loop.commands.why_not import run

    raise typer.Exit(run(home().db, category, at=at, as_json=json))


@app.command(rich_help_panel=DAILY)
def sessions(
    live: Annotated[bool, typer.Option("--live", help="Only those that live.")] = False,
    since: Annotated[str | None, typer.Option("--since", help="Requested since: 2h, or a time.")] = None,
    category: Category = None,
    outcome: Annotated[str | None, typer.Option("--outcome", help="Only this outcome.")] = None,
    backend: Backend = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="At most so many.")] = 30,
    at: At = None,
    json: Json = False,
) -> None:
    """Who ran and how it ended, newest first.

    Example: loop sessions --since 2h --outcome failed
    """
    from loop.commands.sessions import run

    raise typer.Exit(
        run(
            home().db,
            live=live,
            since=since,
            category=category,
            outcome=outcome,
            backend=backend,
            limit=limit,
            at=at,
            as_json=json,
        )
    )


@app.command(rich_help_panel=DAILY)
def tail(
    session: Annotated[str, typer.Argument(help="A session, by unique prefix.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
    errors: Annotated[bool, typer.Option("--stderr", help="Its stderr instead of its stdout.")] = False,
    lines: Annotated[int, typer.Option("-n", min=0, help="Lines from the end.")] = 20,
) -> None:
    """What a session printed.

    Example: loop tail -f s7k3
    """
    from loop.commands.sessions import tail as run

    raise typer.Exit(run(home().db, session, follow=follow, errors=errors, lines=lines))


@app.command(rich_help_panel=DAILY)
def log(
    type: Annotated[list[str] | None, typer.Option("--type", help="A type or a pattern like 'lock.*'; again.")] = None,
    session: Annotated[str | None, typer.Option("--session", help="Only this session, by unique prefix.")] = None,
    category: Category = None,
    since: Annotated[str | None, typer.Option("--since", help="Since: 2h ago, or a time.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Until: 2h ago, or a time.")] = None,
    after: Annotated[int, typer.Option("--after", min=0, help="Only behind this position.")] = 0,
    limit: Annotated[
        int | None, typer.Option("-n", min=1, help="Only the last so many; 50 unless --json, --since or --after.")
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    at: At = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """The events, oldest first; with --json one object a line.

    Example: loop log --type 'session.*' --since 2h
    """
    from loop.commands.log import Query, run

    query = Query(tuple(type or ()), session, category, since, until, after, limit, at)
    raise typer.Exit(run(home().db, query, json_lines=json, follow=follow))


@app.command(rich_help_panel=DAILY)
def show(
    target: Annotated[str, typer.Argument(metavar="POSITION|ID", help="An event, or a session's start.")],
    json: Json = False,
) -> None:
    """One event whole: what led to it, what came of it, what it changed.

    Example: loop show 812
    """
    from loop.commands.show import show as run

    raise typer.Exit(run(home().db, target, as_json_object=json))


@backends_app.callback()
def backends(
    ctx: typer.Context,
    wait: Annotated[str | None, typer.Option("--wait", metavar="NAME", help="Return once it takes a session.")] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Which backends can take a session, and until when the others cannot.

    Example: loop backends --wait opus && loop start code --backend opus
    """
    if ctx.invoked_subcommand is not None:
        return
    from loop.commands.backends import run

    raise typer.Exit(run(home().db, at=at, as_json=json, wait=wait))


@backends_app.command("probe")
def backends_probe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The backend.")],
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Let one session try a backend before its time.

    Example: loop backends probe opus
    """
    from loop.commands.probe import probe as run

    raise typer.Exit(run(home(), os.environ, name, reason=reason, as_json=json))


@app.command(rich_help_panel=DAILY)
def report(
    since: Annotated[str | None, typer.Option("--since", help="Since: 48h (the default), or a time.")] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Is it ready for more slots: five questions with what the data show, and which rung holds it back.

    Example: loop report --since 48h
    """
    from loop.commands.report import run

    raise typer.Exit(run(home().db, since=since, at=at, as_json=json))


# ── control ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command(rich_help_panel=CONTROL)
def run(
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing.")] = False,
) -> None:
    """Fire on the schedule and look after the sessions, until SIGTERM; the sessions go on.

    Example: loop run
    """
    from loop.commands.run import run as start

    raise typer.Exit(start(home(), os.environ, quiet=quiet))


@app.command(rich_help_panel=CONTROL)
def tick(
    timer: Annotated[bool, typer.Option("--timer", help="This is a timer's fire: once per nominal instant.")] = False,
    expect: Annotated[str | None, typer.Option("--expect", metavar="INPUTS", help="Refuse if plan differs.")] = None,
    json: Json = False,
) -> None:
    """One pass now. In a crontab or a timer unit: loop tick --timer.

    Example: loop tick --json
    """
    from loop.commands.passes import tick as run

    raise typer.Exit(run(home(), os.environ, timer=timer, expect=expect, as_json=json))


@app.command(rich_help_panel=CONTROL)
def start(
    category: Annotated[str, typer.Argument(help="The category to start.")],
    task: Annotated[str | None, typer.Option("--task", help="The task it gets.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="The backend it gets.")] = None,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Start one category by hand: past the allowlist and its cool-down, never past a lock.

    Example: loop start cleanup --reason "before the release"
    """
    from loop.commands.passes import start as run

    raise typer.Exit(
        run(home(), os.environ, category, task=task, backend=backend, reason=reason, as_json=json)
    )


def _restrain(action: Any, category: Any, backend: Any, until: Any, reason: Any, json: bool) -> int:
    from loop.commands.control import restrain

    return restrain(
        home(),
        os.environ,
        action=action,
        category=category,
        backend=backend,
        until=until,
        reason=reason,
        as_json=json,
    )


Until = Annotated[str | None, typer.Option("--until", help="For 2h, or until a time; else until resume.")]


@app.command(rich_help_panel=CONTROL)
def pause(
    category: Category = None, backend: Backend = None, until: Until = None, reason: Reason = None, json: Json = False
) -> None:
    """Start nothing more; what runs goes on. It outlives restarts.

    Example: loop pause --category infrastructure --until 18:00
    """
    raise typer.Exit(_restrain("pause", category, backend, until, reason, json))


@app.command(rich_help_panel=CONTROL)
def resume(category: Category = None, backend: Backend = None, reason: Reason = None, json: Json = False) -> None:
    """Undo pause, drain or freeze; without an option all of them. A freeze takes --reason.

    Example: loop resume
    """
    from loop.commands.control import resume as run

    raise typer.Exit(run(home(), os.environ, category=category, backend=backend, reason=reason, as_json=json))


@app.command(rich_help_panel=CONTROL)
def drain(
    wait: Annotated[bool, typer.Option("--wait", help="Return when no session lives.")] = False,
    until: Until = None,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Start nothing more and let what runs come to its end.

    Example: loop drain --wait
    """
    if wait:
        from loop.commands.passes import refuse_inside

        refuse_inside(os.environ, "drain --wait")  # it would wait for itself
    code = _restrain("drain", None, None, until, reason, json)
    if wait:
        from loop.commands.control import wait_drained

        code = wait_drained(home(), os.environ, quiet=json)
    raise typer.Exit(code)


@app.command(rich_help_panel=CONTROL)
def stop(
    session: Annotated[str | None, typer.Argument(help="A session; without one, pause and stop all.")] = None,
    kill: Annotated[bool, typer.Option("--kill", help="No grace.")] = False,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Stop a session, or pause the loop and stop them all: TERM, grace, KILL of the whole tree.

    Example: loop stop s7k3
    """
    from loop.commands.control import stop as run
    from loop.commands.passes import refuse_inside

    refuse_inside(os.environ, "stop")
    raise typer.Exit(run(home(), os.environ, session, kill=kill, reason=reason, as_json=json))


# ── audit ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

Since = Annotated[str | None, typer.Option("--since", help="From: 2h ago, or a time.")]
Upto = Annotated[str | None, typer.Option("--until", help="Up to: 2h ago, or a time.")]


@app.command(rich_help_panel=AUDIT)
def usage(
    by: Annotated[str, typer.Option("--by", help="category, backend or pool.")] = "category",
    since: Annotated[str | None, typer.Option("--since", help="Since: 24h (the default), or a time.")] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """What sessions used: time, tokens, money, and how much of each budget.

    Example: loop usage --by pool --since 7d
    """
    from loop.commands.usage import run

    raise typer.Exit(run(home().db, by=by, since=since, at=at, as_json=json))


@app.command(rich_help_panel=AUDIT)
def verify(
    anchor: Annotated[
        str | None, typer.Option("--anchor", metavar="POSITION:HASH", help="A head that was kept elsewhere.")
    ] = None,
    json: Json = False,
) -> None:
    """Prove over the whole log what it promises: chain, locks, slots, decisions, projections. Exit 4 if not.

    Example: loop verify --anchor 812:5f0c…
    """
    from loop.commands.verify import run

    raise typer.Exit(run(home().db, anchor=anchor, as_json=json))


@app.command(rich_help_panel=AUDIT)
def replay(
    since: Since = None,
    until: Upto = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Decide by another policy.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Decide under this config instead.")
    ] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Make every recorded decision again with today's code, or under another policy or config.

    Example: loop replay --since 48h
    """
    from loop.commands.replay import run

    raise typer.Exit(
        run(home().db, since=since, until=until, at=at, policy=policy, config=config, as_json=json)
    )


@app.command(rich_help_panel=AUDIT, cls=MomentsCommand)
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A position, time, -5m, session or pass.")],
    second: Annotated[str | None, typer.Argument(metavar="[B]", help="Another; without it, now.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also what time alone changes.")] = False,
    json: Json = False,
) -> None:
    """What changed between two moments.

    Example: loop diff -2h
    """
    from loop.commands.diff import run

    raise typer.Exit(run(home().db, first, second, everything=everything, as_json=json))


@app.command(rich_help_panel=AUDIT)
def when(
    expression: Annotated[str, typer.Argument(metavar="EXPR", help="Such as 'live > 4 and mode == \"running\"'.")],
    since: Since = None,
    until: Upto = None,
    limit: Annotated[int | None, typer.Option("-n", min=1, help="Only the last so many intervals.")] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Every interval in which something held, and the events that opened and closed it.

    Example: loop when 'backend["opus"].state != "available"'
    """
    from loop.commands.when import run

    raise typer.Exit(run(home().db, expression, since=since, until=until, at=at, limit=limit, as_json=json))


@app.command(rich_help_panel=AUDIT)
def export(
    at: Annotated[
        str | None, typer.Option("--at", metavar="A:B", help="Only from A to B: 800:812, -2h:, or two whole times.")
    ] = None,
    redact: Annotated[bool, typer.Option("--redact", help="Without argv, paths, payloads and words.")] = False,
    output: Annotated[Path | None, typer.Option("-o", metavar="FILE", help="Into this file instead of stdout.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Errors too; the export itself always is.")] = False,
) -> None:
    """The log as JSON Lines, which loop import turns into the same store again; redacted, a complete bug report.

    Example: loop export --at -2h: --redact -o report.jsonl
    """
    from loop.commands.export import run

    raise typer.Exit(run(home().db, at=at, redact=redact, output=output))


@app.command("import", rich_help_panel=AUDIT)
def import_(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="What loop export wrote; - is stdin.")] = None,
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="Where the new store goes.")] = None,
    locks: Annotated[
        Path | None, typer.Option("--gptme-locks", metavar="FILE", help="A lock history: epoch|ACQUIRED|pid|lock|….")
    ] = None,
    json: Json = False,
) -> None:
    """A store of its own, for reading, from an export or from another program's lock history; never into yours.

    Example: loop import report.jsonl --into ./report && loop -C ./report status
    """
    from events.errors import UsageError
    from loop.commands import imports

    if (file is None) == (locks is None):
        raise UsageError("name one file: an export, or with --gptme-locks a lock history", "see: loop import --help")
    if file is not None:
        if into is None:
            raise UsageError("an export needs a place of its own", "name a new directory: --into DIR")
        raise typer.Exit(imports.export(file, into, as_json=json))
    assert locks is not None
    if into is None:
        try:
            into = imports.beside(home())
        except ConfigError:  # a newcomer's: no project yet
            into = imports.beside(None)
    raise typer.Exit(imports.gptme_locks(locks, into, as_json=json))


@app.command(rich_help_panel=AUDIT)
def step(at: At = None) -> None:
    """Walk through the log event by event, forwards and back, with the state at each.

    Example: loop step --at -1h
    """
    from loop.commands.step import run

    raise typer.Exit(run(home().db, at=at))


# ── setup ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@app.command(rich_help_panel=SETUP)
def init(
    selector: Annotated[
        str | None,
        typer.Option("--selector", metavar="CMD", help="Run it once and write the categories that it names."),
    ] = None,
    agent: Annotated[
        list[str] | None, typer.Option("--agent", help="Only this agent, of those that are installed; again; or none.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace loop.toml; a backup is kept.")] = False,
    json: Json = False,
) -> None:
    """Write a commented loop.toml for the agents that are installed, and an empty store, here.

    Example: loop init --selector "./cascade-selector.py --json"
    """
    from loop.commands.init import run

    directory = places["directory"] or Path.cwd()
    command = None if selector is None else shlex.split(selector)
    raise typer.Exit(run(directory, selector=command, force=force, as_json=json, agents=agent))


@config_app.command("check")
def config_check(json: Json = False) -> None:
    """Say whether loop.toml is valid, and what in it has no effect.

    Example: loop config check
    """
    from loop.commands.config import check

    raise typer.Exit(check(home(), as_json=json))


@config_app.command("show")
def config_show(
    origin: Annotated[bool, typer.Option("--origin", help="Where each value comes from.")] = False, json: Json = False
) -> None:
    """The effective config, defaults written out.

    Example: loop config show --origin
    """
    from loop.commands.config import show as run

    raise typer.Exit(run(home(), origin=origin, as_json=json))


@timer_app.command("install")
def timer_install(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    only_print: Annotated[bool, typer.Option("--print", help="Print the units; write nothing.")] = False,
    json: Json = False,
) -> None:
    """Print the systemd user units of this project's schedule, then write and start them.

    Example: loop timer install
    """
    from loop.commands.timer import install as run

    raise typer.Exit(run(home(), os.environ, yes=yes, only_print=only_print, as_json=json))


@timer_app.command("show")
def timer_show(
    cron: Annotated[bool, typer.Option("--cron", help="Only the line of a crontab that does the same.")] = False,
    json: Json = False,
) -> None:
    """Whether the units are installed, whether they are what install would write, and when they fire next.

    Example: loop timer show
    """
    from loop.commands.timer import show as run

    raise typer.Exit(run(home(), os.environ, cron=cron, as_json=json))


@timer_app.command("remove")
def timer_remove(json: Json = False) -> None:
    """Stop the timer and take its units away; what runs goes on.

    Example: loop timer remove
    """
    from loop.commands.timer import remove as run

    raise typer.Exit(run(home(), os.environ, as_json=json))


Repository = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="A directory of the repository.")]


def _hook(action: Any, directory: Path | None, json: bool) -> int:
    from loop.commands.hook import run

    return run(action, directory or places["directory"] or Path.cwd(), os.environ, as_json=json)


@hook_app.command("install")
def hook_install(directory: Repository = None, json: Json = False) -> None:
    """Have git add the trailer `Loop-Session` to the commits of sessions; those of others stay as they are.

    Example: loop hook install ~/work/repo
    """
    raise typer.Exit(_hook("install", directory, json))


@hook_app.command("show")
def hook_show(directory: Repository = None, json: Json = False) -> None:
    """Whether the hook is there, and its text, for who has one of that name already.

    Example: loop hook show
    """
    raise typer.Exit(_hook("show", directory, json))


@hook_app.command("remove")
def hook_remove(directory: Repository = None, json: Json = False) -> None:
    """Take the hook away again.

    Example: loop hook remove
    """
    raise typer.Exit(_hook("remove", directory, json))


@app.command(rich_help_panel=SETUP)
def select(at: At = None, json: Json = False) -> None:
    """What the built-in selector says, each score term by term; with --at what it said then, made again.

    Example: loop select --json | loop plan --payload -
    """
    from loop.commands.select import run

    raise typer.Exit(run(home(), at=at, as_json=json))


@app.command("new-selector", rich_help_panel=SETUP)
def new_selector(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the script goes.")] = Path("my-selector"),
) -> None:
    """Write a short commented selector of your own to begin with.

    Example: loop new-selector my-selector && ./my-selector | loop plan --payload -
    """
    from loop.commands.new_selector import run

    raise typer.Exit(run(places["directory"] or Path.cwd(), file))


@app.command(rich_help_panel=SETUP)
def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Mend what can be mended.")] = False,
    as_timer: Annotated[
        bool, typer.Option("--as-timer", help="With the environment of the timer unit, and what it needs to live.")
    ] = False,
    json: Json = False,
) -> None:
    """Check this machine, the config and the store; each finding with its mend.

    Example: loop doctor --fix
    """
    from loop.commands.doctor import run

    found: Home | None = None
    problem: ConfigError | None = None
    try:
        found = home()
    except ConfigError as error:
        problem = error
    raise typer.Exit(run(found, fix=fix, as_timer=as_timer, as_json=json, error=problem))


@app.command(rich_help_panel=SETUP)
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the copy goes; best on another disk.")],
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it is there.")] = False,
    json: Json = False,
) -> None:
    """Copy the log into one file while the loop goes on, and read all of the copy before it gets its name.

    Example: loop backup /mnt/backup/fleet.db --force
    """
    from loop.commands.backup import run

    raise typer.Exit(run(home().db, file, force=force, as_json=json))


@app.command(rich_help_panel=SETUP)
def simulate(
    days: Annotated[float, typer.Option("--days", help="How long, in simulated days.")] = 14.0,
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same log.")] = 1,
    slots: Annotated[int | None, typer.Option("--slots", metavar="N", help="With so many slots.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Under this policy.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With allocation.max_ratio=1.5; again.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", metavar="FILE|NAME", help="fleet (the default), monitoring, or yours.")
    ] = None,
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="Keep its store, in this place.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A.toml B.toml", help="Two configs, same seeds.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, max=1000, help="Pairs of seeds to compare on; 10 unless said.")
    ] = None,
    json: Json = False,
) -> None:
    """What these slots, that policy or this weight would do: the same rules on a virtual clock, with modelled sessions.

    Nothing of the project is touched, and no command is run. Without a project the workload brings a config.

    Example: loop simulate --days 30 --slots 8 --policy fair
    """
    from events.errors import UsageError
    from loop.commands import simulate as simulation
    from loop.home import ConfigMissing

    wanted = [] if slots is None else [f"loop.slots={slots}"]
    wanted += [] if policy is None else [f'loop.policy="{policy}"']
    wanted += changes or []
    if compare is not None:
        if into is not None:
            raise UsageError("--into keeps one store, and --compare makes many", "leave one of them out")
        raise typer.Exit(
            simulation.compare(compare, workload, changes=wanted, days=days, seed=seed, runs=runs or 10, as_json=json)
        )
    if runs is not None:
        raise UsageError("--runs says how many pairs are compared", "name two configs: --compare A.toml B.toml")
    found: Home | None = None
    try:
        found = home()
    except ConfigMissing:
        if places["config"] is not None or os.environ.get("LOOP_CONFIG"):
            raise
    raise typer.Exit(
        simulation.run(found, workload, changes=wanted, days=days, seed=seed, into=into, as_json=json)
    )


@app.command(rich_help_panel=SETUP)
def demo(
    seconds: Annotated[float, typer.Option("--seconds", min=5, help="How long the live view runs.")] = 25.0,
    directory: Annotated[Path | None, typer.Option("--directory", help="Where to keep it; else a new one.")] = None,
) -> None:
    """The whole thing in half a minute: ten categories, 18 backends, six slots, real processes.

    Example: loop demo
    """
    from loop.demo import run

    raise typer.Exit(run(directory, seconds=seconds))


if __name__ == "__main__":
    app()
