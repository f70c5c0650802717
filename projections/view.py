"""`view(State, now)`: everything that a decision may know, with all that depends on time settled at `now`.

Pauses until T, cool-downs, limits, windows and lapses are evaluated here and nowhere else; State itself never changes
by time alone. All times are microseconds since the epoch, targets and scores integers, so that the decider does no
float arithmetic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from events.envelope import to_micros, to_text
from projections import feedback, pools, schedule, window
from projections.backends import is_backends_failure
from projections.budgets import Budget as Budget
from projections.budgets import budgets
from projections.derived import of_config
from projections.feedback import Backoff as Backoff
from projections.feedback import Gate as Gate
from projections.feedback import Measure as Measure
from projections.feedback import Supply as Supply
from projections.feedback import Wait as Wait
from projections.fold import EXACT, HOUR, hours_touched
from projections.pools import Availability
from projections.sessions import Live
from projections.state import State

PPM = 1_000_000  # targets and scores are kept in millionths

Parallel = bool | Literal["alone"]


class Restraint(NamedTuple):
    """A pause, drain or freeze in force."""

    mode: str
    until: int | None


class Category(NamedTuple):
    name: str
    target: int | None
    """Share of the started sessions in millionths, not yet normalised."""
    parallel: Parallel
    lanes: int
    locks: tuple[str, ...]
    backends: tuple[str, ...] | None
    own_command: bool
    timeout: int
    cooldown_until: int | None
    backoff: Backoff | None
    wait: Wait | None
    gate: Gate | None
    """None where it has none."""
    supply: Supply
    started: int
    """Sessions started in the allocation window."""
    last_started: int | None
    requested: int = 0
    """Sessions granted and not yet started."""
    mean_seconds: int | None = None
    """What its sessions of the window ran on average; None before one has ended."""

    def lane_keys(self) -> tuple[str, ...]:
        """The keys of its lanes: the name itself, or `name#1`, `name#2`, …"""
        if self.lanes == 1:
            return (self.name,)
        return tuple(f"{self.name}#{lane}" for lane in range(1, self.lanes + 1))


class Backend(NamedTuple):
    name: str
    pool: str
    command: bool
    concurrency: int | None
    live: int
    state: Availability
    until: int | None
    paused: bool
    last_used: int
    because: str | None = None
    """Why it is closed: `limited`, `breaker`, `probing`."""
    trial: tuple[str, ...] = ()
    """The scopes that are half-open: each takes one session more, the probe."""


class Pool(NamedTuple):
    """What its backends share beside their limits: how many of their sessions may live at once, and how many do."""

    name: str
    concurrency: int | None
    live: int


class Entry(NamedTuple):
    """One line of the ranking."""

    category: str
    rule: str
    task: str
    score: int | None


class Answer(NamedTuple):
    """The selector's last answer. `asked_now`: it is of the pass under way; `used`: categories already served by it."""

    tier: int | None
    rejected: bool
    reason: str | None
    ranking: tuple[Entry, ...]
    used: frozenset[str]
    taken: dict[str, str]
    """Task -> the session that had it when the answer came, or was given it since."""
    age: int
    fresh: bool
    asked_now: bool


class Due(NamedTuple):
    """A session that earned a respawn: productive, proved, graded well enough, not followed, not lapsed.

    One that a grader is at has not earned it yet.
    """

    session: str
    category: str
    chain: int


class ManualStart(NamedTuple):
    category: str
    task: str
    backend: str | None


class Rates(NamedTuple):
    """Starts of all triggers in the last hour and day, and their ceilings."""

    hour: int
    hour_limit: int
    day: int
    day_limit: int | None


class Past(NamedTuple):
    """What only the built-in selector reads: see `projections.lessons`."""

    starts: tuple[str, ...]
    """The categories of the last starts, newest last."""
    gaps: dict[str, int]
    """Category -> sessions started since its last one; one that never started has all of them."""
    grades: dict[str, tuple[float, float]]
    """Category -> discounted mean grade, and how many grades that is worth."""
    windows: tuple[bool, ...]
    """Of its last answers, oldest first: whether it saw a plateau."""
    tilt: dict[str, float]
    """Category -> what outcomes make of its weight, 0.5..1.5; one that is missing is 1."""
    blocked: frozenset[str]
    """The tasks that a session found blocked, for as long as a category waits after that."""


class View(NamedTuple):
    position: int
    now: int
    trigger: str
    ended: str | None
    """The session whose end brought this pass, in a session-end pass."""
    policy: str
    slots: int
    on_reject: str
    fallback_slots: int
    respawn_limit: int
    restraints: dict[str, Restraint]
    live: dict[str, Live]
    held: dict[str, str]
    """Key -> the session that holds it, or that a live session was granted."""
    categories: dict[str, Category]
    backends: dict[str, Backend]
    answer: Answer | None
    due: tuple[Due, ...]
    manual: ManualStart | None
    rates: Rates
    max_ratio: int | None
    """The cap on over-allocation in millionths; None: there is none."""
    ledger: dict[str, int]
    """Category -> its credit under policy `fair`, in millionths of a slot; zero where it is missing."""
    host: tuple[Measure, ...]
    """The bounds of `[host]` that are set."""
    past: Past
    """What the built-in selector looks back on."""
    pools: dict[str, Pool]
    budgets: dict[str, tuple[Budget, ...]]
    """Scope -> its budgets; only those that have any."""


