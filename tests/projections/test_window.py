"""The kept sum of the allocation window is the plain sum, at every instant and whatever the clock did."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from unittest.mock import patch

from given import HOUR, MINUTE, START, after, configured, given, over, running
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st

from events.envelope import Event, to_text
from projections import allocation, window
from projections.fold import EXACT, first_hour
from projections.view import counted

CATEGORIES = ("code", "docs", "research")
LENGTHS = (150 * MINUTE, 7 * HOUR, 48 * HOUR, 72 * HOUR + 1)
KEPT = 12  # hours, so that they run out

def folded(random: Random, steps: int) -> tuple[allocation.Allocation, int]:
    """What random starts and ends leave behind; time passes, now and then for days, and the clock is set."""
    state, now, live = allocation.initial(), START, list[tuple[str, str]]()
    for number in range(1, steps):
        session, category, data = None, None, dict[str, Any]()
        what = "configured" if number == 1 else random.choices(("started", "ended", "configured"), (50, 50, 1))[0]
        if what == "configured":
            data = {"window": random.choice((*LENGTHS, EXACT)) / 1_000_000}
        elif what == "started":
            session, category = f"s{number}", random.choice(CATEGORIES)
            live.append((session, category))
        elif live:
            session, category = live.pop(random.randrange(len(live)))
            data = {"outcome": random.choice(("productive", "limited")), "seconds": random.uniform(0, 10_000)}
        event = Event(number, what, to_text(now), None, None, session, category, data)
        getattr(allocation, what)(state, event)
        state = json.loads(json.dumps(state))  # as from a snapshot
        now += random.choices((90 * MINUTE, 60 * HOUR, -30 * HOUR), (60, 1, 1))[0] * random.randrange(1_000) // 1_000
    return state, now


def plain(hours: Any, now: int, length: int) -> window.Cells:
    """An oracle: each cell of each hour that the window touches."""
    found: window.Cells = {}
    for hour, cells in hours.items():
        if first_hour(now, length) <= hour <= first_hour(now, 0):
            for category, (started, micros) in cells.items():
                before = found.get(category, [0, 0])
                found[category] = [before[0] + started, before[1] + micros]
    return {category: cell for category, cell in found.items() if cell != [0, 0]}


@for_all(st.integers(0, 10**9), st.sampled_from(LENGTHS), st.integers(-80 * HOUR, 20 * HOUR))
@settings(max_examples=300)
def test_the_kept_sum_is_the_plain_sum(seed: int, length: int, distance: int) -> None:
    with patch("projections.fold.HOURS_KEPT", KEPT), patch("projections.window.HOURS_KEPT", KEPT):
        state, now = folded(random := Random(seed), 120)
        lengths = {length, length if state["sum"] is None else state["sum"]["length"]}
        for instant in (now, now + random.randrange(-HOUR, HOUR), now + distance):
            for asked in lengths:
                found = window.over(state["hours"], state["sum"], instant, asked)
                assert found == plain(state["hours"], instant, asked)


def test_a_pass_in_the_window_does_not_add_up_the_hours_again() -> None:
    story = given(configured(window=48 * 3600.0))
    for number in range(60):
        story.happens(running(f"s{number}"), after(minutes=50), over(f"s{number}"), after(minutes=10))
    expected = counted(story.state, story.now, 48 * HOUR)
    assert expected == {"code": (48, 48 * 60.0)}
    with patch("projections.window.plain", side_effect=AssertionError("added up again")):
        assert counted(story.state, story.now, 48 * HOUR) == expected
        assert counted(story.state, story.now + 40 * HOUR, 48 * HOUR)["code"][0] == 8


def test_what_left_the_window_is_not_kept() -> None:
    """Names of categories that no config has any more must not add up."""
    story = given(configured(window=48 * 3600.0))
    for number in range(100):
        story.happens(running(f"s{number}", f"category-{number}"), over(f"s{number}"), after(hours=1))
    kept = story.state.allocation["sum"]
    assert kept is not None
    assert len(kept["cells"]) == 49
