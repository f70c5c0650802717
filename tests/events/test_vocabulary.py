"""The vocabulary: every type of the design is there, fits its state machine, and survives writing and reading."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

import events
import migrations
import projections
from events import lifecycle
from events.catalog import EVENTS, REGISTRY, Payload, parse
from events.clock import Clock
from events.envelope import Event
from events.errors import StoreTooNew
from events.lifecycle import BACKEND, LOCK, LOOP, SESSION, SESSION_ENDS, Table
from events.store import EventLog, Filter
from events.upcast import UPCASTERS, upcast
from migrations import migrations as steps
from projections.state import ROUTES, State

ROOT = Path(__file__).resolve().parent.parent.parent

VOCABULARY = [
    "loop.configured",
    "loop.paused",
    "loop.resumed",
    "loop.draining",
    "loop.frozen",
    "operator.requested",
    "tick.started",
    "tick.skipped",
    "tick.finished",
    "selection.made",
    "selection.rejected",
    "gate.answered",
    "host.measured",
    "fanout.decided",
    "lock.acquired",
    "lock.refused",
    "lock.released",
    "session.requested",
    "session.started",
    "session.spawn_failed",
    "session.adopted",
    "session.warned",
    "session.stopping",
    "session.ended",
    "session.lost",
    "session.graded",
    "session.ungraded",
    "backend.limited",
    "backend.probed",
    "backend.restored",
    "violation.detected",
    "clock.stepped",
    "host.suspended",
    "output.removed",
    "controller.started",
    "controller.stopped",
    "notice.sent",
    "notice.failed",
    "store.migrated",
]

Build = Callable[[type[BaseModel]], dict[str, Any]]


def test_the_generic_package_names_are_ours() -> None:
    for package in (events, migrations, projections):
        assert Path(str(package.__file__)).parent.parent == ROOT


def test_the_registry_has_exactly_the_vocabulary_of_the_design() -> None:
    assert sorted(REGISTRY) == sorted(VOCABULARY)
    assert len(EVENTS) == len(REGISTRY), "two models of one type"


def test_every_type_is_folded_or_listed_as_unfolded() -> None:
    assert sorted(ROUTES) == sorted(VOCABULARY)


@pytest.mark.parametrize("model", EVENTS, ids=lambda model: model.type)
class TestEveryType:
    def test_comes_back_from_its_two_parts_as_it_was(self, model: type[Payload], full: Build) -> None:
        payload = model.model_validate(full(model))
        data, private = payload.split()
        assert parse(model.type, data, private) == payload
        given = {name for name, value in full(model).items() if value is not None}
        assert given <= {*data, *(private or {})} <= set(model.model_fields)

    def test_has_no_private_part_where_none_was_given(self, model: type[Payload], minimal: Build) -> None:
        data, private = model.model_validate(minimal(model)).split()
        assert private is None
        assert parse(model.type, data) == model.model_validate(minimal(model))

    def test_reads_from_the_store_as_it_was_written(self, model: type[Payload], full: Build, clock: Clock) -> None:
        payload = model.model_validate(full(model))
        log = EventLog.in_memory(clock=clock)
        with log.transaction() as transaction:
            transaction.append(payload, actor="test")
        [_, event] = log.events()
        [_, record] = log.select(Filter())
        assert (event.type, record.version) == (model.type, model.version)
        assert event.data == payload.split()[0]

    def test_is_frozen_and_knows_its_fields(self, model: type[Payload], minimal: Build) -> None:
        payload = model.model_validate(minimal(model))
        with pytest.raises(ValidationError):
            payload.position = 1  # type: ignore[attr-defined]
        with pytest.raises(ValidationError):
            model.model_validate({**minimal(model), "surprise": 1})


def test_an_unknown_type_of_event_means_that_the_store_is_too_new() -> None:
    event = Event(1, "session.cloned", "2026-11-23T14:00:00.000000Z", None, None, None, None, {})
    with pytest.raises(StoreTooNew, match=r"session\.cloned"):
        State().apply(event)


# ── upcasting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def gaps(steps: Iterable[tuple[str, int]], current: dict[str, int]) -> list[tuple[str, int]]:
    """(type, version) of each step that is missing, or that leads from a version that is not behind today's."""
    wanted = {(type, version) for type, today in current.items() for version in range(1, today)}
    return sorted(wanted ^ set(steps))


