"""Notices: `loop.notify` is run with one JSON object on stdin when something happened that a person should know.

KINDS is the table of what that is. What there is to tell, and what was told, is folded from the log
(`projections.notices`), so that no notice is lost by a crash and none is repeated by a restart; one that was being sent
at the crash may come twice. At most PER_HOUR are tried in any hour, the URGENT first: the last of them tells how many
others there are, and a few more are kept for what is URGENT. A command that fails is recorded as `notice.failed`, rests
for a while, since what fails for one fails for most and would use up the hour, and changes nothing else.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from events.catalog import NoticeFailed, NoticeSent
from events.envelope import to_micros
from events.errors import LoopError
from events.store import Filter
from loop.command import CommandResult, run_bounded
from loop.controller import Loop, kernel_lock
from loop.guard import RULES
from loop.home import Home
from loop.standing import is_over, standing
from loop.words import REJECTIONS, amount
from projections.notices import Raised, key_of
from projections.state import State

SCHEMA = "loop.notice/1"
ACTOR = "notify"
SECOND = 1_000_000
HOUR = 3600 * SECOND
PER_HOUR = 12  # notices tried in any hour …
RESERVED = 4  # … and so many more, if they are URGENT
URGENT = ("frozen", "violation")  # in this order
RETRY = 900 * SECOND  # of one notice after a command that failed …
REST = 60 * SECOND  # … and of any other
LAPSE = 2 * HOUR  # what was not told by then is no news: an old log is not read out to a new command
LAPSE_FAILED = 24 * HOUR  # what was tried in vain, as over a night without a network
SECONDS = 10.0  # for one notice; and a look begins none after so many, however many are due
OUTPUT_LIMIT = 1 << 16  # bytes that the command may print; they go nowhere
TEXT_KEPT = 2_000
MANY = "suppressed"


class Kind(NamedTuple):
    text: Callable[[Raised], str]
    command: str
    """What shows more of it."""
    quiet: int = HOUR
    """Between two notices of one subject; what happens meanwhile is counted and told after it."""


def _frozen(raised: Raised) -> str:
    because = RULES.get(raised["detail"]["because"], "")
    return f"{'the loop' if raised['subject'] == 'all' else raised['subject']} is frozen" + (because and f": {because}")


def _pass_failed(raised: Raised) -> str:
    if raised["subject"] == "config":
        return "the config is invalid: nothing is started"
    reason = raised["detail"]["reason"]
    return f"the selector's answer was rejected: {REJECTIONS.get(reason, reason)}"


def _fire_missed(raised: Raised) -> str:
    if since := raised["detail"].get("since"):
        return f"no fire since {since[:19]}Z, for more than two periods"
    return f"{raised['detail']['missed']} fires were missed before this one"


def _limited(raised: Raised) -> str:
    until = raised["detail"]["until"]
    if broken := raised["detail"].get("broken"):
        what = raised["subject"] if raised["subject"].startswith("backend ") else f"backend pool {raised['subject']}"
        return f"{what} is limited: its sessions end with {broken.replace('_', ' ')}"
    return f"backend pool {raised['subject']} is limited" + (f" until {until[:19]}Z" if until else "")


def _budget(raised: Raised) -> str:
    kind, until = raised["detail"]["budget"], raised["detail"]["until"]
    spent, limit = amount(kind, raised["detail"]["spent"]), amount(kind, raised["detail"]["limit"])
    text = f"the budget of {raised['subject']} is reached: {spent} of {limit} a day"
    return text + (f"; something of it leaves the day at {until[:19]}Z" if until else "")


KINDS: dict[str, Kind] = {
    "violation": Kind(
        lambda raised: f"{raised['detail']['kind'].replace('_', ' ')} of {raised['subject']}",
        "loop log --type violation.detected",
    ),
    "frozen": Kind(_frozen, "loop log --type loop.frozen", quiet=0),
    "pool_limited": Kind(_limited, "loop backends"),
    "budget_reached": Kind(_budget, "loop usage"),
    "fire_missed": Kind(_fire_missed, "loop doctor"),
    "pass_failed": Kind(_pass_failed, "loop status"),
    "session_lost": Kind(
        lambda raised: f"a session of {raised['subject']} was lost: {raised['detail']['why'].replace('_', ' ')}",
        "loop sessions --outcome lost",
    ),
}
"""What is told. A kind's facts are raised in `projections.notices`, and by what stands (`loop.standing`)."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One call of the command. `about` is the position up to which it tells; `subject` is None for MANY."""

    kind: str
    subject: str | None
    about: int
    body: dict[str, Any]


def due(state: State, now: int) -> list[Notice]:
    """What is to be told at `now` (microseconds), urgent and then older ones first: within the rate, without what was
    told lately; nothing while a command that failed has its rest."""
    known = state.notices
    if _rests(state, now):
        return []
    found = [raised for raised in _raised(state, now) if _is_due(state, raised, now)]
    found.sort(key=_rank)
    room = PER_HOUR - sum(0 <= now - to_micros(at) < HOUR for at in known["attempts"])
    if room <= 0:
        found, room = [raised for raised in found if raised["kind"] in URGENT], room + RESERVED
    if room <= 0:
        return []
    if len(found) <= room:
        return [_notice(state, raised) for raised in found]
    rest = found[room - 1 :]
    return [*(_notice(state, raised) for raised in found[: room - 1]), _together(state, rest)]