time_text = to_text  # the log's text of a time, for those who may import only views


def view(state: State, now: int) -> View:
    """What is known at `now` (microseconds). Raises ValueError before the first `loop.configured`."""
    config = state.control["config"]
    if config is None:
        raise ValueError("no config is in force yet")
    current = state.control["current"]
    return View(
        position=state.position,
        now=now,
        trigger=current["trigger"] if current else "manual",
        ended=current["ended"] if current else None,
        policy=config["policy"],
        slots=config["slots"],
        on_reject=config["selector"]["on_reject"],
        fallback_slots=config["selector"]["fallback_slots"],
        respawn_limit=config["respawn"]["limit"],
        restraints=restraints(state, now),
        live={id: session.copy() for id, session in state.sessions["live"].items()},
        held=_held(state),
        categories=_categories(state, config, now),
        backends=backends(state, now),
        answer=_answer(state, config, now),
        due=_due(state, config, now),
        manual=_manual(state),
        rates=_rates(state, config, now),
        max_ratio=None if config["max_ratio"] is None else round(config["max_ratio"] * PPM),
        ledger=dict(state.ledger["credits"]),
        host=feedback.host(state, config, now),
        past=_past(state, config, now),
        pools=_pools(state, config),
        budgets=budgets(state, config, now),
    )


def _past(state: State, config: dict[str, Any], now: int) -> Past:
    total, last, told = state.allocation["total"], state.allocation["last_started"], state.lessons
    return Past(
        starts=tuple(told["starts"]),
        gaps={name: total - (last[name][1] if name in last else 0) for name in config["categories"]},
        grades={name: (value, weight) for name, (value, weight) in told["means"].items()},
        windows=tuple(told["windows"]),
        tilt=dict(told["tilt"]),
        blocked=frozenset(feedback.waiting(told["blocked"], config, now)),
    )


def restraints(state: State, now: int) -> dict[str, Restraint]:
    """Scope (`all`, `category:NAME`, `backend:NAME`) -> the restraint still in force."""
    found: dict[str, Restraint] = {}
    for scope, mode in state.control["modes"].items():
        until = None if mode["until"] is None else to_micros(mode["until"])
        if until is None or until > now:
            found[scope] = Restraint(mode["mode"], until)
    return found


def backends(state: State, now: int) -> dict[str, Backend]:
    """Every configured backend with its availability: its pool's, and its own breaker's."""
    config = state.control["config"]
    if config is None:
        return {}
    stopped = restraints(state, now)
    live = dict(Counter(session["backend"] for session in state.sessions["live"].values()))
    access = pools.access(state, config, now)
    found: dict[str, Backend] = {}
    for name, settings in config["backends"].items():
        open = access[name]
        found[name] = Backend(
            name=name,
            pool=settings["pool"],
            command=settings["command"],
            concurrency=settings["concurrency"],
            live=live.get(name, 0),
            state=open.state,
            until=open.until,
            paused=f"backend:{name}" in stopped,
            last_used=state.backends["last_used"].get(name, 0),
            because=open.because,
            trial=open.trial,
        )
    return found


def cooldown_until(state: State, category: str, now: int) -> int | None:
    """Until when a category cools down after its last chain; None where it does not.

    Configured, it follows every chain. By default it is one period, except after a productive end, a limit, or a
    failure of the backend's own command, none of which says that the category's work should wait.
    """
    config = state.control["config"]
    last = state.outcomes["last"].get(category)
    if config is None or last is None or category not in config["categories"]:
        return None
    settings = config["categories"][category]
    ended = to_micros(last["at"])
    if settings["cooldown"] is not None:
        length = round(settings["cooldown"] * 1_000_000)
    elif last["outcome"] in ("productive", "limited") or (
        is_backends_failure(last["code"]) and not settings["own_command"]
    ):
        return None
    else:
        length = schedule.period(config, ended)
    return ended + length if ended <= now < ended + length else None


def counted(state: State, now: int, length: int) -> dict[str, tuple[int, float]]:
    """Category -> (sessions started, seconds they ran) in a window of `length` microseconds before `now`.

    Windows up to two hours are exact; longer ones count every UTC hour that they touch.
    """
    allocated = state.allocation
    if length > EXACT:
        cells = window.over(allocated["hours"], allocated["sum"], now, length)
    else:
        recent = (item for item in allocated["exact"] if now - length < to_micros(item[0]) <= now)
        cells = window.plain({category: [1, micros]} for _, category, _, micros in recent)
    return {category: (started, micros / 1e6) for category, (started, micros) in cells.items()}


