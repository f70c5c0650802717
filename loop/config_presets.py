"""`[presets.NAME]`, and what `preset = "…"` fills in on a backend.

A backend's own keys come first, then the preset's; a preset of the file may itself begin with another (`base`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

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


def filled_in(
    backends: Mapping[str, BackendSection | None], presets: Mapping[str, PresetSection | None], problems: list[str]
) -> dict[str, BackendSection | None]:
    """The backends with what their presets give. One whose preset has a problem is None, like any other's."""
    known: dict[str, tuple[Preset, str | None] | None] = {}
    for name, section in presets.items():
        known[name] = None if section is None else _own(name, section, problems)
    return {
        name: None if section is None else _filled(name, section, known, problems) for name, section in backends.items()
    }


def programs_of_the_selector(
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


def _own(name: str, section: PresetSection, problems: list[str]) -> tuple[Preset, str | None] | None:
    """A preset of the file, and whose parser reads for it; None, and its problem noted."""
    place = f"[presets.{name}]"
    if name in BUILTIN:
        problems.append(f'{place}: {name} is there already; choose another name and write base = "{name}"')
        return None
    try:
        base = None if section.base is None else preset(section.base)
        if section.parser is not None and preset(section.parser).parse is None:
            problems.append(f"{place} parser: preset {section.parser} reads nothing; leave the key out")
            return None
    except ConfigError as error:
        problems.append(f"{place}: {error.message}")
        return None
    command = section.command or (base and base.command)
    if not command:
        problems.append(f'{place}: no command; write command = ["my-agent"], or base = "claude"')
        return None
    parser = section.parser or (section.base if base and base.parse else None)
    made = Preset(
        command=command,
        prompt=section.prompt if section.prompt is not None else base.prompt if base else ("{prompt}",),
        exit_codes={**(base.exit_codes if base else {}), **section.exit_codes},
        limit_patterns=section.limit_patterns if section.limit_patterns is not None else _patterns(base),
        evidence=section.evidence or (base.evidence if base else None),
        env={**(base.env if base else {}), **section.env},
    )
    return made, parser


def _patterns(base: Preset | None) -> tuple[str, ...]:
    return () if base is None else base.limit_patterns


def _filled(
    name: str, section: BackendSection, own: Mapping[str, tuple[Preset, str | None] | None], problems: list[str]
) -> BackendSection | None:
    place = f"[backends.{name}]"
    if section.args and (section.preset is None or section.command is not None):
        problems.append(f"{place} args: they go into a preset's command; write them into command")
        return None
    if section.preset is None:
        if section.parser is not None:
            return section if _reads(place, section.parser, problems) else None
        return section
    if section.preset in own:
        found = own[section.preset]
        if found is None:
            return None
        base, parser = found
    else:
        try:
            base = preset(section.preset)
        except ConfigError as error:
            problems.append(f"{place} preset: {error.message}")
            return None
        parser = section.preset if base.parse else None
    if section.parser is not None and not _reads(place, section.parser, problems):
        return None
    given = section.model_fields_set
    values = {
        "command": section.command or (*base.command, *section.args, *base.prompt),
        "exit_codes": {**base.exit_codes, **section.exit_codes},
        "limit_patterns": section.limit_patterns if "limit_patterns" in given else base.limit_patterns,
        "evidence": section.evidence or base.evidence,
        "parser": section.parser or parser,
        "env": {**base.env, **section.env},
    }
    # What the file sets stays known as such: `config show --origin` tells the two apart.
    return BackendSection.model_construct(given, **{**dict(section), **values})


def _reads(place: str, parser: str, problems: list[str]) -> bool:
    """Whether there is such a parser; if not, that is a problem."""
    try:
        if preset(parser).parse is not None:
            return True
        problems.append(f"{place} parser: preset {parser} reads nothing; leave the key out")
    except ConfigError as error:
        problems.append(f"{place} parser: {error.message}")
    return False
