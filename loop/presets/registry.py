"""Which presets there are: ours, and those of installed packages (entry points of the group `loop.presets`)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module

from events.errors import ConfigError
from loop.presets.preset import Preset

BUILTIN = ("claude", "codex", "gptme", "shell")
GROUP = "loop.presets"


def preset(name: str, also: Iterable[str] = ()) -> Preset:
    """The preset of this name; ours come first, so that no package can replace them unseen.

    `also`: further names that its writer may have meant. Raises ConfigError for a name that nobody has, and for a
    plug-in that cannot be loaded or is no preset.
    """
    if name in BUILTIN:
        found: object = import_module(f"loop.presets.{name}").PRESET
    else:
        found = _plugin(name, also)
    if not isinstance(found, Preset):
        raise ConfigError(
            f"preset {name!r} of an installed package is no loop.presets.preset.Preset but {type(found).__name__}",
            "upgrade the package, or uninstall it",
        )
    return found


def _plugin(name: str, also: Iterable[str]) -> object:
    from importlib.metadata import entry_points  # which reads the names of everything that is installed

    entries = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in entries:
        known = [*BUILTIN, *entries, *also]
        near = difflib.get_close_matches(name, known, n=1)
        there = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise ConfigError(f"no preset {name!r}; {there}", f"name one of them, or add your own under [presets.{name}]")
    try:
        return entries[name].load()
    except Exception as error:  # a plug-in may fail in any way, and must not take the loop with it
        raise ConfigError(
            f"preset {name!r} ({entries[name].value}) cannot be loaded: {type(error).__name__}: {error}",
            "mend or uninstall the package that brings it",
        ) from None
