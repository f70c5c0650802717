"""The hash chain and the private part: what shows a change, what survives redaction, what a fold never sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.catalog import EVENTS, LoopPaused, NoticeSent, Payload, SessionRequested
from events.chain import GENESIS, link, private_digest
from events.clock import Clock
from events.envelope import COLUMNS, Record
from events.store import EventLog, Filter

SECRET = "hunter2-the-secret"


def records(log: EventLog) -> list[Record]:
    return log.select(Filter())


def first_bad(rows: list[Record], digests: dict[int, bytes] | None = None) -> int | None:
    """The position of the row at which the chain breaks; a row that cannot be hashed at all breaks it too."""
    previous = GENESIS
    for row in rows:
        try:
            hash = link(previous, row, None if digests is None else digests[row.position])
        except ValueError:
            return row.position
        if hash != row.hash:
            return row.position
        previous = hash
    return None


@pytest.fixture
def log(clock: Clock) -> EventLog:
    """Five events: with and without private parts, with a full and with an empty envelope."""
    log = EventLog.in_memory(clock=clock)
    with log.transaction() as transaction:
        transaction.append(NoticeSent(kind="bare"), actor="test")
        transaction.append(LoopPaused(reason=SECRET), actor="test")
        transaction.append(NoticeSent(kind="full"), actor="test", tick="t1", cause=1, session="s1", category="code")
        transaction.append(LoopPaused(reason=SECRET), actor="test", tick="t1", cause=2, session="s1", category="code")
    return log


def test_the_chain_over_what_is_stored_verifies(log: EventLog) -> None:
    rows = records(log)
    assert len(rows) == 5
    assert first_bad(rows) is None
    assert log.head().hash == rows[-1].hash


def test_the_chain_goes_on_over_transactions_and_openings(tmp_path: Path) -> None:
    for _ in range(3):
        log = EventLog.open(tmp_path / "loop.db")
        with log.transaction() as transaction:
            transaction.append(LoopPaused(reason=SECRET), actor="test")
        assert first_bad(records(log)) is None
        log.close()
    assert len(records(EventLog.read(tmp_path / "loop.db"))) == 4


def changes(value: Any) -> list[Any]:
    """Other values that a field could be given: another one, a longer one, none."""
    if value is None:
        return ["", "x", 1, b"x" * 16]
    if isinstance(value, int):
        return [value + 1, None]
    if isinstance(value, bytes):
        return [bytes([value[0] ^ 1]) + value[1:], value + b"\0", None]
    return [value + " ", value[:-1], value.swapcase(), None, ""]


def test_any_single_changed_field_of_any_row_breaks_it(log: EventLog) -> None:
    rows = records(log)
    tried = 0
    for index, row in enumerate(rows):
        for column in COLUMNS:
            for other in changes(getattr(row, column)):
                if other == getattr(row, column) or (column == "data" and other is None):
                    continue
                forged = [*rows[:index], row._replace(**{column: other}), *rows[index + 1 :]]
                assert first_bad(forged) == forged[index].position, (row.position, column, other)
                tried += 1
    assert tried > len(rows) * len(COLUMNS)


def test_a_row_left_out_put_twice_or_swapped_breaks_it(log: EventLog) -> None:
    rows = records(log)
    for index in range(len(rows) - 1):
        assert first_bad(rows[:index] + rows[index + 1 :]) is not None
        assert first_bad(rows[: index + 1] + rows[index:]) is not None
        assert first_bad([*rows[:index], rows[index + 1], rows[index], *rows[index + 2 :]]) is not None


FIELDS = ("tick", "session", "category", "actor")
TEXTS = st.fixed_dictionaries(dict.fromkeys(FIELDS, st.text("ab", max_size=2) | st.none()))


@given(TEXTS, TEXTS)
@settings(max_examples=300)
def test_text_cannot_move_from_one_field_to_the_next(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Length prefixes: fields that read alike when put in a row still hash differently."""
    row = Record(1, "e", "t", 1, "at", None, None, None, None, "actor", "{}", None, None, b"")
    assert (link(GENESIS, row._replace(**one)) == link(GENESIS, row._replace(**other))) == (one == other)


