"""`State` as a whole: one fold from anywhere, bounded for ever, its own snapshots, and nobody else's data."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from given import (
    MINUTE,
    after,
    configured,
    decided,
    given,
    held,
    limited,
    over,
    ranking,
    restrained,
    running,
    tick,
)
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events import envelope, lifecycle, upcast
from events.catalog import LockAcquired, NoticeSent
from events.envelope import Event, to_micros
from events.errors import LoopError, StoreBusy, StoreError
from events.store import EventLog
from loop.journal import Journal
from projections import fold, snapshots
from projections.state import PROJECTIONS, State
from tests.audit.written import written

SEEDS = st.integers(0, 10_000)


def folded(events: list[Event]) -> State:
    return State().fold(events)


@for_all(SEEDS)
@settings(max_examples=25)
def test_a_snapshot_and_its_tail_are_the_whole_fold_at_every_position(seed: int) -> None:
    events = history(seed, 90).events
    whole = folded(events).dump()
    state = State()
    for event in events:
        resumed = State.load(state.dump())
        assert resumed.fold(events[state.position :]).dump() == whole, f"snapshot at {state.position}"
        state.apply(event)


@for_all(SEEDS)
@settings(max_examples=10)
def test_a_state_that_is_dumped_and_loaded_at_every_step_stays_the_same(seed: int) -> None:
    """What two parts of a state share by reference would come apart."""
    state = State()
    world = history(seed, 300)
    for event in world.events:
        state = State.load(state.dump())
        state.apply(event)
    assert state.dump() == world.state.dump() == folded(world.events).dump()


@for_all(SEEDS, st.integers(1, 60), st.integers(0, 299))
@settings(max_examples=25)
def test_a_fold_in_batches_that_is_broken_off_goes_on_from_where_it_is(seed: int, batch: int, broken: int) -> None:
    """Each projection gets a batch in its turn: what comes of it is what comes of one event after the other."""
    world = history(seed, 300)

    def until_it_breaks() -> Iterator[Event]:
        yield from world.events[:broken]
        raise StoreBusy("broken off", "")

    state = State()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.state.BATCH", batch)
        with pytest.raises(StoreBusy):
            state.fold(until_it_breaks())
        assert broken - batch <= state.position <= broken
        assert state.dump() == one_by_one(world.events[: state.position]).dump()
        assert state.fold(world.events[state.position :]).dump() == world.state.dump()


def one_by_one(events: list[Event]) -> State:
    state = State()
    for event in events:
        state.apply(event)
    return state


@pytest.mark.parametrize("batch", [1, 4, 1_000])
def test_an_event_that_cannot_be_folded_is_named_wherever_it_lies(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("projections.state.BATCH", batch)
    events = history(1, 40).events
    started = next(event for event in events if event.type == "session.started")
    for broken, mark in ((started.holding({}), "cannot be folded: KeyError"), (replace(started, type="x.y"), "'x.y'")):
        damaged = [broken if event is started else event for event in events]
        with pytest.raises(LoopError, match=f"event {started.position} .*{mark}"):
            State().fold(damaged)
    with pytest.raises(StoreError, match=f"event {started.position} is missing"):
        State().fold(event for event in events if event is not started)


@pytest.mark.parametrize("batch", [1, 1_000])
def test_of_several_events_that_cannot_be_folded_the_first_is_named(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever projection comes first, and whatever is wrong with the events behind it."""
    monkeypatch.setattr("projections.state.BATCH", batch)
    events = history(1, 200).events
    first = next(event for event in events if event.type == "lock.acquired")
    behind = next(event for event in events if event.type == "session.requested" and event.position > first.position)
    damaged = [event.holding({"x": 1}) if event in (first, behind) else event for event in events]
    gap = [event for event in damaged if event is not damaged[behind.position]]
    stranger = [replace(event, type="x.y") if event is damaged[behind.position] else event for event in damaged]
    for found in (damaged, gap, stranger):
        with pytest.raises(StoreError, match=f"event {first.position} .*cannot be folded: KeyError"):
            State().fold(found)


@for_all(SEEDS)
@settings(max_examples=10)
def test_folding_changes_no_event(seed: int) -> None:
    world = history(seed, 200)
    before = orjson.dumps(world.events)
    folded(world.events)
    assert orjson.dumps(world.events) == before


def test_a_copy_goes_its_own_way() -> None:
    story = given(configured(), tick(), running("s1"))
    copy, before = story.state.copy(), story.state.dump()
    assert copy.dump() == before
    data = {"why": "", "resume_token": None, "held": {}}
    copy.apply(Event(copy.position + 1, "session.lost", "x" * 27, None, None, "s1", "code", data))
    assert copy.dump() != before
    assert story.state.dump() == before