def _rank(raised: Raised) -> int:
    return URGENT.index(raised["kind"]) if raised["kind"] in URGENT else len(URGENT)


def _rests(state: State, now: int) -> bool:
    """Whether the last attempt failed just now, or one that told of many and is not to be tried yet."""
    told = state.notices["told"]
    last, many = next(reversed(told.values()), None), told.get(key_of(MANY, ""))
    return any(
        each is not None and each["failed"] and 0 <= now - to_micros(each["at"]) < wait
        for each, wait in ((last, REST), (many, RETRY))
    )


@contextlib.contextmanager
def announcing(loop: Loop) -> Iterator[None]:
    """Announce at the end of the block, also where it raises."""
    try:
        yield
    finally:
        announce(loop)


def announce(loop: Loop) -> None:
    """Tell what is due, outside any transaction. Raises nothing that a notice could cause.

    Without a command in the config in force, nothing is told. Who finds another announcing leaves it to that one, which
    looks again once it has let go.
    """
    ends = loop.clock.monotonic() + SECONDS
    with contextlib.suppress(LoopError, OSError):
        while _next(loop, ends) is not None:
            with kernel_lock(loop.home.state / "notify.lock") as got:
                if not got or (command := _command(loop)) is None:
                    return
                _tell(loop, command, ends)


def _next(loop: Loop, ends: float) -> Notice | None:
    """What is to be told now; None also once the look has taken its time, and the next one goes on."""
    if loop.clock.monotonic() >= ends:
        return None
    return next(iter(due(loop.journal.refresh(), loop.clock.now())), None)


def _tell(loop: Loop, command: list[str], ends: float) -> None:
    while (notice := _next(loop, ends)) is not None:
        result = execute(command, loop.home, loop.environ, notice.body)
        about: dict[str, Any] = {"kind": notice.kind, "subject": notice.subject, "about": notice.about}
        text = result.text.encode("utf-8", "replace").decode()[:TEXT_KEPT]
        with loop.journal.transaction() as entry:
            entry.append(NoticeSent(**about) if result.ok else NoticeFailed(**about, text=text), actor=ACTOR)


def execute(command: list[str], home: Home, environ: Mapping[str, str], body: dict[str, Any]) -> CommandResult:
    """Run the command beside the config with one object on its stdin, for at most SECONDS."""
    return run_bounded(
        command,
        cwd=home.config.parent,
        env=environ,
        timeout=SECONDS,
        limit_bytes=OUTPUT_LIMIT,
        stdin=json.dumps(body).encode() + b"\n",
    )


def _command(loop: Loop) -> list[str] | None:
    """The command of the config in force, which an invalid file leaves as it was."""
    newest = loop.journal.log.select(Filter(types=("loop.configured",)), limit=1, newest=True)
    private = json.loads(newest[0].private) if newest and newest[0].private else {}
    command = private.get("settings", {}).get("loop", {}).get("notify")
    return command if isinstance(command, list) else None


def _raised(state: State, now: int) -> Iterable[Raised]:
    """The facts not yet told that are still news, and what stands."""
    found: dict[str, Raised] = {}
    for key, raised in state.notices["raised"].items():
        told = state.notices["told"].get(key)
        lapse = LAPSE if told is None or not told["failed"] else LAPSE_FAILED
        if now - to_micros(raised["at"]) <= lapse and not is_over(state, raised, now):
            found[key] = raised
    for raised in standing(state, now):
        found.setdefault(key_of(raised["kind"], raised["subject"]), raised)
    return found.values()


def _is_due(state: State, raised: Raised, now: int) -> bool:
    told = state.notices["told"].get(key_of(raised["kind"], raised["subject"]))
    if told is None:
        return True
    if told["failed"]:
        return now - to_micros(told["at"]) >= RETRY
    return raised["position"] > told["position"] and now - to_micros(told["at"]) >= KINDS[raised["kind"]].quiet


def _notice(state: State, raised: Raised) -> Notice:
    kind = KINDS[raised["kind"]]
    about = {
        "kind": raised["kind"],
        "subject": raised["subject"],
        "text": kind.text(raised),
        "command": kind.command,
        "at": raised["at"],
        "position": raised["position"],
        "times": raised["times"],
    }
    return Notice(raised["kind"], raised["subject"], raised["position"], {"schema": SCHEMA, **about, **_where(state)})


def _together(state: State, rest: list[Raised]) -> Notice:
    """One notice for all that the hour has no room for."""
    last = max(raised["position"] for raised in rest)
    about = {
        "kind": MANY,
        "subject": None,
        "text": f"{len(rest)} more, and no further notice for a while: " + "; ".join(
            f"{raised['kind']} {raised['subject']}" for raised in rest[:8]
        ),
        "command": "loop status",
        "at": rest[-1]["at"],
        "position": last,
        "times": sum(raised["times"] for raised in rest),
        "suppressed": len(rest),
    }
    return Notice(MANY, None, last, {"schema": SCHEMA, **about, **_where(state)})


def _where(state: State) -> dict[str, Any]:
    return {"store": state.control["store"]}
