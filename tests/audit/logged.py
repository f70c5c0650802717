"""Stories and histories that also lie in a log, for what reads one; their passes decide with the real decider."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from given import START, Happening, Story
from histories import World

from events.catalog import Payload
from events.clock import SystemClock
from events.envelope import Event, to_json, to_micros
from events.store import EventLog
from projections.state import State
from projections.view import View, view


class StoryClock(SystemClock):
    """The time that a story tells."""

    def __init__(self, story: Story) -> None:
        self.story = story

    def now(self) -> int:
        return self.story.now


class Logged(Story):
    """A story whose events are appended to a log: in memory, or in the file that `path` names."""

    def __init__(self, now: int = START, path: Path | None = None) -> None:
        super().__init__(now)
        clock = StoryClock(self)
        self.log = EventLog.in_memory(clock=clock) if path is None else EventLog.open(path, clock=clock)
        for event in self.log.events():
            self.state.apply(event)
            self.events.append(event)

    def append(self, payload: Payload, **envelope: Any) -> Event:
        with self.log.transaction() as transaction:
            event = transaction.append(payload, actor="test", **envelope)
        event = event.holding(json.loads(to_json(event.data)))
        self.state.apply(event)
        self.events.append(event)
        return event

    @property
    def decisions(self) -> list[Event]:
        return [event for event in self.events if event.type == "fanout.decided"]


class LoggedWorld(World, Logged):
    """A random history in a log."""


def told(*happenings: Happening, path: Path | None = None) -> Logged:
    story = Logged(path=path)
    story.happens(*happenings)
    return story


def views(story: Story) -> list[View]:
    """What each decision of a story saw."""
    found, state = [], State()
    for event in story.events:
        if event.type == "fanout.decided":
            found.append(view(state, to_micros(event.data["now"])))
        state.apply(event)
    return found