def _pools(state: State, config: dict[str, Any]) -> dict[str, Pool]:
    live = Counter(session["pool"] for session in state.sessions["live"].values())
    return {name: Pool(name, concurrency, live[name]) for name, concurrency in _concurrency(config).items()}


@of_config
def _concurrency(config: Mapping[str, Any]) -> dict[str, int | None]:
    """Pool -> how many of its sessions may live at once."""
    names = dict.fromkeys(each["pool"] for each in config["backends"].values())
    return {name: config["pools"].get(name, {}).get("concurrency") for name in names}


def _held(state: State) -> dict[str, str]:
    held = {key: lock["session"] for key, lock in state.locks["held"].items()}
    for key, claims in state.locks["claims"].items():
        held.setdefault(key, next(iter(claims)))
    return held


def _categories(state: State, config: dict[str, Any], now: int) -> dict[str, Category]:
    counts = counted(state, now, round(config["window"] * 1_000_000))
    live = dict(Counter((session["category"], session["status"]) for session in state.sessions["live"].values()))
    lacking = feedback.lacking(state, config, now)
    found: dict[str, Category] = {}
    for name, settled in _settled(config).items():
        last = state.allocation["last_started"].get(name)
        started, seconds = counts.get(name, (0, 0.0))
        ended = started - live.get((name, "started"), 0)
        wait, gate = feedback.wait(state, config, name, now), feedback.gate(state, config, name, now)
        found[name] = Category(
            *settled,
            cooldown_until=cooldown_until(state, name, now),
            backoff=feedback.backoff(state, config, name, now),
            wait=wait,
            gate=gate,
            started=started,
            last_started=None if last is None else to_micros(last[0]),
            requested=live.get((name, "requested"), 0),
            mean_seconds=round(seconds / ended) if ended > 0 and seconds else None,
            supply=feedback.told(wait, gate, name in lacking),
        )
    return found


Settled = tuple[str, int | None, Parallel, int, tuple[str, ...], tuple[str, ...] | None, bool, int]


@of_config
def _settled(config: Mapping[str, Any]) -> dict[str, Settled]:
    """What the config alone says of each category: the first fields of `Category`, in their order."""
    return {
        name: (
            name,
            None if settings["target"] is None else round(settings["target"] * PPM),
            settings["parallel"],
            settings["lanes"],
            tuple(settings["locks"]),
            None if settings["backends"] is None else tuple(settings["backends"]),
            settings["own_command"],
            round(settings["timeout"] * 1_000_000),
        )
        for name, settings in config["categories"].items()
    }


def _answer(state: State, config: dict[str, Any], now: int) -> Answer | None:
    last = state.selection["last"]
    if last is None:
        return None
    current = state.control["current"]
    age = now - to_micros(last["at"])
    asked_now = current is not None and last["tick"] is not None and last["tick"] == current["id"]
    ranking = tuple(
        Entry(
            category=entry["category"],
            rule=entry["rule"],
            task=entry["task"] or "",
            score=None if entry["score"] is None else round(entry["score"] * PPM),
        )
        for entry in last["ranking"]
    )
    return Answer(
        tier=last["tier"],
        rejected=last["rejected"],
        reason=last["reason"],
        ranking=ranking,
        used=frozenset(last["used"]),
        taken=dict(last["taken"]),
        age=age,
        fresh=asked_now or 0 <= age <= round(config["selector"]["max_age"] * 1_000_000),
        asked_now=asked_now,
    )


def _due(state: State, config: dict[str, Any], now: int) -> tuple[Due, ...]:
    lowest = config["respawn"]["min_grade"]
    period = schedule.period(config, now) if config["cron"] is None else None  # of a cron line it varies
    found = []
    oldest = "" if period is None else to_text(max(0, now - period))
    for due in state.outcomes["due"]:
        if due["at"] <= oldest or due["to_grade"]:
            continue
        ended = to_micros(due["at"])
        well = due["grade"] is None or due["grade"] >= lowest
        if well and ended <= now < ended + (period or schedule.period(config, ended)):
            found.append(Due(session=due["session"], category=due["category"], chain=due["chain"]))
    return tuple(found)


def _manual(state: State) -> ManualStart | None:
    request, current = state.control["request"], state.control["current"]
    if request is None or current is None or request["tick"] != current["id"] or request["action"] != "start":
        return None
    return ManualStart(request["category"] or "", request["task"] or "", request["backend"])


def _rates(state: State, config: dict[str, Any], now: int) -> Rates:
    since, until = to_text(now - HOUR), to_text(now)  # stored times sort as time does
    # `exact` is in order of position: a clock stepped back leaves times after `now` between older ones, not counted.
    recent = len([at for (at,) in state.sessions["exact"] if since < at <= until])
    requests = state.sessions["requests"]
    day = sum(requests.get(hour, 0) for hour in hours_touched(now, 24 * HOUR))
    return Rates(recent, config["max_starts_per_hour"], day, config["max_starts_per_day"])
