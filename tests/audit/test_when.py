"""`loop when`: what it finds is what the whole status says at every event and at every instant between two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from given import (
    HOUR,
    MINUTE,
    START,
    Happening,
    Story,
    after,
    configured,
    gate,
    limited,
    over,
    restrained,
    running,
    seen,
)
from given import tick as ticked
from histories import history
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from written import written

from events import catalog
from events.envelope import Event, to_micros, to_text
from events.errors import UsageError
from events.store import EventLog
from loop.audit.expression import Expression, parse
from loop.audit.terms import INDEXED, Term
from loop.audit.when import Turn, intervals, turns
from loop.commands import when as command
from loop.moment import Moment
from loop.status import status
from projections import pools
from projections.pools import PROVEN
from projections.state import State

BORN = seen(catalog.StoreMigrated(store="l", schema_from=0, schema_to=1, sqlite="3", release="0"))
WHOLE = Moment(0, 0)

EXPRESSIONS = (
    *("live > 1", "live == 0", "live >= capacity", "capacity == None", "violations > 0", "noop_rate > 0.2"),
    *("mode != 'running'", "mode == 'paused'", "mode == 'invalid_config'", "intent_lost > 0", "intent_lost in (0, 2)"),
    *("locks['code'].session != None", "locks['repo'].token > 50", "locks['code'].since > '2026-11-23T18:00'"),
    *("backend['opus'].state == 'limited'", "backend['local'].state == 'unknown'", "backend['sonnet'].until != None"),
    *("category['code'].ratio > 1", "category['docs'].share >= 0.25", "category['code'].spawned > 1"),
    *("category['triage'].minutes > 30", "category['code'].enough_data", "category['infra'].neglected"),
    *("category['docs'].cooldown_until != None", "category['triage'].cooldown_until != None"),
    *("category['docs'].supply == 'none'", "category['code'].supply != 'unknown'", "category['news'].supply == 'work'"),
    *("category['code'].backoff_until != None", "category['docs'].blocked_until != None"),
    *("category['code'].gate == 'error'", "category['docs'].gate_at > '2026-11-23T18:00'"),
    *("category['news'].live > 0", "category['code'].cooldown_until != None", "category['code'].target > 0.3"),
    *("category['code'].last_started_at > '2026-11-23T20:00'", "category['docs'].name == 'docs'"),
    "live > 0 and mode == 'running' and not backend['opus'].state == 'limited'",
    "category['code'].cooldown_until != None or category['code'].ratio > 1 or intent_lost > 1",
    *("category['code'].capped", "category['docs'].credit > 0", "category['code'].supply == 'work'"),
    *("category['news'].over_allocated", "category['code'].entitlement >= 5"),
    "True",
)


# ── the oracle: the whole status, at every event and at every instant that anything in the state names ───────────────


def value(report: dict[str, Any], term: Term) -> Any:
    """A name's value, read from the status object."""
    if term.field is None:
        return {
            "live": report["slots"]["live"],
            "capacity": report["slots"]["capacity"],
            "violations": report["violations"]["same_lock"],
            "noop_rate": report["noop"]["rate"],
            "mode": report["mode"],
            "intent_lost": report["selection"]["intent_lost"],
        }[term.root]
    rows, name = {
        "locks": (report["locks"], "key"),
        "category": (report["categories"], "name"),
        "backend": (report["backends"]["items"], "name"),
    }[term.root]
    return next((row[term.field] for row in rows if row[name] == term.key), None)


