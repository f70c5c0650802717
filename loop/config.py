"""The effective config: frozen models of exactly the keys of loop.toml, with the documented defaults.

Each section is one model; `loop.config_file` reads them from a file and reports every problem at once.
Durations are seconds, sizes bytes, shares 0..1. Paths stay as written; the helpers of `Config` resolve them
against the directory of the config file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from loop.command import literal
from loop.command import render_argv as render_argv
from loop.config_values import (
    MOST,
    Aliases,
    Count,
    Cwd,
    Env,
    ExitCodes,
    GateArgv,
    LiteralArgv,
    Money,
    Name,
    Names,
    Parallel,
    PathText,
    Patterns,
    PositiveSeconds,
    Prompt,
    Ratio,
    Seconds,
    SessionArgv,
    Share,
    Size,
    SomeNames,
    Text,
    Tokens,
    Weights,
    Words,
)
from loop.home import DEFAULT_STATE, DEFAULT_TASKS, resolved

if TYPE_CHECKING:
    from loop.sessions.rundir import Reader

DEFAULT_BACKEND = "default"


class Section(BaseModel):
    """One table of the file. Unknown keys are errors, and nothing is converted that TOML has a type for."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LoopSection(Section):
    """`[loop]`: the slots and the timer. Exactly one of `every` and `cron` is set; `timezone` goes with `cron`."""

    slots: Count = 6
    cron: Text | None = None
    timezone: Text | None = Field(default_factory=lambda given: "UTC" if given.get("cron") else None)
    every: PositiveSeconds | None = Field(default_factory=lambda given: None if given.get("cron") else 1800)
    jitter: Seconds = 0
    policy: Literal["intent", "fair"] = "intent"
    cwd: Cwd = "."
    state: PathText = DEFAULT_STATE
    max_starts_per_hour: Count = Field(default_factory=lambda given: 2 * int(given.get("slots", 6)))
    max_starts_per_day: Count | None = None
    stagger: Seconds = 0
    notify: LiteralArgv | None = None

    @field_validator("cron")
    @classmethod
    def _fires(cls, cron: str | None) -> str | None:
        if cron is None:
            return cron
        from cronsim import CronSim, CronSimError  # only who uses cron pays for its import

        try:
            if len(cron.split()) != 5:
                raise CronSimError("five fields are wanted: minute hour day month weekday")
            next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC)))
        except StopIteration:
            raise ValueError(f"{cron!r} never fires") from None
        except CronSimError as error:
            raise ValueError(f'{cron!r} is no cron expression ({error}); an example: "*/30 * * * *"') from None
        return cron

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, timezone: str | None, info: ValidationInfo) -> str | None:
        if timezone is None:
            return timezone
        if info.data.get("cron", "") is None:
            raise ValueError('goes with cron; every = "…" is anchored in UTC')
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f'{timezone!r} is no known timezone; an example: "Europe/Stockholm"') from None
        return timezone

    @field_validator("every")
    @classmethod
    def _not_both(cls, every: float | None, info: ValidationInfo) -> float | None:
        if every is not None and info.data.get("cron"):
            raise ValueError("every and cron exclude each other; keep one")
        return every


class SelectorSection(Section):
    """`[selector]`: who ranks the categories; a command or the builtin one. Its command is taken as written:

    braces mean nothing in it.
    """

    command: LiteralArgv | None = None
    builtin: bool = False
    timeout: PositiveSeconds = 30
    max_age: Seconds = 900
    on_reject: Literal["fallback", "hold"] = "fallback"
    fallback_slots: Count = 1
    default_category: Name | None = None
    aliases: Aliases = Field(default_factory=dict)
    tasks: PathText = DEFAULT_TASKS
    weights: Weights = Field(default_factory=dict)
    learn: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> SelectorSection:
        if (self.command is not None) == self.builtin:
            what = "command and builtin = true exclude each other; keep one" if self.builtin else "a source is missing"
            raise ValueError(what if self.builtin else f'{what}; write command = ["./selector"] or builtin = true')
        return self


class AllocationSection(Section):
    """`[allocation]`: the window shares are counted in, and the cap on over-allocation (None: no cap)."""

    window: PositiveSeconds = 172_800
    max_ratio: Ratio | None = None


class RespawnSection(Section):
    """`[respawn]`: further sessions after a productive one; `limit` 0 turns them off."""

    limit: Annotated[int, Field(ge=0, le=MOST)] = 1
    min_grade: Share = 0.65


