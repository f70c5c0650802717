"""Whether the loop kept its own rules, from the events alone: tokens, locks, slots, ends.

It keeps its own account of who lives and who holds what and never looks at the projections once it has begun, so that a
wrong fold cannot hide a wrong log. What it remembers is bounded by the keys and the live sessions, not by the length of
the log.
"""

from __future__ import annotations

from events.envelope import Event
from events.lifecycle import SESSION_ENDS
from loop.audit.checks import Tally
from projections.state import State


class Conduct:
    """Feed it every event in order with `see`; then `tallies` has the verdicts."""

    def __init__(self, before: State) -> None:
        """`before` is what a range of a log came with, from which its sessions go on; else nothing has happened."""
        self.tokens = Tally("tokens")
        self.starts = Tally("starts_locked")
        self.slots = Tally("slots")
        self.ends = Tally("ends")
        sessions, locks, config = before.sessions["live"], before.locks, before.control["config"]
        # session -> its token, its keys; key -> the token that holds it; key -> the highest token that ever took it
        self._live: dict[str, tuple[int, list[str]]] = {
            id: (live["token"], list(live["keys"])) for id, live in sessions.items()
        }
        self._holders: dict[str, int] = {key: held["token"] for key, held in locks["held"].items()}
        self._last: dict[str, int] = dict(locks["last_token"])
        # slots and respawns in force
        self._limits = None if config is None else (int(config["slots"]), int(config["respawn"]["limit"]))
        self._handlers = {
            "loop.configured": self._configured,
            "session.requested": self._requested,
            "lock.acquired": self._acquired,
            "lock.released": self._released,
            "session.started": self._started,
            **dict.fromkeys(SESSION_ENDS, self._ended),
        }

    def tallies(self) -> tuple[Tally, ...]:
        return (self.tokens, self.starts, self.slots, self.ends)

    def see(self, event: Event) -> None:
        """Judge one event. Raises KeyError, TypeError and the like for data of another shape than its type's."""
        handler = self._handlers.get(event.type)
        if handler is not None:
            handler(event)

    def _configured(self, event: Event) -> None:
        self._limits = (event.data["slots"], event.data["respawn"]["limit"])

    def _requested(self, event: Event) -> None:
        session, keys, chain = event.session or "", list(event.data["keys"]), event.data["chain"]
        if session in self._live:
            self.ends.fail(event.position, f"{session} is requested again while it lives")
        self._live[session] = (event.position, keys)
        self.slots.checked += 1
        if self._limits is None:
            return
        slots, respawns = self._limits
        if len(self._live) > slots:
            live = len(self._live)
            self.slots.fail(event.position, f"{session} makes {live} live sessions, and there are {slots} slots")
        elif chain > respawns:
            self.slots.fail(event.position, f"{session} is respawn {chain} of its chain, and the limit is {respawns}")

    def _acquired(self, event: Event) -> None:
        key, token = event.data["key"], event.data["token"]
        if event.data["imported"]:
            return
        self.tokens.checked += 1
        last = self._last.get(key, 0)
        requested = self._live.get(event.session or "")
        if token <= last:
            self.tokens.fail(event.position, f"{key} is taken under token {token}, after token {last}")
        elif requested is None or requested[0] != token:
            what = "which does not live" if requested is None else f"which was requested at {requested[0]}"
            self.tokens.fail(event.position, f"{key} is taken under token {token} for {event.session}, {what}")
        elif key in self._holders:
            self.tokens.fail(event.position, f"{key} is taken while token {self._holders[key]} holds it")
        self._last[key] = max(last, token)
        self._holders[key] = token

    def _released(self, event: Event) -> None:
        key, token = event.data["key"], event.data["token"]
        if event.data["imported"]:
            return
        self.tokens.checked += 1
        if self._holders.get(key) == token:
            del self._holders[key]
        else:
            holder = self._holders.get(key)
            whose = "nobody holds it" if holder is None else f"token {holder} holds it"
            self.tokens.fail(event.position, f"{key} is let go under token {token}, and {whose}")

    def _started(self, event: Event) -> None:
        self.starts.checked += 1
        requested = self._live.get(event.session or "")
        if requested is None:
            self.starts.fail(event.position, f"{event.session} starts without a request, or after its end")
            return
        token, keys = requested
        missing = [key for key in keys if self._holders.get(key) != token]
        if missing:
            self.starts.fail(event.position, f"{event.session} starts without holding {', '.join(missing)}")

    def _ended(self, event: Event) -> None:
        self.ends.checked += 1
        if self._live.pop(event.session or "", None) is None:
            self.ends.fail(event.position, f"{event.session} ends without a request, or a second time")
