"""The file of an export: a header on the first line, one event on each further line, all of it ASCII.

Header: `schema` loop.export/1; `store` and `release` that wrote it; `range` {from, to} in positions; `base` {position,
at, hash}, the event before the first, position 0 for a whole log; `head` {position, at, hash}, the last event;
`redacted`; `folds` and `state`, the State folded up to `base` and the version of the folds that made it, null for a
whole log; `digest`, the SHA-256 (hex) of the header without it, which binds the state to the chain's hash there.

Event: the envelope's fields under their names; `data` and `private` are the stored text, as strings; `salt` and `hash`
are hex. A redacted export has neither `private` nor `salt`, and `private_digest` (hex) where there was one.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, NamedTuple, NoReturn, TypeVar

from events.envelope import COLUMNS, Record, to_micros
from events.store import Head

SCHEMA = "loop.export/1"
LONGEST = 16 << 20  # bytes of one line: far more than any event or state has
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_ENVELOPE = frozenset(COLUMNS)
_REDACTED = (_ENVELOPE - {"private", "salt"}) | {"private_digest"}

T = TypeVar("T")


class Header(NamedTuple):
    """What the first line says."""

    store: str
    release: str
    base: Head
    head: Head
    redacted: bool
    folds: str | None
    state: dict[str, Any] | None


def header_line(header: Header) -> str:
    """The header as its line, without the line's end."""
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "store": header.store,
        "release": header.release,
        "range": {"from": header.base.position + 1, "to": header.head.position},
        "base": _point(header.base),
        "head": _point(header.head),
        "redacted": header.redacted,
        "folds": header.folds,
        "state": header.state,
    }
    return _dump({**fields, "digest": _digest(fields)})


def event_line(record: Record, digest: bytes | None) -> str:
    """An event as its line, its private part and all."""
    fields = record._asdict()
    fields["salt"] = None if record.salt is None else record.salt.hex()
    fields["hash"] = record.hash.hex()
    return _dump(fields)


def redacted_line(record: Record, digest: bytes | None) -> str:
    """An event as its line, with the digest in the place of its private part; `digest` where that is gone already."""
    from events.chain import private_digest

    fields = record._asdict()
    del fields["private"], fields["salt"]
    kept = digest if digest is not None else private_digest(record.private, record.salt)
    return _dump({**fields, "private_digest": kept.hex() or None, "hash": record.hash.hex()})


def read_header(line: str) -> Header:
    """The header that a first line holds. Raises ValueError, saying what is wrong with it."""
    fields = _load(line)
    schema = fields.get("schema")
    if schema != SCHEMA:
        raise ValueError(f"this is no export of loop: its schema is {_short(schema)}, not {SCHEMA!r}")
    told = fields.pop("digest", None)
    if told != _digest(fields):
        raise ValueError("the header was changed: it does not have the digest that it states")
    header = Header(
        store=_typed(fields, "store", str),
        release=_typed(fields, "release", str),
        base=_head(fields, "base"),
        head=_head(fields, "head"),
        redacted=_typed(fields, "redacted", bool),
        folds=_optional(fields, "folds", str),
        state=_optional(fields, "state", dict),
    )
    if (header.base.position > 0) != (header.state is not None and header.folds is not None):
        raise ValueError("a range comes with the state before it, and only a range does")
    if header.head.position <= header.base.position:
        raise ValueError("it holds no event")
    return header


def read_event(line: str, *, redacted: bool) -> tuple[Record, bytes | None]:
    """(row, digest of its redacted private part) that a line holds. Raises ValueError, saying what is wrong with it."""
    fields = _load(line)
    wanted = _REDACTED if redacted else _ENVELOPE
    if fields.keys() != wanted:
        odd = sorted(fields.keys() ^ wanted)
        raise ValueError(f"an event has the fields {', '.join(sorted(wanted))}; here differ: {_short(odd)}")
    at = _typed(fields, "at", str)
    _check_time(at)
    record = Record(
        position=_number(fields, "position", 1),
        id=_typed(fields, "id", str),
        type=_typed(fields, "type", str),
        version=_number(fields, "version", 1),
        at=at,
        tick=_optional(fields, "tick", str),
        cause=None if fields["cause"] is None else _number(fields, "cause", 0),
        session=_optional(fields, "session", str),
        category=_optional(fields, "category", str),
        actor=_typed(fields, "actor", str),
        data=_typed(fields, "data", str),
        private=None if redacted else _optional(fields, "private", str),
        salt=None if redacted else _bytes(fields, "salt"),
        hash=_bytes(fields, "hash") or b"",
    )
    for part in (record.data, record.private):
        if part is not None:
            _load(part)
    return record, _bytes(fields, "private_digest") if redacted else None


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(_dump(fields).encode()).hexdigest()


def _load(text: str) -> dict[str, Any]:
    """A JSON object, as strict as the standard."""
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if type(value) is not dict:
        raise ValueError(f"it is no object but {_short(value)}")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _typed(fields: dict[str, Any], name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} is {_short(value)}")
    return value


def _optional(fields: dict[str, Any], name: str, kind: type[T]) -> T | None:
    return None if fields.get(name) is None else _typed(fields, name, kind)


def _number(fields: dict[str, Any], name: str, least: int) -> int:
    value = _typed(fields, name, int)
    if not least <= value < 2**63:
        raise ValueError(f"{name} is {_short(value)}")
    return value


def _bytes(fields: dict[str, Any], name: str) -> bytes | None:
    text = _optional(fields, name, str)
    if text is not None and _HEX.fullmatch(text) is None:
        raise ValueError(f"{name} is not in hexadecimal digits: {_short(text)}")
    return None if text is None else bytes.fromhex(text)


def _check_time(text: str) -> None:
    if _TIME.fullmatch(text) is None:
        raise ValueError(f"at is {_short(text)}, which is no time")
    to_micros(text)


def _point(head: Head) -> dict[str, Any]:
    return {"position": head.position, "at": head.at, "hash": head.hash.hex()}


def _head(fields: dict[str, Any], name: str) -> Head:
    point: dict[str, Any] = _typed(fields, name, dict)
    at = _optional(point, "at", str)
    position, hash = _number(point, "position", 0), _bytes(point, "hash")
    if at is not None:
        _check_time(at)
    if (at is None) != (position == 0) or hash is None or len(hash) != 32:
        raise ValueError(f"{name} is {_short(point)}")
    return Head(position, at, hash)


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