def test_a_gap_in_the_positions_is_refused() -> None:
    event = Event(2, "notice.sent", "x" * 27, None, None, None, None, {"kind": "x", "about": None})
    with pytest.raises(StoreError, match="event 1 is missing"):
        State().apply(event)


def test_a_state_stays_small_however_long_the_log() -> None:
    """80,000 events of a loop that never rests; the bound is on the whole State, as JSON."""
    story = given(configured(), after(minutes=1))
    names = ("code", "docs", "research")
    sizes = []
    cycle = given(
        configured(),
        tick(),
        ranking(*names),
        decided(3),
        *(running(name, name) for name in names),
        limited("pool", minutes=5),
        *(over(name, "productive" if name == "code" else "noop", held={name: held(1, 2)}) for name in names),
        restrained("paused", minutes=1),
        tick("session_end", ended="code"),
        running("next", "code", parent="code", chain=1, rule="respawn"),
        over("next", "unproven"),
    ).events[1:]
    state = story.state
    while state.position < 80_000:
        turn, shift = len(sizes), state.position - 1
        at = envelope.to_text(story.now + turn * 10 * MINUTE)
        for event in cycle:
            data = {**event.data}
            for name in ("parent", "ended"):
                if data.get(name):
                    data[name] = f"{data[name]}-{turn}"
            if "token" in data:
                data["token"] += shift
            session = event.session and f"{event.session}-{turn}"
            tick_id = event.tick and f"{event.tick}-{turn}"
            state.apply(replace(event, position=state.position + 1, at=at, data=data, session=session, tick=tick_id))
        sizes.append(len(state.dump()) if turn % 100 == 0 else 0)
    assert state.sessions["ended"] > 9_000
    assert state.locks["violations"] > 1_000  # every interval of a key is the same: findings are bounded too
    assert max(sizes) < 600_000
    assert max(sizes) < 1.05 * max(sizes[: len(sizes) // 2]), "it still grows"


# ── hours ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_hours_are_kept_up_to_a_limit_and_the_window_says_so() -> None:
    story = given(configured())
    for number in range(fold.HOURS_KEPT):
        story.happens(tick(), running(f"s{number}"), over(f"s{number}"), after(hours=1))
    hours = story.state.allocation["hours"]
    day = 24 * fold.HOUR
    assert len(hours) == fold.HOURS_KEPT
    assert not fold.truncated(hours, story.now, 3 * day)
    assert fold.truncated(hours, story.now, 30 * day)
    story.happens(running("one more"), over("one more"))
    assert len(hours) == fold.HOURS_KEPT


def test_a_clock_set_back_before_everything_kept_loses_nothing_new() -> None:
    """As a machine without a battery does at boot; the hour just made must not be the one dropped."""
    story = given(configured())
    for number in range(fold.HOURS_KEPT):
        story.happens(running(f"s{number}"), over(f"s{number}"), after(hours=1))
    story.now = envelope.to_micros("1970-01-01T00:00:00Z")
    story.happens(running("late"), over("late"))
    assert story.state.sessions["requests"]["1970-01-01T00"] == 1
    assert story.state.allocation["hours"]["1970-01-01T00"] == {"code": [1, 60_000_000]}
    assert story.view().rates.day == 1


# ── snapshots ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A store with more events than a snapshot waits for, and one snapshot."""
    journal = Journal(EventLog.open(tmp_path / "loop.db"))
    with journal.transaction() as entry:
        for number in range(snapshots.EVERY + 1):
            entry.append(NoticeSent(kind="test", about=number), actor="test")
    journal.save_snapshot()
    with journal.transaction() as entry:
        entry.append(NoticeSent(kind="tail"), actor="test")
    return journal


def test_a_snapshot_is_used_and_says_what_the_log_says(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    head = journal.log.head().position
    found = journal.log.load_snapshot(snapshots.version(), head)
    assert found is not None
    assert found[0] == head - 1
    whole = State().fold(journal.log.events()).dump()
    folded: list[int] = []
    events = journal.log.events

    def watched(after: int = 0, upto: int | None = None) -> Iterator[Event]:
        for event in events(after, upto):
            folded.append(event.position)
            yield event

    monkeypatch.setattr(journal.log, "events", watched)
    assert snapshots.load(journal.log).dump() == whole
    assert folded == [head]
    assert snapshots.load(journal.log, head - 1).position == head - 1
    assert snapshots.load(journal.log, 3).position == 3


def test_a_stored_snapshot_and_its_tail_are_the_fold_of_all_at_every_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    """One snapshot at a time, at each position, read back through the store for the head and for a later position."""
    monkeypatch.setattr(snapshots, "EVERY", 0)
    written(history(7, 120).events, tmp_path / "loop.db").close()
    log = EventLog.open(tmp_path / "loop.db", clock=clock)
    events = list(log.events())
    clock.time = to_micros(events[-1].at)
    states = [folded(events[:position]).dump() for position in range(len(events) + 1)]
    used: list[int] = []
    fold = EventLog.events
    monkeypatch.setattr(
        EventLog, "events", lambda log, after=0, upto=None: (used.append(after), fold(log, after, upto))[1]
    )
    for position in range(1, len(events) + 1):
        snapshots.save(log, State.load(states[position]))
        later = (position + len(events)) // 2
        assert snapshots.load(log).dump() == states[-1], position
        assert snapshots.load(log, later).dump() == states[later], position
        assert snapshots.load(log, position - 1).dump() == states[position - 1], position
        assert used == [position, position, 0]
        used.clear()
        log._connection.execute("DELETE FROM snapshots")
    log.close()


def test_a_snapshot_of_other_folds_or_of_another_chain_is_ignored(journal: Journal) -> None:
    head = journal.log.head().position
    assert journal.log.load_snapshot("another version", head) is None
    assert journal.log.load_snapshot(snapshots.version(), head - 2) is None
    journal.log._connection.execute("UPDATE snapshots SET hash = zeroblob(32)")
    assert journal.log.load_snapshot(snapshots.version(), head) is None
    assert snapshots.load(journal.log).position == head


def test_snapshots_are_kept_every_so_many_events(journal: Journal) -> None:
    def count() -> int:
        [number] = journal.log._connection.execute("SELECT count(*) FROM snapshots").fetchone()
        return int(number)

    journal.save_snapshot()
    assert count() == 1
    with journal.transaction() as entry:
        for _ in range(snapshots.EVERY):
            entry.append(NoticeSent(kind="test"), actor="test")
    journal.save_snapshot()
    assert count() == 2


def test_a_snapshot_is_bound_to_everything_that_folds() -> None:
    """Whatever of ours the folds import from `events` is in the digest, but for errors and the store itself."""
    imported = set()
    for module in (*PROJECTIONS.values(), fold, inspect.getmodule(State)):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("events"):
                imported.add(node.module)
    assert imported - {"events.errors"} <= {module.__name__ for module in (envelope, lifecycle, upcast)}
    source = inspect.getsource(snapshots.version)
    assert all(f"{name}.__file__" in source for name in ("envelope", "lifecycle", "upcast"))


# ── the journal ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_transaction_that_fails_leaves_the_state_of_the_log(journal: Journal) -> None:
    before = journal.state.dump()

    def fail() -> None:
        with journal.transaction() as entry:
            entry.append(NoticeSent(kind="test"), actor="test")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert journal.state.dump() == before == State().fold(journal.log.events()).dump()


def test_a_transaction_begins_where_others_left_the_log(journal: Journal, tmp_path: Path) -> None:
    other = Journal(EventLog.open(tmp_path / "loop.db"))
    with other.transaction() as entry:
        new = entry.append(NoticeSent(kind="theirs"), actor="test").position
    with journal.transaction() as entry:
        assert entry.state.position == new
        assert entry.append(NoticeSent(kind="ours"), actor="test").position == new + 1
    assert other.refresh().position == new + 1


def test_the_bulk_is_folded_outside_the_write_lock_and_only_the_tail_inside(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process appends while the bulk is folded, which nobody could under the write lock."""
    other, ours = Journal(EventLog.open(tmp_path / "loop.db")), Journal(EventLog.open(tmp_path / "loop.db"))
    ours.refresh()
    with other.transaction() as entry:
        bulk = [entry.append(NoticeSent(kind="bulk"), actor="test").position for _ in range(30)]
    read: list[int] = []
    tail: list[int] = []
    events = ours.log.events

    def watched(after: int = 0, upto: int | None = None) -> Iterator[Event]:
        for event in events(after, upto):
            read.append(event.position)
            if event.position == bulk[-1]:
                with other.transaction() as entry:
                    tail.append(entry.append(NoticeSent(kind="tail"), actor="test").position)
            yield event

    monkeypatch.setattr(ours.log, "events", watched)
    with ours.transaction() as entry:
        assert entry.state.position == tail[0]
    assert read == [*bulk, *tail], "each once: the tail alone was left for the write lock"


def test_snapshots_take_no_more_than_their_part_of_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "EVERY", 10)
    journal = Journal(EventLog.open(tmp_path / "loop.db"))
    for number in range(900):
        with journal.transaction() as entry:
            entry.append(LockAcquired(key=f"key-{number}", token=number + 1), actor="test", session=f"s{number}")
        journal.save_snapshot()
    rows = journal.log._rows("SELECT length(state) FROM snapshots ORDER BY position")
    of_snapshots = sum(size for (size,) in rows)
    of_events = journal.log.size() - of_snapshots
    assert len(rows) > 5
    assert rows[-1][0] > 5_000, "with states so large, one every ten events would be several times the log"
    assert of_snapshots <= of_events / 4