class ResumeSection(Section):
    """`[resume]`: how often in a row one conversation is gone on with after it was cut off, and for how long it can be;

    `limit` 0 turns it off.
    """

    limit: Annotated[int, Field(ge=0, le=MOST)] = 2
    max_age: PositiveSeconds = 7 * 86_400


class HostSection(Section):
    """`[host]`: bounds on the machine; None: not measured."""

    max_load_per_cpu: Ratio | None = None
    min_memory_available: Share | None = None
    min_disk_free: Size | None = None


class RetentionSection(Section):
    """`[retention]`: how long and how much of what sessions wrote is kept, once they are over; of events, all is."""

    age: PositiveSeconds = 30 * 86_400
    size: Size = 10 << 30


class SessionSection(Section):
    """`[session]`: defaults for the sessions of every category."""

    timeout: PositiveSeconds = 3000
    silence: PositiveSeconds = 900
    kill_on_silence: bool = False
    grace: Seconds = 20
    env: Env = Field(default_factory=dict)
    env_file: PathText | None = None
    before: SessionArgv | None = None
    after: SessionArgv | None = None
    grader: SessionArgv | None = None
    grader_timeout: PositiveSeconds = 60


class CategorySection(Section):
    """`[categories.NAME]`: a kind of work. The keys it shares with `[session]` override it; None: not set."""

    target: Share | None = None
    parallel: Parallel = True
    maintenance: bool = False
    note: Text | None = None
    command: SessionArgv | None = None
    gate: GateArgv | None = None
    cooldown: Seconds | None = None
    backends: SomeNames | None = None
    lanes: Count = 1
    locks: Names = ()
    evidence: Literal["outcome", "git", "exit"] = "outcome"
    exit_codes: ExitCodes = Field(default_factory=dict)
    prompt: Prompt | None = None
    prompt_file: PathText | None = None
    cwd: Cwd | None = None
    timeout: PositiveSeconds | None = None
    silence: PositiveSeconds | None = None
    kill_on_silence: bool | None = None
    grace: Seconds | None = None
    env: Env = Field(default_factory=dict)
    env_file: PathText | None = None
    before: SessionArgv | None = None
    after: SessionArgv | None = None
    grader: SessionArgv | None = None
    grader_timeout: PositiveSeconds | None = None
    max_runs_per_day: Count | None = None
    max_tokens_per_day: Tokens | None = None
    max_cost_per_day: Money | None = None

    @field_validator("prompt_file")
    @classmethod
    def _one_prompt(cls, prompt_file: str | None, info: ValidationInfo) -> str | None:
        if prompt_file is not None and info.data.get("prompt") is not None:
            raise ValueError("prompt and prompt_file exclude each other; keep one")
        return prompt_file


class BackendSection(Section):
    """`[backends.NAME]`: a way to run an agent. `pool` None means a pool of its own, by the backend's name.

    `preset` gives whatever the table itself leaves out (`loop.config_presets`); a section of a Config has it filled in.
    `resume_command` goes on with the conversation `{resume}`; `login` asks the agent whether somebody is logged in.
    """

    pool: Name | None = None
    preset: Name | None = None
    command: SessionArgv | None = None
    args: Words = ()
    exit_codes: ExitCodes = Field(default_factory=dict)
    limit_patterns: Patterns = ()
    evidence: Literal["exit"] | None = None
    parser: Name | None = None
    resume_command: SessionArgv | None = None
    login: Words = ()
    env: Env = Field(default_factory=dict)
    concurrency: Count | None = None
    max_runs_per_day: Count | None = None
    max_tokens_per_day: Tokens | None = None
    max_cost_per_day: Money | None = None


class PoolSection(Section):
    """`[pools.NAME]`: limits of all backends of a pool together; None: no limit. A day is a rolling one, money USD."""

    concurrency: Count | None = None
    max_runs_per_day: Count | None = None
    max_tokens_per_day: Tokens | None = None
    max_cost_per_day: Money | None = None


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """What holds for the sessions of one category: its own keys over those of `[session]`.

    Times are seconds. `cwd` is absolute and a template, for `loop.command.render`; `env` has the category's over
    the session's, `~` at the beginning of a value expanded; `env_file` is absolute and unread.
    """

    timeout: float
    silence: float
    kill_on_silence: bool
    grace: float
    env: Mapping[str, str]
    env_file: Path | None
    before: tuple[str, ...] | None
    after: tuple[str, ...] | None
    grader: tuple[str, ...] | None
    grader_timeout: float
    cwd: str


