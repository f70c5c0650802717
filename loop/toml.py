"""Keys and values as TOML writes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping


def key(name: str) -> str:
    """One part of a key, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else value(name)


def dotted(path: Iterable[str]) -> str:
    return ".".join(map(key, path))


def value(of: object) -> str:
    """A value on one line: text, a number, a boolean, a list or a table of such."""
    if isinstance(of, Mapping):
        inner = ", ".join(f"{key(str(name))} = {value(item)}" for name, item in of.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(of, list):
        return f"[{', '.join(value(item) for item in of)}]"
    return json.dumps(of, ensure_ascii=False).replace("\x7f", "\\u007f")
