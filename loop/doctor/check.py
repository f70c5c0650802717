"""One finding of `loop doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]

LISTED = 5  # findings that a detail spells out


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `warn` is no failure; `fix` says what a person can do, `mend` does it and says what it did."""

    name: str
    level: Level
    detail: str
    fix: str | None = None
    mend: Callable[[], str] | None = field(default=None, compare=False)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.level != "fail",
            "level": self.level,
            "detail": self.detail,
            "fix": self.fix,
        }


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first few, and how many more."""
    found = list(items)
    more = [f"and {len(found) - LISTED} more"] if len(found) > LISTED else []
    return separator.join([*found[:LISTED], *more])
