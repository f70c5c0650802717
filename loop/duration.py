"""Amounts as people write them: `"50m"`, `"1h30m"`, `"1GiB"`; inside the program they are seconds and bytes."""

from __future__ import annotations

import math
import re

LONGEST_SECONDS = 3650 * 86_400  # ten years: beyond it a typo is likelier than a plan
LARGEST_BYTES = 2**60

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {
    "B": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])")
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*")


def parse_seconds(value: object) -> float:
    """A duration in seconds from `"50m"`, `"1h30m"`, `"0s"` or a number of seconds; an int where it is whole.

    Units are `ms s m h d w`. Raises ValueError, whose text shows the value and a right one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f'{value!r} is no duration; write "50m", or a number of seconds')
    seconds = float(_sum_of_parts(value)) if isinstance(value, str) else _as_float(value)
    if not 0 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"{value!r} is no usable duration; it must be between 0s and {LONGEST_SECONDS // 86_400}d")
    return int(seconds) if seconds.is_integer() else seconds


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _sum_of_parts(text: str) -> float:
    stripped = text.strip()
    if stripped == "0":
        return 0.0
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped, re.ASCII):
        raise ValueError(f'"{stripped}" has no unit; write "{stripped}s" or "{stripped}m"')
    total, at = 0.0, 0
    while match := _PART.match(stripped, at):
        total += float(match[1]) * _SECONDS[match[2]]
        at = match.end()
    if not stripped or at != len(stripped):
        raise ValueError(f'{text[:40]!r} is no duration; write "90s", "50m", "2h" or "1d" (units: ms s m h d w)')
    return round(total, 6)


def format_seconds(seconds: float) -> str:
    """The shortest way to write a duration that `parse_seconds` reads back: `3000 -> "50m"`, `5400 -> "1h30m"`."""
    whole = int(seconds)
    if seconds != whole:
        return f"{seconds:g}s" if whole else f"{seconds * 1000:g}ms"
    parts = []
    for unit in ("d", "h", "m"):
        count, whole = divmod(whole, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    if whole or not parts:
        parts.append(f"{whole}s")
    return "".join(parts)


def parse_bytes(value: object) -> int:
    """A size in bytes from `"1GiB"`, `"500MB"` or a number of bytes.

    `KiB MiB GiB TiB` are powers of 1024, `kB MB GB TB` of 1000. Raises ValueError, whose text shows the value.
    """
    size: float
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None or match[2] not in _BYTES:
            raise ValueError(
                f'{value[:40]!r} is no size; write "500MB" or "1GiB" (units: B kB MB GB TB KiB MiB GiB TiB)'
            )
        size = float(match[1]) * _BYTES[match[2]]
    elif isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f'{value!r} is no size; write "1GiB", or a whole number of bytes')
    else:
        size = value
    if not 0 <= size <= LARGEST_BYTES:
        raise ValueError(f"{value!r} is no usable size; it must be between 0B and {LARGEST_BYTES >> 40}TiB")
    return int(size)


def format_bytes(size: int) -> str:
    """A size in the largest binary unit that divides it: `1073741824 -> "1GiB"`, `1500 -> "1500B"`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"