def instants(state: State, begin: int, end: int) -> list[int]:
    """Every time in (begin, end] at which a pause, limit, cool-down or window of any length in use may turn."""
    found: set[int] = set()
    for mode in state.control["modes"].values():
        found |= {to_micros(mode["until"])} if mode["until"] else set()
    for pool in state.backends["pools"].values():
        since = to_micros(pool["since"])
        found |= {to_micros(pool["until"])} if pool["until"] else {since + HOUR}
        found |= {since + minutes * MINUTE for minutes in (1, 2, 4, 8, 16, 32, 60)}
        found |= {to_micros(pool["probed"]) + PROVEN} if pool["probed"] else set()
    for name in state.control["config"]["backends"] if state.control["config"] else ():
        found |= set(pools.instants(state, name))  # of breakers, which are open for odd lengths
    for last in state.outcomes["last"].values():
        found |= {to_micros(last["at"]) + wait * MINUTE for wait in (0, 10, 20, 30, 40, 60)}
    for start in state.allocation["exact"]:
        found |= {to_micros(start[0]) + wait * HOUR for wait in (0, 1, 2)}
    for answered in state.supply["gates"].values():
        found |= {to_micros(answered["at"]) + wait for wait in (0, 15 * MINUTE + 1)}
    for ends in state.supply["ends"].values():
        found |= {to_micros(end["at"]) + wait * MINUTE for end in ends for wait in (0, 20, 40, 60, 80, 120, 160, 240)}
    for block in state.supply["blocks"].values():
        found |= {to_micros(block["at"]) + wait * MINUTE for wait in (0, 80, 160, 240, 320)}
    found |= {hour * HOUR for hour in range(begin // HOUR, end // HOUR + 1)}
    return sorted(instant for instant in found if begin < instant <= end)


def oracle(events: list[Event], expressions: list[Expression], end: int) -> list[list[Turn]]:
    """The turns of each expression, by asking for the whole status again and again."""
    state = State().fold(events[:1])
    now = to_micros(events[0].at)
    found: list[list[Turn]] = [[] for _ in expressions]

    def tested(at: int) -> list[bool]:
        report = status(state, at)
        return [one.holds({term: value(report, term) for term in one.terms}) for one in expressions]

    def turn(new: list[bool], position: int, at: int, by: list[int | None]) -> None:
        for index, (was, holds) in enumerate(zip(known, new, strict=True)):
            if was != holds:
                place = by[index]
                found[index].append(Turn(position if place is None else place, to_text(at), holds, place))

    known = [False] * len(expressions)
    first = tested(now)
    turn(first, 1, now, [1] * len(expressions))
    known = first
    for event in [*events[1:], None]:
        upto = end if event is None else to_micros(event.at)
        lapsed = known
        for instant in instants(state, now, upto):
            lapsed = tested(instant)
            if instant < upto or event is None:
                turn(lapsed, state.position, instant, [None] * len(expressions))
                known = lapsed
        if event is not None:
            newest = state.position
            state.apply(event)
            new = tested(upto)
            by: list[int | None] = [
                None if before == after else event.position for before, after in zip(lapsed, new, strict=True)
            ]
            turn(new, newest, upto, by)
            known = new
            now = upto
    return found


@settings(max_examples=5)
@for_all(st.integers(0, 10**6), st.booleans())
def test_it_finds_what_the_whole_status_says_at_every_instant(seed: int, steps: bool) -> None:
    events = history(seed, 150, steps=steps).events
    end = max(to_micros(events[-1].at), START) + 3 * HOUR
    log = written(events)
    wanted = [parse(text) for text in EXPRESSIONS]
    for expression, expected in zip(wanted, oracle(list(log.events()), wanted, end), strict=True):
        assert list(turns(log, expression, WHOLE, Moment(len(events), end))) == expected, expression.text


@settings(max_examples=4)
@for_all(st.integers(0, 10**6), st.data())
def test_from_any_moment_it_finds_what_the_whole_search_finds_there(seed: int, data: st.DataObject) -> None:
    events = history(seed, 200).events
    log = written(events)
    begin = data.draw(st.integers(1, len(events) - 1))
    end = data.draw(st.integers(begin, len(events)))
    start, stop = (Moment(at, to_micros(events[at - 1].at)) for at in (begin, end))
    for text in EXPRESSIONS:
        expression = parse(text)
        whole = list(turns(log, expression, WHOLE, Moment(len(events), to_micros(events[-1].at))))
        before = [turn for turn in whole if turn.position <= begin and (turn.by is not None or turn.position < begin)]
        held = bool(before) and before[-1].holds
        later = [turn for turn in whole[len(before) :] if turn.position < end or turn.by == end]
        expected = [Turn(begin, start.at, True, None)] * held + later
        assert list(turns(log, expression, start, stop)) == expected, text


# ── told by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────


def found(text: str, *happenings: Happening, then: int = 0) -> list[dict[str, Any]]:
    """The intervals of a story, looked at `then` minutes after its end."""
    story = Story()
    story.happens(BORN, *happenings)
    log = written(story.events)
    end = Moment(len(story.events), story.now + then * MINUTE)
    return [interval.as_dict() for interval in intervals(log, parse(text), WHOLE, end)]


def moment(position: int, minutes: float) -> dict[str, Any]:
    return {"position": position, "at": to_text(START + round(minutes * MINUTE))}


def test_events_open_and_close_an_interval() -> None:
    story = (configured(), after(minutes=1), running("s1", "code"), after(minutes=5), over("s1"))
    assert found("live > 0", *story) == [
        {
            "from": moment(3, 1),
            "to": moment(6, 6),
            "opened_by": 3,
            "closed_by": 6,
            "expired_at": None,
            "earlier": False,
        }
    ]


def test_a_pause_that_lapses_ends_without_an_event() -> None:
    (interval,) = found("mode == 'paused'", configured(), restrained("paused", minutes=30), after(minutes=50), ticked())
    assert interval["expired_at"] == interval["to"]["at"] == to_text(START + 30 * MINUTE)
    assert interval["closed_by"] is None
    assert interval["opened_by"] == 3


def test_what_lapses_after_the_last_event_is_seen_too_and_not_before_its_time() -> None:
    story = (configured(), limited("default", minutes=30))
    (open_still,) = found("backend['default'].state == 'limited'", *story, then=29)
    assert open_still["to"] is None
    (lapsed,) = found("backend['default'].state == 'limited'", *story, then=30)
    assert lapsed["to"] == moment(3, 30)
    (again,) = found("backend['default'].state == 'available' and live == 0", *story, then=31)[1:]
    assert again["opened_by"] is None
    assert again["from"] == moment(3, 30)


def test_what_an_event_undoes_at_the_very_instant_never_was() -> None:
    story = (configured(), restrained("paused", minutes=30), after(minutes=30), restrained("paused", minutes=10))
    (interval,) = found("mode == 'paused'", *story, then=11)
    assert interval["to"] == moment(4, 40)


def test_what_lies_between_the_instant_and_the_event_has_seen_it() -> None:
    looked = seen(catalog.HostMeasured(load_per_cpu=0.5))
    paused = restrained("paused", minutes=10)
    first, second = found("mode == 'paused'", restrained("paused", minutes=30), after(minutes=30), looked, paused)
    assert first["expired_at"] == second["from"]["at"] == to_text(START + 30 * MINUTE)
    assert second["opened_by"] == 4


def test_a_cooldown_runs_out_and_a_limit_of_unknown_length_lapses() -> None:
    story = (configured(categories={"code": {"cooldown": 600.0}}), running("s1", "code"), over("s1", "noop"))
    (cooling,) = found("category['code'].cooldown_until != None", *story, then=60)
    assert (cooling["opened_by"], cooling["expired_at"]) == (6, to_text(START + 10 * MINUTE))
    (unknown,) = found("backend['default'].state == 'unknown'", configured(), limited(), then=61)
    assert (unknown["opened_by"], unknown["expired_at"]) == (3, to_text(START + HOUR))


def test_supply_lapses_with_its_evidence_and_a_back_off_with_time() -> None:
    gated = configured(categories={"code": {"gate": True}})
    (work,) = found("category['code'].supply == 'work'", gated, ticked(), gate("code"), then=60)
    assert (work["opened_by"], work["expired_at"]) == (4, to_text(START + 15 * MINUTE + 1))
    blocked = (configured(), running("s1", "code"), over("s1", "blocked"))
    for expression in ("category['code'].supply == 'none'", "category['code'].blocked_until != None"):
        (waiting,) = found(expression, *blocked, then=300)
        assert (waiting["opened_by"], waiting["expired_at"]) == (6, to_text(START + 4 * HOUR))
    noops = [step for name in ("s1", "s2", "s3") for step in (running(name, "code"), over(name, "noop"))]
    (backing,) = found("category['code'].backoff_until != None", configured(), *noops, then=120)
    assert backing["expired_at"] == to_text(START + HOUR)


def test_a_window_lets_go_of_an_hour_without_an_event() -> None:
    story = (configured(categories={"code": {"target": 1.0}}), running("s1", "code"), over("s1"))
    (interval,) = found("category['code'].spawned == 1", *story, then=60 * 60)
    assert interval["expired_at"] == to_text(START + 49 * HOUR)  # the hour of the start, and 48 after its end


@pytest.mark.parametrize("between", [ticked(), seen(catalog.HostMeasured(load_per_cpu=0.5))])
def test_a_clock_set_back_brings_back_what_time_had_ended(between: Happening) -> None:
    stepped = catalog.ClockStepped(expected="", observed="", seconds=-1200.0)
    story = (restrained("paused", minutes=30), after(minutes=40), between, after(minutes=-20), seen(stepped))
    first, second = found("mode == 'paused'", configured(), *story, then=60)
    assert first["expired_at"] == second["expired_at"] == to_text(START + 30 * MINUTE)
    assert second["opened_by"] == 5


def test_every_field_of_the_language_is_one_of_status() -> None:
    story = Story()
    story.happens(BORN, configured(), running("s1", "code"))
    report = status(story.state, story.now)
    for root, fields in INDEXED.items():
        (row, *_) = {
            "locks": report["locks"],
            "category": report["categories"],
            "backend": report["backends"]["items"],
        }[root]
        assert set(fields) <= set(row)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "s" / "loop.db"
    story = Story()
    story.happens(BORN, configured(), restrained("paused", minutes=30), after(minutes=40), running("s1"), over("s1"))
    written(story.events, path).close()
    return path


def ask(db: Path, text: str, *, as_json: bool = True, **given: Any) -> int:
    options = {"since": None, "until": None, "at": None, "limit": None, **given}
    return command.run(db, text, as_json=as_json, **options)


def test_its_json_is_the_contracts_and_its_command_asks_the_same_again(
    db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(db, "mode == 'paused'", at="5")
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == "loop.when/1"
    assert report["as_of"] == {"position": 5, "at": to_text(START + 40 * MINUTE)}
    assert report["events"] == 5
    assert report["command"] == """loop when 'mode == '"'"'paused'"'"'' --at 5"""
    (interval,) = report["intervals"]
    assert interval["expired_at"] == to_text(START + 30 * MINUTE)
    ask(db, "mode == 'paused'", since=to_text(START + 10 * MINUTE), until=to_text(START + 20 * MINUTE))
    report = json.loads(capsys.readouterr().out)
    assert report["intervals"][0]["earlier"]
    assert report["intervals"][0]["to"] is None
    assert report["as_of"]["at"] == to_text(START + 20 * MINUTE)


def test_its_table_says_who_opened_and_what_ended(db: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask(db, "mode == 'paused'", at="7", as_json=False)
    text = capsys.readouterr().out
    assert "3 loop.paused" in text
    assert "30 min" in text
    assert "time" in text.splitlines()[1]
    assert "1 interval in 7 events" in text
    assert "loop show 3" in text


def test_a_person_gets_a_screenful_and_a_script_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    story.happens(BORN, configured())
    for number in range(30):
        story.happens(running(f"s{number}"), over(f"s{number}"))
    path = tmp_path / "many" / "loop.db"
    written(story.events, path).close()
    ask(path, "live > 0", as_json=False)
    assert "30 intervals in 152 events" in (text := capsys.readouterr().out)
    assert "the last 20 of them" in text
    ask(path, "live > 0")
    assert len(json.loads(capsys.readouterr().out)["intervals"]) == 30
    ask(path, "live > 0", limit=2)
    report = json.loads(capsys.readouterr().out)
    assert report["count"] == 30
    assert [interval["opened_by"] for interval in report["intervals"]] == [143, 148]


def test_no_events_hold_nothing_and_a_search_that_ends_before_it_begins_is_refused(
    tmp_path: Path, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(tmp_path / "none" / "loop.db", "live == 0")
    assert json.loads(capsys.readouterr().out)["intervals"] == []
    with pytest.raises(UsageError, match="would begin"):
        ask(db, "live == 0", since="1h", at="3")
    with pytest.raises(UsageError, match="both say"):
        ask(db, "live == 0", until="1h", at="3")


def test_it_reads_no_event_that_the_expression_does_not_rest_on(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    real = EventLog.events_of

    def spy(self: EventLog, types: tuple[str, ...], *rest: Any) -> Iterator[Event]:
        asked.append(types)
        return real(self, types, *rest)

    monkeypatch.setattr(EventLog, "events_of", spy)
    ask(db, "live > 3")
    assert asked == [("session.ended", "session.lost", "session.requested", "session.spawn_failed")]
