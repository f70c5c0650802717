"""Where an imported store comes from. A store with an origin is a copy for reading: nothing is ever appended to it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["export", "gptme-locks"]


class Origin(NamedTuple):
    """The one row of `origin`.

    `position`, `at` and `hash` are those of the event before the store's first: 0, None and GENESIS unless it holds a
    range. Of a range `state` is the State folded up to there, as text, and `folds` the version of the folds that made
    it. `store` is the name of the store that it was exported from, `release` the loop that did.
    """

    kind: Kind
    store: str
    position: int
    at: str | None
    hash: bytes
    folds: str | None
    state: bytes | None
    redacted: bool
    release: str
    imported_at: str


SINCE_SCHEMA = 3
"""Older stores were never imported."""
