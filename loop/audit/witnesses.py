"""The check `witnesses` of `loop verify`: every hold that the lock files tell of, against the whole log."""

from __future__ import annotations

from dataclasses import dataclass, field

from events.errors import StoreError
from events.store import EventLog
from loop.audit.checks import Tally
from loop.sessions import locks
from loop.sessions.witness import Fault, Known, faults, keys_of, twice

ENDS = ("session.ended", "session.lost", "session.spawn_failed")


@dataclass(slots=True)
class _Told:
    """What the log says of one key."""

    granted: dict[int, str] = field(default_factory=dict)  # token -> session
    over: set[int] = field(default_factory=set)
    measured: dict[int, tuple[str, int, int]] = field(default_factory=dict)  # token -> boot, from_ns, to_ns

    def known(self) -> Known:
        ends = {token: (boot, end) for token, (boot, _, end) in self.measured.items()}
        return Known(frozenset(self.granted.keys() - self.over), ends)


def compare(log: EventLog, lock_dir: str) -> Tally:
    """One look at every witness in full, a second one where the first finds a fault: sessions may run meanwhile."""
    tally = Tally("witnesses")

    def look() -> list[Fault]:
        holds = {key: locks.intervals(locks.path_of(lock_dir, key)) for key in keys_of(lock_dir)}
        told = _told(log)
        tally.checked = sum(map(len, holds.values()))
        return [fault for key in holds for fault in _of_key(log, key, holds[key], told.get(key, _Told()))]

    try:
        for fault in twice(look):
            at = fault.token if fault.token <= log.head().position else None
            tally.fail(at, f"{fault.kind} of {fault.key}: {fault.observed}; expected {fault.expected}")
    except (OSError, StoreError) as error:
        tally.fail(None, f"cannot be read: {error}")
    return tally


def _of_key(log: EventLog, key: str, holds: list[locks.HeldInterval], told: _Told) -> list[Fault]:
    found = faults(key, holds, told.known())
    base = log.base().position
    for hold in holds:
        if hold.token <= base:  # the requests of a range that was imported are elsewhere
            continue
        if (session := told.granted.get(hold.token)) != hold.session:
            expected = "no session" if session is None else f"session {session}"
            observed = f"{hold.session} held it under token {hold.token}"
            found.append(Fault("unknown_hold", key, hold.token, hold.session, f"{expected} by the log", observed))
    seen = {hold.token: hold for hold in holds}
    first = min(seen, default=None)  # a witness that was made anew knows nothing of what was before
    for token, (boot, begin, _) in told.measured.items():
        if first is None or token < first:
            continue
        one = seen.get(token)
        if one is None or (one.boot, one.from_ns) != (boot, begin):
            observed = "nothing" if one is None else f"from {one.from_ns} ns on in boot {one.boot}"
            expected = f"a hold of token {token} from {begin} ns on in boot {boot}"
            found.append(Fault("hold_not_witnessed", key, token, told.granted.get(token, ""), expected, observed))
    return found


def _told(log: EventLog) -> dict[str, _Told]:
    """The log's side, by key."""
    told: dict[str, _Told] = {}
    keys: dict[str, tuple[int, list[str]]] = {}
    for event in log.events_of({"session.requested", *ENDS}):
        session = event.session or ""
        if event.type == "session.requested":
            keys[session] = (event.position, event.data["keys"])
            for key in event.data["keys"]:
                told.setdefault(key, _Told()).granted[event.position] = session
            continue
        token, granted = keys.pop(session, (0, []))
        for key in granted:
            told[key].over.add(token)
            # Without a worker a full disk may have kept the hold itself out of the witness.
            if (interval := event.data["held"].get(key)) and event.type != "session.spawn_failed":
                told[key].measured[token] = (interval["boot"], interval["from_ns"], interval["to_ns"])
    return told
