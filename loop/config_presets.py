"""`[presets.NAME]`, and what `preset = "…"` fills in on a backend.

A backend's own keys come first, then the preset's; a preset of the file may itself begin with another (`base`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from events.errors import ConfigError
from loop.config import BackendSection, CategorySection, Section
from loop.config_values import Env, ExitCodes, Name, Patterns, SessionArgv, Words
from loop.presets.preset import Preset
from loop.presets.registry import BUILTIN, preset

SHELLS = frozenset({"sh", "bash", "dash", "ksh", "zsh"})
TASK_IN_PROGRAM = '{task} is the selector\'s text, and a shell runs the prompt as a program; write "$LOOP_TASK"'


class PresetSection(Section):
    """`[presets.NAME]`: an agent of one's own. What it leaves out is as in `base`, if it has one.

    `parser` names the preset whose parser reads the output.
    """

    base: Name | None = None
    command: SessionArgv | None = None
    prompt: Words | None = None
    parser: Name | None = None
    exit_codes: ExitCodes = Field(default_factory=dict)
    limit_patterns: Patterns | None = None
    evidence: Literal["exit"] | None = None
    env: Env = Field(default_factory=dict)
    resume: Words | None = None
    login: Words | None = None


class Known(NamedTuple):
    """A preset, and the name of the one whose parser reads for it."""

    preset: Preset
    parser: str | None


NOTHING = Preset(command=())


def filled_in(
    backends: Mapping[str, BackendSection | None], presets: Mapping[str, PresetSection | None], problems: list[str]
) -> dict[str, BackendSection | None]:
    """The backends with what their presets give. One whose preset has a problem is None, like any other's."""
    own = {name: _own(name, section, problems) if section else None for name, section in presets.items()}
    return {name: _filled(name, section, own, problems) if section else None for name, section in backends.items()}


def tasks_in_programs(
    name: str, category: CategorySection, backends: Mapping[str, BackendSection | None]
) -> Iterator[str]:
    """Where a prompt is a program, words of the selector must not be part of it."""
    sections = [backends.get(each) for each in category.backends or backends]
    commands = [category.command] if category.command else [each.command for each in sections if each and each.command]
    if category.prompt is not None and "{task}" in category.prompt and any(map(runs_its_prompt, commands)):
        yield f"[categories.{name}] prompt: {TASK_IN_PROGRAM}"


def runs_its_prompt(command: Sequence[str]) -> bool:
    """Whether a command is a shell that takes the prompt for a program."""
    return Path(command[0]).name in SHELLS and tuple(command[-2:]) == ("-c", "{prompt}")


def _own(name: str, section: PresetSection, problems: list[str]) -> Known | None:
    """A preset of the file; None, and its problem noted, where it is none."""
    place = f"[presets.{name}]"
    if name in BUILTIN:
        problems.append(f'{place}: {name} is there already; choose another name and write base = "{name}"')
        return None
    try:
        base = Known(NOTHING, None) if section.base is None else _known(section.base)
        parser = base.parser if section.parser is None else _reading(section.parser)
    except ConfigError as error:
        problems.append(f"{place} {error.message}")
        return None
    command = section.command or base.preset.command
    if not command:
        problems.append(f'{place} no command; write command = ["my-agent"], or base = "claude"')
        return None
    made = replace(
        base.preset,
        command=command,
        prompt=base.preset.prompt if section.prompt is None else section.prompt,
        exit_codes={**base.preset.exit_codes, **section.exit_codes},
        limit_patterns=base.preset.limit_patterns if section.limit_patterns is None else section.limit_patterns,
        evidence=section.evidence or base.preset.evidence,
        env={**base.preset.env, **section.env},
        resume=_own_or_base(section.resume, section, base.preset.resume),
        login=_own_or_base(section.login, section, base.preset.login),
    )
    return Known(made, parser)


def _own_or_base(own: tuple[str, ...] | None, section: PresetSection, base: tuple[str, ...]) -> tuple[str, ...]:
    """Words that only mean something to a program: those of a base go with its command."""
    return (() if section.command else base) if own is None else own


def _filled(
    name: str, section: BackendSection, own: Mapping[str, Known | None], problems: list[str]
) -> BackendSection | None:
    """The section with what its preset gives; None, and its problem noted, where that cannot be."""
    place = f"[backends.{name}]"
    if section.args and (section.preset is None or section.command is not None):
        problems.append(f"{place} args: they go into a preset's command; write them into command")
        return None
    try:
        parser = None if section.parser is None else _reading(section.parser)
        if section.preset is None:
            return section
        known = own[section.preset] if section.preset in own else _known(section.preset, own)
    except ConfigError as error:
        problems.append(f"{place} {error.message}")
        return None
    if known is None:  # a preset of the file, whose problem is noted
        return None
    base, given = known.preset, section.model_fields_set
    resume = (*base.command, *section.args, *base.resume, *base.prompt)
    values = {
        "resume_command": section.resume_command or (resume if base.resume and not section.command else None),
        "login": section.login or (() if section.command else base.login),
        "command": section.command or (*base.command, *section.args, *base.prompt),
        "exit_codes": {**base.exit_codes, **section.exit_codes},
        "limit_patterns": section.limit_patterns if "limit_patterns" in given else base.limit_patterns,
        "evidence": section.evidence or base.evidence,
        "parser": parser or known.parser,
        "env": {**base.env, **section.env},
    }
    # What the file sets stays known as such: `config show --origin` tells the two apart.
    return BackendSection.model_construct(given, **{**dict(section), **values})


def _known(name: str, also: Iterable[str] = ()) -> Known:
    """A preset that is there without the file. Raises ConfigError."""
    found = preset(name, also)
    return Known(found, name if found.parse else None)


def _reading(name: str) -> str:
    """The name of a preset that has a parser. Raises ConfigError."""
    if preset(name).parse is None:
        raise ConfigError(f"parser: preset {name} reads nothing; leave the key out")
    return name