@dataclass(frozen=True, eq=False)  # each is its own: read again, a file may mean other paths
class Config:
    """A whole and valid config. `path` is its file's, absolute; `source` the digest of the text that was read."""

    path: Path
    loop: LoopSection
    selector: SelectorSection
    allocation: AllocationSection
    respawn: RespawnSection
    host: HostSection
    session: SessionSection
    categories: Mapping[str, CategorySection]
    backends: Mapping[str, BackendSection]
    retention: RetentionSection = field(default_factory=RetentionSection)
    resume: ResumeSection = field(default_factory=ResumeSection)
    pools: Mapping[str, PoolSection] = field(default_factory=dict)
    source: str | None = None

    @property
    def directory(self) -> Path:
        """Where relative paths start, and where the selector and the gates run."""
        return self.path.parent

    @cached_property
    def state(self) -> Path:
        return resolved(self.directory, self.loop.state)

    def pool_of(self, backend: str) -> str:
        return self.backends[backend].pool or backend

    def backends_of(self, category: str) -> tuple[str, ...]:
        """The backends a category may use, in the file's order of preference."""
        allowed = self.categories[category].backends
        return tuple(self.backends) if allowed is None else allowed

    def command_of(self, category: str, backend: str) -> tuple[str, ...]:
        """The argv template of a session: the category's own, else its backend's."""
        command = self.categories[category].command or self.backends[backend].command
        assert command is not None, f"{category} on {backend} has no command; reading the config checks that"
        return command

    def resume_command_of(self, category: str, backend: str) -> tuple[str, ...] | None:
        """The argv template that goes on with a conversation; None where none can be."""
        return None if self._runs_own(category) else self.backends[backend].resume_command

    def _runs_own(self, category: str) -> bool:
        """Whether sessions of a category are no run of their backend's agent."""
        return self.categories[category].command is not None

    def evidence_of(self, category: str, backend: str) -> Literal["outcome", "git", "exit"]:
        """What counts as evidence: what the category says, or else its backend."""
        own = self.categories[category]
        if "evidence" in own.model_fields_set or self._runs_own(category):
            return own.evidence
        return self.backends[backend].evidence or own.evidence

    def exit_codes_of(self, category: str, backend: str) -> Mapping[int, str]:
        """The exit codes that mean an outcome, the category's over its backend's."""
        own = self.categories[category].exit_codes
        return own if self._runs_own(category) else {**self.backends[backend].exit_codes, **own}

    def reader_of(self, category: str, backend: str) -> Reader:
        """How the result of a session is read. Nobody reads what a category's own command prints."""
        section = self.backends[backend]
        if self._runs_own(category):
            return {"parser": None, "limit_patterns": []}
        return {"parser": section.parser, "limit_patterns": list(section.limit_patterns)}

    @lru_cache(1024)  # noqa: B019 - asked for at every grant, and a pass has one config
    def session_of(self, category: str) -> SessionSettings:
        own, base = self.categories[category], self.session
        env_file = own.env_file or base.env_file
        return SessionSettings(
            timeout=base.timeout if own.timeout is None else own.timeout,
            silence=base.silence if own.silence is None else own.silence,
            kill_on_silence=base.kill_on_silence if own.kill_on_silence is None else own.kill_on_silence,
            grace=base.grace if own.grace is None else own.grace,
            env=expanded({**base.env, **own.env}),
            env_file=None if env_file is None else resolved(self.directory, env_file),
            before=own.before or base.before,
            after=own.after or base.after,
            grader=own.grader or base.grader,
            grader_timeout=base.grader_timeout if own.grader_timeout is None else own.grader_timeout,
            cwd=str(resolved(Path(literal(str(self.directory))), own.cwd or self.loop.cwd)),
        )


def expanded(env: Mapping[str, str]) -> dict[str, str]:
    """Variables whose values begin with `~` as paths: no shell will expand them later."""
    return {name: os.path.expanduser(value) for name, value in env.items()}


