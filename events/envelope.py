"""The envelope around every event: its fields, its time format, its ids, its canonical JSON."""

from __future__ import annotations

import hashlib
import json
from base64 import b32encode
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from events.errors import DAMAGED, StoreError

Json = dict[str, Any]


class Event(NamedTuple):
    """One stored event as folds see it: `data` decoded and upcast, `private` not among the fields.

    `at` is the stored text, fixed width (`2026-11-23T14:03:00.123456Z`), so that it compares as text.
    """

    position: int
    type: str
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    data: Json


class Record(NamedTuple):
    """One stored row, exactly as it lies in the table; `data` and `private` are the stored text."""

    position: int
    id: str
    type: str
    version: int
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    actor: str
    data: str
    private: str | None
    salt: bytes | None
    hash: bytes


COLUMNS = Record._fields


def content(record: Record) -> Json:
    """The decoded `data` of a row. Raises StoreError for one that a fault has made unreadable."""
    return _decoded(record, record.data)


def private_content(record: Record) -> Json | None:
    """The decoded `private` of a row, None where it has none. Raises StoreError like `content`."""
    return None if record.private is None else _decoded(record, record.private)


def _decoded(record: Record, text: str) -> Json:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"event {record.position} cannot be read: {error}", DAMAGED) from error
    if type(found) is not dict:
        raise StoreError(f"event {record.position} cannot be read: it holds no object but {text[:40]}", DAMAGED)
    return found


def to_text(microseconds: int) -> str:
    """Microseconds since the epoch as the stored text: ISO-8601, UTC, always 27 characters."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@lru_cache(1_024)  # a view asks for the same instants again and again
def to_micros(text: str) -> int:
    """The stored text (or any ISO-8601 time with a zone) as microseconds since the epoch.

    Raises ValueError where the text is no time or has no zone.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def to_json(value: object) -> str:
    """Canonical text of a JSON value: no spaces, keys in the order given, no NaN, no lone surrogates.

    Raises ValueError for what UTF-8 or JSON cannot carry.
    """
    text = _encode(value)
    text.encode("utf-8")  # a lone surrogate must fail here, before any transaction
    return text


def short_id(kind: str, *parts: object) -> str:
    """A short base32 hash behind the letter of its kind (`s` session, `t` pass, `e` event), stable for its parts.

    A session's parts are store id and token, so that two stores never name a session alike.
    """
    digest = hashlib.sha256("\x1f".join(("loop.id/1", kind, *map(str, parts))).encode()).digest()
    return kind + b32encode(digest[:10]).decode().lower()[:11]  # 11 letters are 55 bits; encoding more is slow
