"""The hash chain: each event's hash covers its own stored bytes and its predecessor's hash.

`private` enters only through the digest of its salted text, so that an export without it still verifies: the digest is
kept, the salt keeps a short text from being guessed. A chain shows that nothing was changed, removed or put in between
*up to a head that is known from elsewhere*; whoever can write the file can also write a whole new chain.
"""

from __future__ import annotations

import hashlib

from events.envelope import Record

DOMAIN = b"loop.event/1"
GENESIS = bytes(32)


def private_digest(private: str | None, salt: bytes | None) -> bytes:
    """SHA-256 over salt and private text; empty where there is neither. Raises ValueError for one without the other."""
    if (private is None) != (salt is None):
        raise ValueError("a private part and its salt come together")
    if private is None or salt is None:
        return b""
    return hashlib.sha256(salt + private.encode()).digest()


def link(previous: bytes, record: Record, digest: bytes | None = None) -> bytes:
    """The hash of `record` after an event with hash `previous`; `record.hash` itself is not read.

    `digest` stands in for the private part where a redacted record has lost it. Every field is length-prefixed, an
    absent one has the length 2**64-1, so that no two different records share the same bytes.
    """
    hasher = hashlib.sha256(DOMAIN)
    hasher.update(previous)
    for value in (
        record.position,
        record.id,
        record.type,
        record.version,
        record.at,
        record.tick,
        record.cause,
        record.session,
        record.category,
        record.actor,
    ):
        if value is None:
            hasher.update(b"\xff" * 8)
            continue
        encoded = str(value).encode()
        hasher.update(len(encoded).to_bytes(8, "big"))
        hasher.update(encoded)
    hasher.update(hashlib.sha256(record.data.encode()).digest())
    hasher.update(private_digest(record.private, record.salt) if digest is None else digest)
    return hasher.digest()