def test_the_halves_of_a_word_hash_apart() -> None:
    row = Record(1, "e", "t", 1, "at", None, None, None, None, "actor", "{}", None, None, b"")
    splits = [row._replace(session="code"[:cut], category="code"[cut:]) for cut in range(5)]
    splits += [row._replace(session=None, category="code"), row._replace(session="code", category=None)]
    assert len({link(GENESIS, split) for split in splits}) == len(splits)


def test_a_redacted_export_still_verifies_and_still_binds_what_is_left(log: EventLog) -> None:
    rows = records(log)
    digests = {row.position: private_digest(row.private, row.salt) for row in rows}
    redacted = [row._replace(private=None, salt=None) for row in rows]
    assert SECRET not in repr(redacted)
    assert first_bad(redacted, digests) is None
    assert first_bad(redacted) == 3  # without the digests the private part is missed
    for row in redacted:
        forged = [each._replace(data='{"kind":"forged"}') if each is row else each for each in redacted]
        assert first_bad(forged, digests) == row.position
        assert first_bad(redacted, {**digests, row.position: b"\1" * 32}) == row.position


def test_a_private_text_cannot_be_guessed_from_its_digest(clock: Clock) -> None:
    log = EventLog.in_memory(clock=clock)
    with log.transaction() as transaction:
        transaction.append(LoopPaused(reason="yes"), actor="test")
        transaction.append(LoopPaused(reason="yes"), actor="test")
    [_, one, other] = records(log)
    assert one.private == other.private
    assert one.salt is not None
    assert len(one.salt) == 16
    assert private_digest(one.private, one.salt) != private_digest(other.private, other.salt)


@pytest.mark.parametrize(("private", "salt"), [("text", None), (None, b"salt")])
def test_private_text_and_salt_come_together(private: str | None, salt: bytes | None) -> None:
    with pytest.raises(ValueError, match="salt"):
        private_digest(private, salt)


def private_fields() -> list[tuple[type[Payload], str]]:
    return [
        (model, name)
        for model in EVENTS
        for name, field in model.model_fields.items()
        if field.json_schema_extra == {"private": True}
    ]


@pytest.mark.parametrize(("model", "name"), private_fields(), ids=lambda value: getattr(value, "type", value))
def test_a_secret_in_a_private_field_is_never_in_data(
    clock: Clock, minimal: Callable[[type[Payload]], dict[str, Any]], model: type[Payload], name: str
) -> None:
    payload = None
    for secret in (SECRET, [SECRET], {"key": [SECRET]}):
        try:
            payload = model.model_validate({**minimal(model), name: secret})
            break
        except ValueError:
            continue
    assert payload is not None
    log = EventLog.in_memory(clock=clock)
    with log.transaction() as transaction:
        event = transaction.append(payload, actor="test")
    [_, record] = records(log)
    assert SECRET not in repr(event)
    assert SECRET not in repr(record._replace(private=None))
    assert record.private is not None
    assert SECRET in record.private


def test_argv_cwd_payload_summaries_and_reasons_are_private() -> None:
    private = {(model.type, name) for model, name in private_fields()}
    assert {
        ("session.requested", "argv"),
        ("session.requested", "cwd"),
        ("session.ended", "summary"),
        ("selection.made", "payload"),
        ("selection.made", "warnings"),
        ("selection.rejected", "payload"),
        ("loop.paused", "reason"),
        ("loop.resumed", "reason"),
        ("loop.draining", "reason"),
        ("loop.frozen", "reason"),
        ("operator.requested", "reason"),
        ("loop.configured", "settings"),
    } <= private
    assert "argv" not in SessionRequested.model_construct(argv=[SECRET]).split()[0]
