"""What `verify` reports: checks by name, each with how much it looked at and the first position that is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One property of the log. `first_bad` is a position; None where the fault, if any, is not at one."""

    name: str
    ok: bool
    checked: int
    first_bad: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All checks over `events` events; `position`, `at` and `head` (hex) are the newest event's."""

    events: int
    position: int
    at: str | None
    head: str
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def anchor(self) -> str:
        """`POSITION:HASH`, to be kept where whoever can write the store cannot."""
        return f"{self.position}:{self.head}"


class Tally:
    """A check while it is made: `checked` goes up, `fail` keeps the fault at the lowest position."""

    __slots__ = ("checked", "faults", "first_bad", "name", "note", "text")

    def __init__(self, name: str) -> None:
        self.name = name
        self.checked = 0
        self.faults = 0
        self.first_bad: int | None = None
        self.text = ""
        self.note = ""
        """What a check that holds has to say."""

    def fail(self, position: int | None, text: str, faults: int = 1) -> None:
        """A fault, or several of which `position` and `text` are the first."""
        if self.faults == 0 or (position is not None and (self.first_bad is None or position < self.first_bad)):
            self.first_bad, self.text = position, text
        self.faults += faults

    def check(self) -> Check:
        more = f" ({self.faults} in all)" if self.faults > 1 else ""
        detail = "; ".join(part for part in (self.text + more, self.note) if part)
        return Check(self.name, self.faults == 0, self.checked, self.first_bad, detail)
