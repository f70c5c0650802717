"""The hash chain: each event's hash covers its own stored bytes and its predecessor's hash.

`private` enters only through the digest of its salted text, so that an export without it still verifies: the digest is
kept, the salt keeps a short text from being guessed. A chain shows that nothing was changed, removed or put in between
*up to a head that is known from elsewhere*; whoever can write the file can also write a whole new chain.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from events.envelope import Record

DOMAIN = b"loop.event/1"
GENESIS = bytes(32)


def private_digest(private: str | None, salt: bytes | None) -> bytes:
    """SHA-256 over salt and private text; empty where there is neither. Raises ValueError for one without the other."""
    if (private is None) != (salt is None):
        raise ValueError("a private part and its salt come together")
    if private is None or salt is None:
        return b""
    return sha256(salt + private.encode()).digest()


def link(previous: bytes, record: Record, digest: bytes | None = None) -> bytes:
    """The hash of `record` after an event with hash `previous`; `record.hash` itself is not read.

    `digest` stands in for the private part where a redacted record has lost it. Every field is length-prefixed, an
    absent one has the length 2**64-1, so that no two different records share the same bytes.
    """
    return sha256(
        b"".join(
            (
                DOMAIN,
                previous,
                _prefixed(record.position),
                _prefixed(record.id),
                _prefixed(record.type),
                _prefixed(record.version),
                _prefixed(record.at),
                _prefixed(record.tick),
                _prefixed(record.cause),
                _prefixed(record.session),
                _prefixed(record.category),
                _prefixed(record.actor),
                sha256(record.data.encode()).digest(),
                private_digest(record.private, record.salt) if digest is None else digest,
            )
        )
    ).digest()


@lru_cache(256)  # most fields of an event are those of the event before
def _prefixed(value: str | int | None) -> bytes:
    if value is None:
        return b"\xff" * 8
    encoded = str(value).encode()
    return len(encoded).to_bytes(8, "big") + encoded
