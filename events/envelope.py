"""The envelope around every event: its fields, its time format, its ids, its canonical JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple, TypedDict

import orjson

from events.errors import DAMAGED, StoreError

Json = dict[str, Any]


@dataclass(slots=True, eq=False)
class Event:
    """One stored event as folds see it: `data` decoded and upcast, `private` not among the fields.

    `at` is the stored text, fixed width (`2026-11-23T14:03:00.123456Z`), so that it compares as text. Nobody changes an
    event; that it is not frozen, and no tuple, makes it cheaper to make and to read, which folds do all the time.
    """

    position: int
    type: str
    at: str
    tick: str | None
    cause: int | None
    session: str | None
    category: str | None
    data: Json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and _FIELDS(self) == _FIELDS(other)

    def holding(self, data: Json) -> Event:
        """This event with other `data`."""
        return Event(self.position, self.type, self.at, self.tick, self.cause, self.session, self.category, data)


_FIELDS = attrgetter(*Event.__annotations__)


class Unread(Event):
    """An event of today's version whose stored text is decoded when `data` is first asked for, and not before.

    Asking raises StoreError for a text that a fault has made unreadable.
    """

    __slots__ = ("_data", "_text")

    def __init__(
        self,
        position: int,
        type: str,
        at: str,
        tick: str | None,
        cause: int | None,
        session: str | None,
        category: str | None,
        text: str,
    ) -> None:
        self.position, self.type, self.at, self.tick, self.cause = position, type, at, tick, cause
        self.session, self.category, self._text = session, category, text
        self._data: Json | None = None

    @property
    def data(self) -> Json:  # type: ignore[override]
        if self._data is None:
            self._data = decoded(self.position, self._text)
        return self._data

    def __reduce__(self) -> tuple[type[Unread], tuple[object, ...]]:
        envelope = (self.position, self.type, self.at, self.tick, self.cause, self.session, self.category)
        return Unread, (*envelope, self._text)

    def __repr__(self) -> str:
        return f"Unread(position={self.position}, type={self.type!r}, text={self._text!r})"


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


class About(TypedDict, total=False):
    """What an appended event belongs to: its pass, the position that caused it, a session, a category."""

    tick: str | None
    cause: int | None
    session: str | None
    category: str | None


def content(record: Record) -> Json:
    """The decoded `data` of a row. Raises StoreError for one that a fault has made unreadable."""
    return decoded(record.position, record.data)


def private_content(record: Record) -> Json | None:
    """The decoded `private` of a row, None where it has none. Raises StoreError like `content`."""
    return None if record.private is None else decoded(record.position, record.private)


def decoded(position: int, text: str) -> Json:
    """A stored text of the event at `position`. Raises StoreError for one that a fault has made unreadable."""
    try:
        found = orjson.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"event {position} cannot be read: {error}", DAMAGED) from error
    if type(found) is not dict:
        raise StoreError(f"event {position} cannot be read: it holds no object but {text[:40]}", DAMAGED)
    return found


def to_text(microseconds: int) -> str:
    """Microseconds since the epoch as the stored text: ISO-8601, UTC, always 27 characters."""
    seconds, fraction = divmod(microseconds, 1_000_000)
    return f"{_second(seconds)}.{fraction:06d}Z"


@lru_cache(64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


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


def to_json(value: object) -> str:
    """Canonical text of a JSON value: no spaces, keys in the order given, UTF-8.

    Floats must be finite, which the models see to: here a NaN would become a null. Raises ValueError for what JSON or
    UTF-8 cannot carry: lone surrogates, keys that are no text, integers beyond 64 bits.
    """
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from error


_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"  # base32, as in RFC 4648
_PAIRS = ["".join(pair) for pair in product(_LETTERS, repeat=2)]


def short_id(kind: str, *parts: object) -> str:
    """A short base32 hash behind the letter of its kind (`s` session, `t` pass, `e` event), stable for its parts.

    A session's parts are store id and token, so that two stores never name a session alike.
    """
    digest = sha256("\x1f".join(("loop.id/1", kind, *map(str, parts))).encode()).digest()
    bits = int.from_bytes(digest[:7], "big") >> 1  # 55 bits are 11 letters
    return (
        f"{kind}{_PAIRS[bits >> 45]}{_PAIRS[bits >> 35 & 1023]}{_PAIRS[bits >> 25 & 1023]}"
        f"{_PAIRS[bits >> 15 & 1023]}{_PAIRS[bits >> 5 & 1023]}{_LETTERS[bits & 31]}"
    )
