"""The YAML front matter of a task file, in the strict small subset that task files use.

Read are `key: scalar`, `key: [a, b]` on one line or several, block lists of scalars and block texts (`|`, `>`), with
quoted strings and comments. What else stands under a key (maps, anchors, comments inside of a list) makes that key
unread, with the reason; no input raises anything else than FrontMatter.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

FENCE = "---"
Value = str | list[str] | None

_KEY = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:(?:[ \t]+(.*)|[ \t]*)$")
_ITEM = re.compile(r"[ \t]*-(?:[ \t]+(.*)|[ \t]*)$")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\']|\'\')*)\'')
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'|[,\]]')
_OPENS = re.compile(r"(?:[A-Za-z_][\w-]*[ \t]*:)?[ \t]+\[[^#]*$")
_BLOCK = re.compile(r"[|>][+-]?[1-9]?[+-]?(?:[ \t]+#.*)?$")
_PLAIN = re.compile(r"[^\"'#\]]*\]?").fullmatch  # most values, of which a thousand files have thousands
_EMPTY = frozenset({"", "~", "null", "Null", "NULL"})
_UNREAD = ("{", "&", "*", "!", "|", ">", "%", "@", "`")
_MORE = "is more than a value, a list or a text"


class FrontMatter(ValueError):
    """A task file has no front matter that can be read; the message says what is wrong with it."""


@dataclass(slots=True)
class Keys:
    """What front matter holds: each key's value, and of each that was not read as it stands the reason.

    Under "" is what belongs to no key.
    """

    values: dict[str, Value] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)


def parse(text: str, wanted: Collection[str]) -> Keys:
    """The `wanted` keys of the front matter of a file's text. Raises FrontMatter where there is none."""
    found = Keys()
    key, block = "", False
    for line in _joined(_inside(text)):
        if block and (not line.strip() or line[0] in " \t"):
            found.values[key] = f"{found.values[key] or ''} {line.strip()}".strip() or None
            continue
        block = False
        if (match := _KEY.match(line)) is not None:
            key, rest = match[1], (match[2] or "").strip()
            if key not in wanted:
                continue
            if key in found.values:
                found.odd[key] = "stands twice; the last counts"
            block = _BLOCK.match(rest) is not None
            found.values[key] = None if block else _value(found, key, rest)
        elif not line.strip() or line.lstrip().startswith("#") or (key and key not in wanted):
            continue
        elif key and found.values[key] is None and line.lstrip().startswith("["):
            found.values[key] = _value(found, key, line.strip())
        elif (item := _ITEM.match(line)) is not None and key:
            _add(found, key, _scalar(item[1] or ""))
        else:
            found.odd.setdefault(key, _MORE if key else "the first line is no `key: value`")
    return found


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


def _joined(lines: Iterator[str]) -> Iterator[str]:
    """The lines, with a `[` list that goes on over several as one, unless a comment in it would hide what follows."""
    held = ""
    for line in lines:
        if held and line[:1] in ("", " ", "\t", "]") and "#" not in line:
            held += " " + line.strip()
            if held[-1] == "]":
                yield held
                held = ""
            continue
        if held:
            yield held
        held = line if "[" in line and "]" not in line and _OPENS.match(line) else ""
        if not held:
            yield line
    if held:
        yield held


def _add(found: Keys, key: str, item: str | None) -> None:
    items = found.values[key]
    if items is None:
        items = found.values[key] = []
    if not isinstance(items, list):
        found.odd[key] = "is a value and a list"
    elif item is not None:
        items.append(item)


def _value(found: Keys, key: str, text: str) -> Value:
    if text.startswith(_UNREAD):
        found.odd[key] = _MORE
        return None
    if not text.startswith("["):
        return _scalar(text)
    items = _list(text)
    if items is None:
        found.odd[key] = "is a list without an end, or with a comment inside"
    return items


def _scalar(text: str) -> str | None:
    text = text.strip()
    if _PLAIN(text):
        return None if text in _EMPTY else text
    if match := _QUOTED.match(text):
        rest = text[match.end() :].strip()
        if not rest or rest.startswith("#"):
            if match[1] is not None:
                return re.sub(r"\\(.)", r"\1", match[1])
            return match[2].replace("''", "'")
    text = re.split(r"(?:^|[ \t])#", text, maxsplit=1)[0].strip()
    return None if text in _EMPTY else text


def _list(text: str) -> list[str] | None:
    """The items of an inline list, of which quoted ones may hold commas; None where it has no end."""
    if text[-1] == "]" and _PLAIN(text):
        return [item for piece in text[1:-1].split(",") if (item := _scalar(piece)) is not None]
    items, at = [], 1
    for match in _PIECE.finditer(text):
        if match[0] not in (",", "]"):
            continue
        item = _scalar(text[at : match.start()])
        if item is not None:
            items.append(item)
        at = match.end()
        if match[0] == "]":
            return items
    return None
