"""Where a project's config and state are. No pydantic here: every read command comes this way."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from events.errors import ConfigError, UsageError

CONFIG_NAME = "loop.toml"
DEFAULT_STATE = ".loop"
DEFAULT_TASKS = "tasks"
DB_NAME = "loop.db"
LOCKS_NAME = "locks"
LARGEST_CONFIG = 1 << 20  # bytes; a config is written by a person


class ConfigMissing(ConfigError):
    """There is no loop.toml, and no store, in the directory or above it; `loop init` writes both."""

    code: ClassVar[str] = "config_missing"


@dataclass(frozen=True, slots=True)
class Home:
    """A project's places. All paths are absolute; `config` may not exist where only a store does."""

    config: Path
    root: Path
    state: Path

    @property
    def db(self) -> Path:
        return self.state / DB_NAME

    @property
    def lock_dir(self) -> Path:
        return self.state / LOCKS_NAME

    @property
    def runs_dir(self) -> Path:
        return self.state / "runs"

    @property
    def pass_lock(self) -> Path:
        """Held while a pass observes."""
        return self.state / "pass.lock"

    @property
    def retention_lock(self) -> Path:
        """Held while old output is removed; its time is when that was last looked at."""
        return self.state / "retention.lock"

    @property
    def run_lock(self) -> Path:
        """Held by `loop run`, of which there is one."""
        return self.state / "run.lock"


def find(directory: Path | None, config: Path | None, environ: Mapping[str, str]) -> Home:
    """The home that `-C DIR`, `--config FILE`, `LOOP_CONFIG` and the working directory name, in this order:

    `config` if given; the first of `directory` and its parents that holds `loop.toml` or `.loop/loop.db`;
    without a `directory`, `LOOP_CONFIG`, then the same walk from the working directory. A relative `config`
    is relative to `directory`, as if the command had been started there.

    Raises ConfigMissing where nothing is found, ConfigError where a `loop.toml` cannot be read, UsageError
    where `directory` does not exist.
    """
    start = _start(directory)
    if config is not None:
        return _explicit(resolved(start, str(config)), "--config")
    if directory is None and environ.get("LOOP_CONFIG"):
        return _explicit(resolved(start, environ["LOOP_CONFIG"]), "LOOP_CONFIG")
    for candidate in (start, *start.parents):
        if os.path.lexists(candidate / CONFIG_NAME) or _has_store(candidate / DEFAULT_STATE):
            return at(candidate / CONFIG_NAME)
    raise ConfigMissing(f"no {CONFIG_NAME} in {start} or above", "run: loop init")


def at(config: Path) -> Home:
    """The home of one config file, which need not exist. Only the key `loop.state` is read, and leniently:

    a store must stay readable while the rest of the config is wrong. Where the file is no TOML at all,
    `.loop` beside it is taken if a store is there. Raises ConfigError otherwise.
    """
    root = config.parent
    beside = Home(config, root, root / DEFAULT_STATE)
    if not os.path.lexists(config):
        return beside
    try:
        return Home(config, root, resolved(root, _state_key(read_toml(config))))
    except UnusableConfig:
        if _has_store(beside.state):
            return beside
        raise


class UnusableConfig(ConfigError):
    """The config file is no TOML: its text is broken, as opposed to missing or unreadable."""


def read_text(config: Path) -> str:
    """The text of a config file. Raises ConfigError if it is a directory, unreadable, too large or not UTF-8."""
    try:
        if config.is_dir():
            raise ConfigError(f"{config} is a directory", "a config is a file; move the directory away or use --config")
        with config.open("rb") as file:
            raw = file.read(LARGEST_CONFIG + 1)
    except FileNotFoundError:
        raise ConfigMissing(f"no config file at {config}", "run: loop init") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigError(f"cannot read {config}: {reason}", "check its permissions: ls -l") from None
    if len(raw) > LARGEST_CONFIG:
        raise UnusableConfig(f"{config} is larger than {LARGEST_CONFIG >> 20} MiB", "is it the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnusableConfig(f"{config}: line {line} is not UTF-8", "save the file as UTF-8") from None


def digest(text: str) -> str:
    """What `loop.configured` keeps of a config's text, to know it by."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_toml(text: str, config: Path) -> dict[str, object]:
    """The tables of a config. Raises ConfigError with the line of a syntax error."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UnusableConfig(
            f"{config} is not valid TOML: {error}", "mend that line, then: loop config check"
        ) from None
    except RecursionError:
        raise UnusableConfig(f"{config} is nested too deeply", "a config needs three levels") from None


def read_toml(config: Path) -> dict[str, object]:
    """The tables of a config file. Raises ConfigError."""
    return parse_toml(read_text(config), config)


def resolved(base: Path, text: str) -> Path:
    """A path from the config as an absolute one: `~` expands, a relative one starts at `base`. Links stay links."""
    return Path(os.path.abspath(base / os.path.expanduser(text)))


def _start(directory: Path | None) -> Path:
    try:
        start = resolved(Path.cwd(), str(directory or "."))
    except FileNotFoundError:
        raise UsageError("the working directory no longer exists", "change to one that does, or use -C DIR") from None
    if directory is not None and not start.is_dir():
        raise UsageError(f"no directory {start}", "-C takes a directory that exists")
    return start


def _explicit(config: Path, source: str) -> Home:
    if not os.path.lexists(config):
        raise ConfigMissing(f"no config file at {config} (from {source})", "check the path, or run: loop init")
    return at(config)


def _has_store(state: Path) -> bool:
    return os.path.lexists(state / DB_NAME)


def _state_key(tables: dict[str, object]) -> str:
    section = tables.get("loop")
    state = section.get("state") if isinstance(section, dict) else None
    usable = isinstance(state, str) and state.strip() and "\0" not in state
    return str(state) if usable else DEFAULT_STATE
