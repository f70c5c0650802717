"""What `verify` says of a loop that broke its own rules: locks, tokens, slots, ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from given import Story
from histories import history
from stores import failing, records, report_of, write

from events import catalog


class Tail:
    """Events put behind a sound log, checked by nobody."""

    def __init__(self, seed: int = 4) -> None:
        self.world = history(seed, 400, steps=False)
        state = self.world.state
        while state.sessions["live"]:  # begin with nobody alive
            session = next(iter(state.sessions["live"]))
            self.world.finish(session, catalog.SessionLost.model_validate({"why": "x", "held": {}}))
        self.slots = state.control["config"]["slots"]
        self.respawns = state.control["config"]["respawn"]["limit"]

    def append(self, payload: catalog.Payload, session: str | None = None) -> int:
        about = {"session": session, "category": "code" if session else None}
        return Story.append(self.world, payload, **about).position

    def configure(self, **changes: Any) -> None:
        self.append(catalog.LoopConfigured.model_validate({**self.world.state.control["config"], **changes}))

    def request(self, session: str, *keys: str, chain: int = 0) -> int:
        values = {
            "task": "", "backend": "opus", "pool": "max", "keys": list(keys), "chain": chain, "parent": None,
            "rule": "manual", "trigger": "manual", "timeout": 60.0, "deadline": "2026-11-24T00:00:00.000000Z",
        }  # fmt: skip
        return self.append(catalog.SessionRequested.model_validate(values), session)

    def acquire(self, session: str, key: str, token: int) -> int:
        return self.append(catalog.LockAcquired(key=key, token=token), session)

    def grant(self, session: str, key: str) -> int:
        token = self.request(session, key)
        self.acquire(session, key, token)
        return token

    def start(self, session: str) -> int:
        return self.append(catalog.SessionStarted(pid=1, start=1, shim_pid=1, shim_start=1, boot="b"), session)

    def end(self, session: str, *keys: str, begin: int = 1, until: int = 2, boot: str = "b") -> int:
        span = {"boot": boot, "from_ns": begin, "to_ns": until}
        values = {"outcome": "noop", "seconds": 1.0, "held": dict.fromkeys(keys, span)}
        return self.append(catalog.SessionEnded.model_validate(values), session)

    def release(self, session: str, key: str, token: int) -> int:
        return self.append(catalog.LockReleased(key=key, token=token, how="clean"), session)

    def whole(self, session: str, key: str, begin: int, until: int, boot: str = "b") -> int:
        token = self.grant(session, key)
        self.start(session)
        end = self.end(session, key, begin=begin, until=until, boot=boot)
        self.release(session, key, token)
        return end

    def found(self, path: Path, **options: Any) -> dict[str, int | None]:
        return failing(report_of(write(path, records(self.world.events), **options)))


@pytest.fixture
def tail() -> Tail:
    return Tail()


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "loop.db"


def test_intervals_that_only_touch_or_are_of_another_boot_are_disjoint(tail: Tail, db: Path) -> None:
    for number, (begin, until, boot) in enumerate([(100, 200, "b"), (200, 300, "b"), (50, 100, "b"), (150, 250, "c")]):
        tail.whole(f"s{number}", "k", begin, until, boot)
    assert tail.found(db) == {}


def test_overlapping_intervals_are_found_however_far_apart_they_are_told(tail: Tail, db: Path) -> None:
    tail.whole("first", "k", 100, 200)
    for number in range(12):
        tail.whole(f"s{number}", "k", 1000 + number * 10, 1010 + number * 10)
    late = tail.whole("late", "k", 150, 160)
    tail.whole("other", "other", 150, 160)
    # the fold remembers the last eight holders of a key: it cannot have counted this, and that is said, too
    assert tail.found(db) == {"lock_intervals": late, "projections": None}


def test_an_overlap_that_the_fold_counted_agrees_with_sql(tail: Tail, db: Path) -> None:
    tail.whole("first", "k", 100, 200)
    assert tail.found(db.with_name("sound.db")) == {}
    bad = tail.whole("second", "k", 199, 300)
    assert tail.found(db) == {"lock_intervals": bad}


def test_an_interval_that_ends_before_it_begins_is_none(tail: Tail, db: Path) -> None:
    bad = tail.whole("first", "k", 200, 100)
    assert tail.found(db) == {"lock_intervals": bad}


def test_an_overtaken_token(tail: Tail, db: Path) -> None:
    tail.configure(slots=9)
    early, late = tail.request("early", "k"), tail.request("late", "k")
    tail.acquire("late", "k", late)
    tail.release("late", "k", late)
    bad = tail.acquire("early", "k", early)
    assert tail.found(db) == {"tokens": bad}


def test_a_token_is_the_position_of_its_request(tail: Tail, db: Path) -> None:
    token = tail.request("one", "k")
    bad = tail.acquire("one", "k", token + 1)
    assert tail.found(db) == {"tokens": bad}


def test_a_key_taken_while_it_is_held(tail: Tail, db: Path) -> None:
    tail.configure(slots=9)
    tail.grant("one", "k")
    token = tail.request("two", "k")
    assert tail.found(db.with_name("sound.db")) == {}
    bad = tail.acquire("two", "k", token)
    assert tail.found(db) == {"tokens": bad}


def test_a_key_let_go_by_one_who_does_not_hold_it(tail: Tail, db: Path) -> None:
    token = tail.grant("one", "k")
    bad = tail.release("one", "k", token - 1)
    assert tail.found(db) == {"tokens": bad}


def test_a_start_without_the_lock(tail: Tail, db: Path) -> None:
    token = tail.request("one", "k", "more")
    tail.acquire("one", "k", token)
    bad = tail.start("one")
    assert tail.found(db) == {"starts_locked": bad}


def test_a_start_without_a_request(tail: Tail, db: Path) -> None:
    bad = tail.start("one")
    assert tail.found(db)["starts_locked"] == bad


def test_more_sessions_than_slots(tail: Tail, db: Path) -> None:
    for number in range(tail.slots):
        tail.grant(f"s{number}", f"k{number}")
    assert tail.found(db.with_name("sound.db")) == {}
    bad = tail.grant("one too many", "k")
    tail.grant("and another", "l")
    assert tail.found(db) == {"slots": bad}


def test_a_chain_longer_than_its_limit(tail: Tail, db: Path) -> None:
    bad = tail.request("one", "k", chain=tail.respawns + 1)
    assert tail.found(db) == {"slots": bad}


def test_an_end_without_a_request(tail: Tail, db: Path) -> None:
    bad = tail.end("nobody")
    assert tail.found(db) == {"ends": bad}


def test_a_second_end(tail: Tail, db: Path) -> None:
    tail.whole("one", "k", 1, 2)
    bad = tail.end("one")
    found = tail.found(db, without=("events_one_end",))
    assert (found["ends"], found["triggers"]) == (bad, None)