@lru_cache(8)  # of one config, asked for at every decision
def facts(config: Config) -> tuple[dict[str, object], dict[str, object]]:
    """The `(data, private)` of the event `loop.configured`: JSON-ready, every default expanded, durations in seconds.

    `data` is what views and `decide` read; `private` has commands, paths, prompts and notes. Values of `env` are
    in neither, so a changed secret is no changed config. `data["hash"]` is over everything else in both. Nobody changes
    what this returns: everybody gets the same.
    """
    data = _data(config)
    private = _private(config)
    canonical = json.dumps({"data": data, "private": private}, sort_keys=True, separators=(",", ":"))
    return {"hash": hashlib.sha256(canonical.encode()).hexdigest(), **data}, private


def _data(config: Config) -> dict[str, object]:
    loop, selector, allocation = config.loop, config.selector, config.allocation
    return {
        "slots": loop.slots,
        "every": loop.every,
        "cron": loop.cron,
        "timezone": loop.timezone,
        "jitter": loop.jitter,
        "policy": loop.policy,
        "max_starts_per_hour": loop.max_starts_per_hour,
        "max_starts_per_day": loop.max_starts_per_day,
        "stagger": loop.stagger,
        "window": allocation.window,
        "max_ratio": allocation.max_ratio,
        "selector": {
            "kind": "builtin" if selector.builtin else "command",
            "timeout": selector.timeout,
            "max_age": selector.max_age,
            "on_reject": selector.on_reject,
            "fallback_slots": selector.fallback_slots,
            "default_category": selector.default_category,
            "aliases": dict(selector.aliases),
            "weights": dict(selector.weights),
            "learn": selector.learn,
        },
        "respawn": {"limit": config.respawn.limit, "min_grade": config.respawn.min_grade},
        "host": config.host.model_dump(),
        "categories": {name: _category_data(config, name) for name in config.categories},
        "backends": {
            name: {
                "pool": config.pool_of(name),
                "concurrency": backend.concurrency,
                "max_runs_per_day": backend.max_runs_per_day,
                "command": backend.command is not None,
                "env": sorted(backend.env),
                "max_tokens_per_day": backend.max_tokens_per_day,
                "max_cost_per_day": backend.max_cost_per_day,
            }
            for name, backend in config.backends.items()
        },
        "pools": {name: pool.model_dump() for name, pool in config.pools.items()},
    }


def _category_data(config: Config, name: str) -> dict[str, object]:
    category, session = config.categories[name], config.session_of(name)
    return {
        "target": category.target,
        "parallel": category.parallel,
        "maintenance": category.maintenance,
        "cooldown": category.cooldown,
        "backends": None if category.backends is None else list(category.backends),
        "lanes": category.lanes,
        "locks": sorted(category.locks),
        "evidence": category.evidence,
        "exit_codes": {str(code): outcome for code, outcome in sorted(category.exit_codes.items())},
        "timeout": session.timeout,
        "silence": session.silence,
        "kill_on_silence": session.kill_on_silence,
        "grace": session.grace,
        "gate": category.gate is not None,
        "own_command": category.command is not None,
        "env": sorted(session.env),
        "max_runs_per_day": category.max_runs_per_day,
        "max_tokens_per_day": category.max_tokens_per_day,
        "max_cost_per_day": category.max_cost_per_day,
    }


def _private(config: Config) -> dict[str, object]:
    hooks = ("before", "after", "grader", "env_file")
    own = ("note", "command", "gate", "cwd", "prompt", "prompt_file", *hooks)
    return {
        "loop": {"cwd": config.loop.cwd, "state": config.loop.state, "notify": _listed(config.loop.notify)},
        "selector": {"command": _listed(config.selector.command), "tasks": config.selector.tasks},
        "retention": config.retention.model_dump(),
        "resume": config.resume.model_dump(),
        "session": {key: _listed(getattr(config.session, key)) for key in hooks},
        "categories": {
            name: {key: _listed(getattr(category, key)) for key in own} for name, category in config.categories.items()
        },
        "backends": {name: _private_backend(backend) for name, backend in config.backends.items()},
    }


def _private_backend(backend: BackendSection) -> dict[str, object]:
    """What it runs, and how that is read, where it is: a backend that only has a command keeps the hash it had."""
    reading = {
        "preset": backend.preset,
        "parser": backend.parser,
        "evidence": backend.evidence,
        "exit_codes": {str(code): outcome for code, outcome in sorted(backend.exit_codes.items())},
        "limit_patterns": list(backend.limit_patterns),
        "resume_command": _listed(backend.resume_command),
    }
    return {"command": _listed(backend.command), **{key: value for key, value in reading.items() if value}}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
