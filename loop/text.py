"""Text from outside as it may be stored and shown."""

from __future__ import annotations

import unicodedata

_SPACED = {"Cc", "Zl", "Zp"}  # control characters, line and paragraph separators
_DROPPED = {"Cf"}  # what turns the writing around, joins or hides: bidi marks, zero-width characters


def visible(text: str, longest: int | None = None) -> str:
    """`text` on one line, with nothing that a terminal obeys, no lone surrogates, and at most `longest` characters.

    A cut text ends in `…`, which no configured name holds: a long name is never taken for its beginning.
    """
    # Cut generously first: nobody is to pay for cleaning a megabyte of which 64 characters stay.
    kept = "".join(map(_shown, text if longest is None else text[: 4 * longest]))
    if longest is None or (len(kept) <= longest and len(text) <= 4 * longest):
        return kept
    return kept[: longest - 1] + "…"


def count_of(count: float, one: str, many: str | None = None) -> str:
    """`1 start`, `2 starts`; `many` where an s is not enough."""
    return f"{count if isinstance(count, int) else format(count, 'g')} {one if count == 1 else many or one + 's'}"


def _shown(letter: str) -> str:
    if " " <= letter <= "~":
        return letter
    kind = unicodedata.category(letter)
    if kind in _SPACED:
        return " "
    return "" if kind in _DROPPED else "\ufffd" if kind == "Cs" else letter
