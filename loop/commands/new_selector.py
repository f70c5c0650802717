"""`loop new-selector`: a short script to begin a selector of one's own with."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from pathlib import Path

from events.errors import UsageError
from loop.output import clean, console


def run(directory: Path, file: Path) -> int:
    """Write the script, executable, to `file` in `directory`. Raises UsageError where it is there or cannot be."""
    path = directory / file
    try:
        with path.open("x", encoding="utf-8") as script:
            script.write(files("loop").joinpath("data/selector.py").read_text("utf-8"))
        path.chmod(0o755)
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name another file: loop new-selector FILE") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "name another file") from None
    out = console()
    out.print(f"wrote {clean(path)}", soft_wrap=True)
    out.print(f"try it: {shlex.quote(clean(path))} | loop plan --payload -", soft_wrap=True)
    line = f"command = [{json.dumps(clean(path))}]"
    out.print(f"then, in loop.toml under [selector], instead of builtin = true: {line}", soft_wrap=True)
    return 0
