"""The YAML front matter of a task file, in the strict small subset that task files use.

Read are `key: scalar`, `key: [a, b]` and block lists of scalars, with quoted strings and comments. Anything else (maps in
maps, anchors, multi-line strings) under a key makes that key None and is said; no input raises anything else than
FrontMatter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

FENCE = "---"
Value = str | list[str] | None

_KEY = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:(?:[ \t]+(.*)|[ \t]*)$")
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+(.*)|[ \t]*)$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\']|\'\')*)\'')
_EMPTY = frozenset({"", "~", "null", "Null", "NULL"})
_UNREAD = ("{", "&", "*", "!", "|", ">", "%", "@", "`")


class FrontMatter(ValueError):
    """A task file has no front matter that can be read; the message says what is wrong with it."""


def parse(text: str) -> tuple[dict[str, Value], list[str]]:
    """The keys of a file's front matter, and the keys that were left out with the reason; raises FrontMatter."""
    found: dict[str, Value] = {}
    odd: list[str] = []
    key: str | None = None
    for line in _inside(text):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        item = _ITEM.match(line)
        if item is not None and key is not None:
            value = _scalar(item[1] or "")
            if found.get(key) is None:
                found[key] = []
            items = found[key]
            if not isinstance(items, list):
                odd.append(f"{key} is a value and a list")
            elif value is not None:
                items.append(value)
            continue
        match = _KEY.match(line)
        if match is None:
            odd.append(f"{key or 'the first line'} is more than a value or a list")
            continue
        key, rest = match[1], (match[2] or "").strip()
        if key in found:
            odd.append(f"{key} stands twice; the last counts")
        if rest.startswith(_UNREAD):
            odd.append(f"{key} is more than a value or a list")
            found[key] = None
        else:
            found[key] = _list(rest) if rest.startswith("[") else _scalar(rest)
    return found, odd


def words(value: Value) -> list[str]:
    """A scalar or a list as a list; nothing is an empty one."""
    return [] if value is None else [value] if isinstance(value, str) else value


def _inside(text: str) -> Iterator[str]:
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != FENCE:
        raise FrontMatter("it does not begin with ---")
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in (FENCE, "..."):
            yield from lines[1:number]
            return
    raise FrontMatter("its front matter is not closed with ---")


def _scalar(text: str) -> str | None:
    text = text.strip()
    if match := _QUOTED.match(text):
        rest = text[match.end() :].strip()
        if not rest or rest.startswith("#"):
            if match[1] is not None:
                return re.sub(r"\\(.)", r"\1", match[1])
            return match[2].replace("''", "'")
    text = re.split(r"(?:^|[ \t])#", text, maxsplit=1)[0].strip()
    return None if text in _EMPTY else text


def _list(text: str) -> list[str]:
    """The items of an inline list; quoted ones may hold commas."""
    items, at = [], 1
    for match in re.finditer(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'|[,\]]', text):
        if match[0] not in (",", "]"):
            continue
        item = _scalar(text[at : match.start()])
        if item is not None:
            items.append(item)
        at = match.end()
        if match[0] == "]":
            break
    return items
