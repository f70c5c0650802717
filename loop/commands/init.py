"""`loop init`: a commented loop.toml and an empty store, with which `loop tick` works at once.

Agents that are installed become its backends, by their presets, and a prompt is written for them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from events.errors import ConfigError, StoreError, UsageError
from loop import output, toml
from loop.command import run_bounded
from loop.home import CONFIG_NAME, DB_NAME, DEFAULT_STATE, at, resolved
from loop.selector import LARGEST, Ranking, Rejection, parse, rejected_by_run

SELECTOR_TIMEOUT = 30.0  # seconds; the default of selector.timeout
GIT_TIMEOUT = 10.0
AGENTS = ("claude", "codex", "gptme")  # presets whose program has the same name, best known first
NO_AGENT = "none"
PROMPT_NAME = "prompt.md"
EXAMPLES = ("code", "triage")  # categories of a config that no selector gives any
NEXT = (
    ("loop doctor", "is everything in place?"),
    ("loop plan", "what would be started now, and why"),
    ("loop run", "start it, and go on"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a selector's answer gives a first config: usable names, those that cannot be used, its warnings."""

    categories: tuple[str, ...]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]


def run(
    directory: Path,
    *,
    selector: list[str] | None,
    force: bool,
    as_json: bool,
    agents: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Write loop.toml and `.loop/loop.db` into `directory`, say so and what comes next. Returns 0.

    The agents that are found become backends, or those of `agents`; without any there is an example of a session.
    With agents their prompt is written beside it, unless there is a file of that name.
    With `selector` it is run once, as a dry run, and every category it names gets a table. Where loop.toml exists it
    is left alone, unless `force`: then it is kept as loop.toml.bak (.bak2, …), and its `loop.state` stays in force, so
    that a log is never lost from sight. In a git work tree the state directory is added to .gitignore.

    Raises UsageError (loop.toml exists, no such directory), ConfigError (the selector gives no usable answer),
    StoreError; then nothing was written.
    """
    environ = os.environ if environ is None else environ
    directory = Path(os.path.abspath(directory))
    config = directory / CONFIG_NAME
    _refuse(directory, config, force)
    state = _kept_state(config)
    answer = None if selector is None else ask(selector, directory, environ)
    agents = found(environ) if agents is None else named(agents, environ)
    text = config_text(selector, None if answer is None else answer.categories, state, agents)
    categories = _checked(text, config)
    store = resolved(directory, state) / DB_NAME
    known = store.exists()
    position, time = _create_store(store)
    prompt = _write_prompt(directory) if agents else None
    backup = _replace(config, text)
    ignored = ignore(store.parent, directory, environ)
    for warning in answer.warnings if answer else ():
        output.message(f"the selector: {warning}")
    for problem in answer.skipped if answer else ():
        output.message(f"skipped: {problem}; selector.aliases can map it to a name")
    if as_json:
        output.print_json(
            {
                "schema": "loop.init/1",
                "as_of": output.as_of(position, time),
                "config": str(config),
                "store": str(store),
                "categories": list(categories),
                "skipped": list(answer.skipped) if answer else [],
                "agents": list(agents),
                "prompt": None if prompt is None else str(directory / PROMPT_NAME),
                "backup": None if backup is None else str(backup),
                "gitignore": None if ignored is None else str(ignored),
            }
        )
        return 0
    print(f"wrote  {output.clean(config)}  (categories: {', '.join(categories)})")
    if backup is not None:
        print(f"kept   {output.clean(backup)}")
    if agents:
        print(f"found  {', '.join(agents)}: sessions run on them, and spend what they spend")
    else:
        print("found  no agent: what sessions run is a placeholder in loop.toml, for a command of yours")
    if prompt is not None:
        print(f"{'wrote' if prompt else 'kept '}  {output.clean(directory / PROMPT_NAME)}  (what they are asked)")
    print(f"{'kept' if known else 'made'}   {output.clean(store)}")
    if ignored is not None:
        print(f"added  {output.clean(store.parent.name)}/ to {output.clean(ignored)}")
    print("\nnext:")
    for command, why in NEXT:
        print(f"  {command:<13}{why}")
    return 0


def found(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The agents that are installed."""
    path = environ.get("PATH", os.defpath)
    return tuple(agent for agent in AGENTS if shutil.which(agent, path=path))


def named(agents: Sequence[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Those that were asked for by name, each once. Raises UsageError for one that is not known or not installed."""
    if set(agents) == {NO_AGENT}:
        return ()
    if NO_AGENT in agents:
        raise UsageError(f"--agent {NO_AGENT} excludes others", "keep one of them")
    here = found(environ)
    for agent in agents:
        if agent not in AGENTS:
            raise UsageError(
                f"--agent {output.clean(agent, 32)!r}: no such agent", f"there are: {', '.join(AGENTS)}; or {NO_AGENT}"
            )
        if agent not in here:
            raise UsageError(f"no program {agent} on PATH", "install it first; or take what is found: loop init")
    return tuple(dict.fromkeys(agents))


def ask(selector: Sequence[str], directory: Path, environ: Mapping[str, str]) -> Answer:
    """Run a selector once with LOOP_DRY_RUN=1, and take the names from its answer, best first.

    Raises ConfigError with the reason and the offending keys where the answer is rejected or names nothing usable.
    """
    from loop.config_values import name_problem

    result = run_bounded(
        selector,
        cwd=directory,
        env=environ,
        timeout=SELECTOR_TIMEOUT,
        limit_bytes=LARGEST,
        extra_env={"LOOP_DRY_RUN": "1"},
    )
    ranking = rejected_by_run(result) or parse(result.stdout)
    if isinstance(ranking, Rejection):
        keys = f" ({', '.join(ranking.keys)})" if ranking.keys else ""
        raise ConfigError(
            f"the selector's answer is rejected: {ranking.reason}{keys}: {ranking.text}",
            "mend the selector, or begin with the builtin one: loop init; nothing was written",
        )
    names = [entry.category for entry in ranking.entries]
    names += [name for name in _scored(result.stdout) if name not in names]
    problems = {name: problem for name in names if (problem := name_problem(name))}
    usable = tuple(name for name in names if name not in problems)
    if not usable:
        why = "; ".join(problems.values()) or "its answer says that nothing is worth starting"
        raise ConfigError(
            f"the selector names no category that can be configured: {why}",
            "run this again when it does, or begin with the builtin one: loop init; nothing was written",
        )
    return Answer(usable, tuple(problems.values()), ranking.warnings)


def config_text(
    selector: Sequence[str] | None,
    categories: Sequence[str] | None,
    state: str = DEFAULT_STATE,
    agents: Sequence[str] = (),
) -> str:
    """The text of a new loop.toml: the template, with what a selector brought, and the agents, for the examples."""
    text = _template(CONFIG_NAME)
    regions: dict[str, str] = {}
    if selector is not None:
        regions["selector"] = f"command = {toml.value(list(selector))}\n"
    target = f"target = {1 / len(EXAMPLES)}\n" if categories is None else ""
    if categories is not None or agents:
        lines = target + (f'prompt_file = "{PROMPT_NAME}"\n' if agents else "")
        names = EXAMPLES if categories is None else categories
        regions["categories"] = "\n".join(f"[categories.{toml.key(name)}]\n{lines}" for name in names)
    if agents:
        regions["backends"] = "\n".join(f'[backends.{agent}]\npreset = "{agent}"\n' for agent in agents) + AGENT_KEYS
    text = re.sub(
        r"^#: (\w+)\n(.*?)^#: end\n",
        lambda match: regions.get(match[1], match[2]),
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return text.replace(f'state = "{DEFAULT_STATE}" ', f"state = {toml.value(state)} ")


AGENT_KEYS = """\
#args = ["--model", "…"]       # the agent's own options
#env = { CLAUDE_CONFIG_DIR = "~/.claude-2" }   # another account of an agent is another backend
#pool = "my-subscription"     # backends of one pool share their limits
#concurrency = 2              # sessions on it at once
#max_runs_per_day = 100       # and max_tokens_per_day, max_cost_per_day
"""


def _template(name: str) -> str:
    return resources.files("loop").joinpath("data", name).read_text("utf-8")


def ignore(state: Path, root: Path, environ: Mapping[str, str]) -> Path | None:
    """Have git ignore the state directory: the .gitignore that was added to, or None where there was no need.

    There is none outside a work tree, where it is ignored already, and where the project's directory `root` lies in
    it, which nobody wants ignored. Raises StoreError where it cannot be written.
    """
    if root.is_relative_to(state) or work_tree(state.parent) is None or is_ignored(state, environ):
        return None
    path = state.parent / ".gitignore"
    try:
        before = path.read_bytes() if path.exists() else b""
        with path.open("ab") as file:
            file.write((b"\n" if before and not before.endswith(b"\n") else b"") + os.fsencode(f"{state.name}/\n"))
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}", f"have git ignore {state} in another way"
        ) from None
    return path


def work_tree(directory: Path) -> Path | None:
    """The git work tree that `directory`, with its links followed, lies in, or None."""
    real = directory.resolve()
    return next((parent for parent in (real, *real.parents) if os.path.lexists(parent / ".git")), None)


def is_ignored(state: Path, environ: Mapping[str, str]) -> bool:
    """Whether git ignores the state directory; without a git that answers, whether the .gitignore beside it says so."""
    result = run_bounded(
        ["git", "check-ignore", "-q", f"{state.name}/"],
        cwd=state.parent,
        env={name: value for name, value in environ.items() if not name.startswith("GIT_")},
        timeout=GIT_TIMEOUT,
        limit_bytes=LARGEST,
    )
    if result.code in (0, 1):
        return result.code == 0
    try:
        lines = (state.parent / ".gitignore").read_text("utf-8", "replace").splitlines()
    except OSError:
        return False
    return any(line.strip().strip("/") == state.name for line in lines)


# Steps of `run`


def _refuse(directory: Path, config: Path, force: bool) -> None:
    if not directory.is_dir():
        raise UsageError(f"no directory {directory}", f"make it first: mkdir -p {directory}")
    if config.is_dir():
        raise UsageError(f"{config} is a directory", "a config is a file; move the directory away")
    if os.path.lexists(config) and not force:
        raise UsageError(
            f"{config} exists; nothing was written",
            "look at it: loop config check; or write a new one and keep this as loop.toml.bak: loop init --force",
        )


def _kept_state(config: Path) -> str:
    """`loop.state` of a config that is about to be replaced; the default where there is none, or none to be read."""
    try:
        state = at(config).state
    except ConfigError:
        return DEFAULT_STATE
    return str(state.relative_to(config.parent) if state.is_relative_to(config.parent) else state)


def _scored(raw: bytes) -> list[str]:
    """Every name in `all_scores` of an answer that is no rejection, whatever its score."""
    scores = json.loads(raw.decode("utf-8-sig")).get("all_scores") or {}
    names = list(scores) if isinstance(scores, dict) else [item.get("category") for item in scores]
    positive = parse(json.dumps({"all_scores": [{"category": name, "score": 1} for name in names]}).encode())
    return [entry.category for entry in positive.entries] if isinstance(positive, Ranking) else []


def _checked(text: str, config: Path) -> tuple[str, ...]:
    """The categories of a config text, which is sure to be usable. Raises ConfigError, UsageError."""
    from loop.config_file import parse as parse_config

    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("the selector's command is not UTF-8", "name the program and its arguments in UTF-8") from None
    return tuple(parse_config(text, config).categories)


def _write_prompt(directory: Path) -> bool:
    """Write the agents' prompt; False where there is a file of that name, which stays. Raises StoreError."""
    path = directory / PROMPT_NAME
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(_template(PROMPT_NAME))
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror or error}", "check the directory, its space and rights"
        ) from None
    return True


def _create_store(path: Path) -> tuple[int, str | None]:
    """Open or make the store; returns its head's position and time. Raises StoreError."""
    from events.store import EventLog
    from loop import __version__
    from loop.filesystem import refuse_network

    if not path.exists():
        refuse_network(path.parent)
    log = EventLog.open(path, release=__version__)
    try:
        head = log.head()
    finally:
        log.close()
    return head.position, head.at


def _replace(config: Path, text: str) -> Path | None:
    """Put `text` in place of a config, whole or not at all; returns where the old one is kept. Raises StoreError."""
    target = Path(os.path.realpath(config))  # a link, as to a collection of dotfiles, stays one
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        backup = _backup(config)
        try:
            with draft.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(
            f"cannot write {config}: {error.strerror or error}", "check the directory, its space and rights"
        ) from None
    return backup


def _backup(config: Path) -> Path | None:
    """A copy of the config beside it; an earlier backup, perhaps the only one of a config by hand, is never touched."""
    if not config.exists():
        return None
    number = 1
    while os.path.lexists(backup := config.with_name(f"{config.name}.bak{number if number > 1 else ''}")):
        number += 1
    shutil.copy2(config, backup)
    return backup