def test_the_upcasters_lead_from_every_old_version_to_todays() -> None:
    assert gaps(UPCASTERS, {model.type: model.version for model in EVENTS}) == []


def test_a_missing_a_superfluous_and_an_unknown_step_would_be_noticed() -> None:
    current = {"a": 3, "b": 1}
    assert gaps([("a", 1), ("a", 2)], current) == []
    assert gaps([("a", 2)], current) == [("a", 1)]
    assert gaps([("a", 1), ("a", 2), ("a", 3)], current) == [("a", 3)]
    assert gaps([("a", 1), ("a", 2), ("c", 1)], current) == [("c", 1)]


def test_an_old_event_reads_in_todays_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UPCASTERS, ("output.removed", 1), lambda data: {**data, "two": True})
    monkeypatch.setitem(UPCASTERS, ("output.removed", 2), lambda data: {**data, "three": data["two"]})
    assert upcast("output.removed", 1, {}) == {"two": True, "three": True}
    assert upcast("output.removed", 2, {"two": False}) == {"two": False, "three": False}
    assert upcast("output.removed", 3, {"three": 3}) == {"three": 3}
    assert upcast("clock.stepped", 1, {}) == {}


def test_a_known_type_in_a_version_of_the_future_means_that_the_store_is_too_new(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EventLog.in_memory(clock=clock)
    model = REGISTRY["output.removed"]
    monkeypatch.setattr(model, "version", 2)
    with log.transaction() as transaction:
        transaction.append(model.model_validate({"why": "age", "bytes": 1}), actor="test")
    with pytest.raises(StoreTooNew, match=r"output\.removed"):
        list(log.events())


# ── state machines ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_schema_number_is_the_number_of_migrations() -> None:
    assert len(steps.migrations._migrations) == migrations.SCHEMA


def test_the_migration_knows_the_ends_that_the_state_machine_knows() -> None:
    assert set(ast.literal_eval(steps._ENDS)) == SESSION_ENDS
    source = Path(str(steps.__file__)).read_text()
    assert set(re.findall(r"IN (\(.*?\)|\{_ENDS\})", source)) == {"{_ENDS}"}, "a list of ends of its own"


@pytest.mark.parametrize(
    ("table", "prefix", "states", "first"),
    [
        (SESSION, "session.", set(get_args(lifecycle.SessionStatus)), ""),
        (LOCK, "lock.", {"free", "held"}, "free"),
        (BACKEND, "backend.", set(get_args(lifecycle.BackendStatus)), "available"),
        (LOOP, "loop.", set(get_args(lifecycle.LoopMode)), "running"),
    ],
)
def test_each_table_speaks_of_known_events_and_reaches_every_state(
    table: Table, prefix: str, states: set[str], first: str
) -> None:
    assert {type for _, type in table} == {type for type in VOCABULARY if type.startswith(prefix)} - {"loop.configured"}
    reached = {first}
    for _, ((before, _), after) in itertools.product(states, table.items()):
        reached |= {after} if before in reached else set()
    assert reached - {""} == states


def test_the_ends_of_a_session_are_where_nothing_but_a_grade_follows() -> None:
    over = {after for (_, type), after in SESSION.items() if type in SESSION_ENDS}
    for before, type in SESSION:
        assert before not in over or type in ("session.graded", "session.ungraded")
    assert over == {"ended", "lost", "spawn_failed"}


def test_an_illegal_step_is_named() -> None:
    assert lifecycle.advance(LOCK, "free", "lock.acquired", "lock code") == "held"
    with pytest.raises(lifecycle.IllegalTransition, match=r"lock code: lock\.acquired is illegal in state 'held'"):
        lifecycle.advance(LOCK, "held", "lock.acquired", "lock code")
