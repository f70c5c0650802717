"""`decide(view) -> Decision`: gives the free slots to categories, and every candidate and idle slot its reason.

Pure: no clock, file, database, environment or randomness; what it may know is the view. It considers the candidates of
the pass in the policy's order, tests each against GATES on the state *after* the grants before it, and chooses the
first ones that pass. VERDICTS is a closed, ordered list: the first gate that fails is the verdict, the others follow in
`also`.

DECIDER numbers the rules: bump it by hand with any change after which a recorded view could be decided otherwise; a
golden test compares.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loop.fair import closed, opened
from loop.policies import POLICIES, intent, most_owed
from loop.shares import UNIT, Starts, counted
from projections.view import Backend, Budget, Category, Due, Entry, View, time_text

DECIDER = 4

VERDICTS = (
    "unknown_category",
    "not_allowed",
    "not_ranked",
    "frozen",
    "draining",
    "paused",
    "lock_held",
    "task_taken",
    "not_alone",
    "cooling_down",
    "respawn_spent",
    "no_work",
    "gate_error",
    "over_allocated",
    "budget_spent",
    "no_backend",
    "host_busy",
    "rate_limited",
    "no_slot",
)

OBSTACLES = ("no_command", "paused", "limited", "unknown", "breaker", "probing", "full", "pool_full", "budget")
PICKED = ("probe", "asked_for", "first_named", "next_named", "only_one", "unused_longest")
BACKENDS = (*OBSTACLES, *PICKED, "later")
"""What a decision says of a backend that it considered: why it could not take the session, why it got it, or that it
could have taken it, too."""

Detail = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choice:
    """A grant: `keys` are sorted, `chain` counts the respawns before it, `parent` is the session it follows."""

    category: str
    task: str
    rule: str
    backend: str
    keys: tuple[str, ...]
    chain: int
    parent: str | None


@dataclass(frozen=True, slots=True)
class Candidate:
    category: str
    rank: int | None
    rule: str | None
    score: int | None
    verdict: str
    also: tuple[str, ...]
    detail: Detail
    backends: dict[str, str] | None = None
    """Of one that was chosen, or that no backend could take: each backend considered, with a word of BACKENDS."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One pass's verdicts; `as_dict` is the shape of `fanout.decided` and of CONTRACT's decision."""

    decider: int
    basis: int
    now: int
    policy: str
    capacity: int
    live: int
    chosen: tuple[Choice, ...]
    candidates: tuple[Candidate, ...]
    idle: tuple[tuple[int, str], ...]
    ledger: Detail | None = None

    @property
    def free(self) -> int:
        """Slots that were free before this decision."""
        return max(0, self.capacity - self.live)

    def as_dict(self) -> Detail:
        """JSON-ready, with times as the log writes them."""
        return {
            "decider": self.decider,
            "basis": self.basis,
            "now": time_text(self.now),
            "policy": self.policy,
            "slots": {"capacity": self.capacity, "live": self.live, "free": self.free},
            "chosen": [
                {
                    "category": choice.category,
                    "task": choice.task,
                    "rule": choice.rule,
                    "backend": choice.backend,
                    "keys": list(choice.keys),
                    "chain": choice.chain,
                    "parent": choice.parent,
                }
                for choice in self.chosen
            ],
            "candidates": [
                {
                    "category": candidate.category,
                    "rank": candidate.rank,
                    "rule": candidate.rule,
                    "score": candidate.score,
                    "verdict": candidate.verdict,
                    "also": list(candidate.also),
                    "detail": candidate.detail,
                    "backends": candidate.backends,
                }
                for candidate in self.candidates
            ],
            "idle": [{"slots": slots, "reason": reason} for slots, reason in self.idle],
            "ledger": self.ledger,
        }


@dataclass(slots=True)
class _Considered:
    """A candidate before its verdict; `claim` and `last_started` are what policy `fair` goes by."""

    name: str
    rank: int | None
    rule: str | None
    score: int | None = None
    task: str = ""
    due: Due | None = None
    backend: str | None = None  # asked for by hand
    claim: int = 0
    last_started: int | None = None


class _Board:
    """The view plus what this decision has granted so far, indexed so that no gate looks at everything again."""

    def __init__(self, view: View, chosen: Iterable[Choice] = ()) -> None:
        self.view = view
        self.chosen: list[Choice] = []
        self.taken: set[str] = set()  # keys
        self.present = Counter(session["category"] for session in view.live.values())
        self.alone = next((name for name in self.present if self.is_alone(name)), None)
        self.netted = sum(session["rule"] == "allowlist" for session in view.live.values())
        self.tasks: dict[str, str] = {}
        for id, session in view.live.items():
            self.tasks.setdefault(session["task"], id)
        self.granted: Counter[str] = Counter()  # by category
        self.starts = Starts.of(view)
        self.used: Counter[str] = Counter()  # grants by backend
        self.pooled: Counter[str] = Counter()  # and by pool
        self.tried: set[str] = set()  # scopes that a grant is the probe of
        self.until = _earliest(view.backends.values())
        self.obstacles = {name: self.obstacle(each) for name, each in view.backends.items()}
        self.open = {name: each for name, each in view.backends.items() if self.obstacles[name] is None}
        self.gates = _gates(view)
        for choice in chosen:
            self.grant(choice)

    def grant(self, choice: Choice) -> None:
        """Enter a grant: what is judged after it is judged on the state that it leaves."""
        self.chosen.append(choice)
        self.taken.update(choice.keys)
        self.present[choice.category] += 1
        if self.alone is None and self.is_alone(choice.category):
            self.alone = choice.category
        self.netted += choice.rule == "allowlist"
        self.tasks.setdefault(choice.task, "this pass")
        self.granted[choice.category] += 1
        self.used[choice.backend] += 1
        backend = self.view.backends.get(choice.backend)
        if backend is not None:
            self.pooled[backend.pool] += 1
            self.tried.update(backend.trial)
            for name, each in self.view.backends.items():
                if each.pool == backend.pool and (obstacle := self.obstacle(each)) is not None:
                    self.obstacles[name] = obstacle
                    self.open.pop(name, None)

    def free(self) -> int:
        return max(0, self.view.slots - len(self.view.live)) - len(self.chosen)

    def holder(self, key: str) -> str | None:
        """Who holds a key: a session's id, or `this pass`."""
        return "this pass" if key in self.taken else self.view.held.get(key)

    def lane(self, category: Category) -> str | None:
        """The first free lane key."""
        if category.lanes == 1:  # nearly all, and asked about each of them
            return category.name if self.holder(category.name) is None else None
        return next((key for key in category.lane_keys() if self.holder(key) is None), None)

    def is_alone(self, name: str) -> bool:
        category = self.view.categories.get(name)
        return category is not None and category.parallel == "alone"

    def obstacle(self, backend: Backend) -> str | None:
        """The first of OBSTACLES that keeps a backend from one session more, whosever; None: it would take it."""
        if backend.paused:
            return "paused"
        if backend.state != "available":
            return backend.because if backend.because in ("breaker", "probing") else backend.state
        if not self.tried.isdisjoint(backend.trial):
            return "probing"
        if backend.concurrency is not None and backend.live + self.used[backend.name] >= backend.concurrency:
            return "full"
        pool = self.view.pools.get(backend.pool)
        if pool is not None and pool.concurrency is not None and pool.live + self.pooled[pool.name] >= pool.concurrency:
            return "pool_full"
        return None if self.backend_budget(backend) is None else "budget"

    def budget(self, scope: str, granted: int) -> tuple[str, Budget] | None:
        """The first budget of a scope that has no room for one session after those granted in this pass."""
        found = (each for each in self.view.budgets.get(scope, ()) if each.room <= granted)
        first = next(found, None)
        return None if first is None else (scope, first)

    def backend_budget(self, backend: Backend) -> tuple[str, Budget] | None:
        """The first budget of a backend, or of its pool, that is spent."""
        if not self.view.budgets:
            return None
        own = self.budget(f"backend:{backend.name}", self.used[backend.name])
        return own or self.budget(f"pool:{backend.pool}", self.pooled[backend.pool])

    def backend(self, category: Category, wanted: str | None) -> str | None:
        """The backend a session of the category would get: the first named that can take one, else of all that can
        the one unused for longest."""
        able = self.able(category, wanted)
        if wanted is not None or category.backends is not None:
            first = next(able, None)
        else:
            first = min(able, key=lambda backend: (self.used[backend.name], backend.last_used), default=None)
        return None if first is None else first.name

    def able(self, category: Category, wanted: str | None) -> Iterator[Backend]:
        """The backends that could take a session of the category now, in the order in which they are named."""
        named = (wanted,) if wanted is not None else category.backends
        if named is None:
            found: Iterable[Backend] = self.open.values()
        else:
            found = [self.open[name] for name in named if name in self.open]
        if category.own_command:
            return iter(found)
        return (backend for backend in found if backend.command)

    def named(self, category: Category, wanted: str | None) -> list[Backend]:
        """The backends that come into question for a category, able or not."""
        names = (wanted,) if wanted is not None else category.backends
        known = self.view.backends
        return [known[name] for name in (known if names is None else names) if name in known]

    def short(self, category: Category, wanted: str | None) -> tuple[str, Budget] | None:
        """The first budget that alone keeps a backend from taking a session of the category."""
        found = (
            self.backend_budget(backend)
            for backend in self.named(category, wanted)
            if (category.own_command or backend.command) and self.obstacles[backend.name] == "budget"
        )
        return next(found, None)

    def weighed(self, category: Category, wanted: str | None, picked: str | None) -> dict[str, str]:
        """A word of BACKENDS on each backend that comes into question."""
        obstacles, own = self.obstacles, category.own_command
        words = {
            backend.name: (obstacles[backend.name] if own or backend.command else "no_command") or "later"
            for backend in self.named(category, wanted)
        }
        if picked is not None:
            words[picked] = self._why(category, wanted, picked, sum(word == "later" for word in words.values()))
        return words

    def _why(self, category: Category, wanted: str | None, picked: str, able: int) -> str:
        if self.view.backends[picked].trial:
            return "probe"
        if wanted is not None:
            return "asked_for"
        if category.backends is not None:
            return "first_named" if category.backends[0] == picked else "next_named"
        return "only_one" if able == 1 else "unused_longest"


# ── gates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
# Each answers None where the candidate may pass, else the facts that stop it. `unknown_category` is tested before.



def _text(time: int | None) -> str | None:
    return None if time is None else time_text(time)


def _earliest(backends: Iterable[Backend]) -> int | None:
    """When the first of the backends is expected back."""
    return min((backend.until for backend in backends if backend.until), default=None)


def _seconds(time: int | None) -> int | None:
    return None if time is None else time // 1_000_000


Gate = Callable[[_Board, _Considered, Category], Detail | None]


def _not_allowed(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    return {} if category.parallel is False and candidate.rule != "manual" else None


def _not_ranked(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    return {} if candidate.rule is None else None


def _restrained(mode: str) -> Gate:
    def gate(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
        for scope in ("all", f"category:{category.name}"):
            restraint = board.view.restraints.get(scope)
            if restraint is not None and restraint.mode == mode:
                return {"scope": scope, "until": _text(restraint.until)}
        return None

    return gate


def _lock_held(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if board.lane(category) is None:
        key = category.lane_keys()[0]
        return {"key": key, "session": board.holder(key)}
    for key in category.locks:
        holder = board.holder(key)
        if holder is not None:
            return {"key": key, "session": holder}
    return None


def _task_taken(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if not candidate.task:
        return None
    if (holder := board.tasks.get(candidate.task)) is not None:
        return {"task": candidate.task, "session": holder}
    answer = board.view.answer
    if answer is None or answer.asked_now or candidate.rule == "manual":
        return None
    had = answer.taken.get(candidate.task)  # it may be done by now, which an answer from before cannot know
    if had is None or (candidate.due is not None and candidate.due.session == had):
        return None
    return {"task": candidate.task, "session": had, "over": True}


def _not_alone(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    present = len(board.view.live) + len(board.chosen)
    if category.parallel == "alone" and present:
        return {"live": present}
    return None if board.alone is None else {"alone": board.alone}


def _cooling_down(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if candidate.rule == "manual":
        return None
    until = None if candidate.rule == "respawn" else category.cooldown_until
    back = category.backoff
    if back is not None and (until is None or back.until >= until):
        return {"until": _text(back.until), "noops": back.noops, "of": back.of}
    return None if until is None else {"until": _text(until)}


def _respawn_spent(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if candidate.due is None or candidate.due.chain < board.view.respawn_limit:
        return None
    return {"chain": candidate.due.chain, "limit": board.view.respawn_limit}


def _no_work(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if candidate.rule == "manual":
        return None
    gate, wait = category.gate, category.wait
    if gate is not None and gate.answer == "no_work":
        return {"because": "gate", "age": _seconds(gate.age), "exit_code": gate.exit_code}
    if wait is None or (candidate.task and candidate.task != wait.task):
        return None
    return {"because": "blocked", "session": wait.session, "task": wait.task, "until": _text(wait.until)}


def _gate_error(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    gate = category.gate
    if gate is None or gate.answer in ("work", "no_work") or candidate.rule == "manual":
        return None
    if gate.age is None:
        return {"because": "not_asked"}
    because = "error" if gate.answer == "error" else "too_old"
    return {"because": because, "age": _seconds(gate.age), "exit_code": gate.exit_code}


def _over_allocated(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    """The cap, on the state after the start. A start by hand is the way around it."""
    most = board.starts.most(board.view, category, len(board.chosen))
    started = counted(category) + board.granted[category.name]
    if most is None or started + 1 <= most or candidate.rule == "manual":
        return None
    assert category.target is not None
    return {
        "started": started,
        "total": board.starts.total + len(board.chosen),
        "most": most,
        "target": category.target * UNIT // board.starts.whole,
        "max_ratio": board.view.max_ratio,
    }


def _budget_spent(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    """The category's own budget, or those of every backend that could otherwise take it; by hand, too."""
    found = board.budget(f"category:{category.name}", board.granted[category.name])
    if found is None and next(board.able(category, candidate.backend), None) is None:
        found = board.short(category, candidate.backend)
    if found is None:
        return None
    scope, budget = found
    return {
        "scope": scope,
        "kind": budget.kind,
        "limit": budget.limit,
        "spent": budget.spent,
        "reserved": budget.reserved,
        "unknown": budget.unknown,
        "until": _text(budget.until),
    }


def _no_backend(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if next(board.able(category, candidate.backend), None) is not None:
        return None
    if board.view.budgets and board.short(category, candidate.backend) is not None:
        return None  # that is `budget_spent`
    if category.backends is None:
        return {"backends": len(board.view.backends), "until": _text(board.until)}
    named = (board.view.backends.get(name) for name in category.backends)
    return {"backends": len(category.backends), "until": _text(_earliest(each for each in named if each is not None))}


def _host_busy(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    found: Detail = {}
    for measure in board.view.host:
        if not measure.ok:
            found |= {measure.name: measure.value, measure.bound_name: measure.bound}
    return found or None


def _rate_limited(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    rates, more = board.view.rates, len(board.chosen)
    if rates.hour + more >= rates.hour_limit:
        return {"window": "hour", "starts": rates.hour + more, "limit": rates.hour_limit}
    if rates.day_limit is not None and rates.day + more >= rates.day_limit:
        return {"window": "day", "starts": rates.day + more, "limit": rates.day_limit}
    return None


def _no_slot(board: _Board, candidate: _Considered, category: Category) -> Detail | None:
    if board.free() <= 0:
        return {"capacity": board.view.slots, "live": len(board.view.live), "granted": len(board.chosen)}
    if candidate.rule == "allowlist" and board.netted >= board.view.fallback_slots:
        return {"fallback_slots": board.view.fallback_slots, "live": board.netted}
    return None


GATES: dict[str, Gate] = {
    "not_allowed": _not_allowed,
    "not_ranked": _not_ranked,
    "frozen": _restrained("frozen"),
    "draining": _restrained("draining"),
    "paused": _restrained("paused"),
    "lock_held": _lock_held,
    "task_taken": _task_taken,
    "not_alone": _not_alone,
    "cooling_down": _cooling_down,
    "respawn_spent": _respawn_spent,
    "no_work": _no_work,
    "gate_error": _gate_error,
    "over_allocated": _over_allocated,
    "budget_spent": _budget_spent,
    "no_backend": _no_backend,
    "host_busy": _host_busy,
    "rate_limited": _rate_limited,
    "no_slot": _no_slot,
}
"""In the order of VERDICTS; a test compares."""


def _gates(view: View) -> list[tuple[str, Gate]]:
    """Those that can stop anybody under this view; as a rule there is no restraint and no budget."""
    idle: set[str] = set()
    if not view.restraints:
        idle |= {"frozen", "draining", "paused"}
    if not view.budgets:
        idle.add("budget_spent")
    if all(measure.ok for measure in view.host):
        idle.add("host_busy")
    return [(code, gate) for code, gate in GATES.items() if code not in idle]


# ── candidates ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _considered(view: View) -> list[_Considered]:
    """The candidates of this pass, those asked for first; the policy says in which order they are served."""
    if view.manual is not None:
        manual = view.manual
        return [_Considered(manual.category, 1, "manual", task=manual.task, backend=manual.backend)]
    if view.trigger == "session_end":
        return _at_session_end(view)
    return _at_fire(view)


def _at_fire(view: View) -> list[_Considered]:
    """All ranked names, then due respawns that the ranking does not name, then every configured category left."""
    answer = view.answer
    ranked: list[Entry] = []
    if answer is not None and answer.asked_now:
        ranked = list(answer.ranking)
        if answer.rejected and view.on_reject == "fallback":
            ranked = [Entry(name, "allowlist", "", None) for name in most_owed(view)]
    found = [
        _Considered(entry.category, rank, entry.rule, entry.score, entry.task)
        for rank, entry in enumerate(ranked, start=1)
    ]
    seen = {candidate.name for candidate in found}
    for due in view.due:
        if due.category not in seen and due.chain < view.respawn_limit:
            seen.add(due.category)
            found.append(_respawn(view, due))
    found += [_Considered(name, None, None) for name in view.categories if name not in seen]
    return found


def _at_session_end(view: View) -> list[_Considered]:
    """Due respawns, what the last answer named and was not given yet, and the respawn just spent."""
    found: dict[str, _Considered] = {}
    for due in view.due:
        if due.chain < view.respawn_limit:
            found.setdefault(due.category, _respawn(view, due))
    answer = view.answer
    if answer is not None and answer.fresh and not answer.rejected:
        for rank, entry in enumerate(answer.ranking, start=1):
            if entry.category not in answer.used:
                considered = _Considered(entry.category, rank, entry.rule, entry.score, entry.task)
                found.setdefault(entry.category, considered)
    for due in view.due:
        if due.session == view.ended:
            found.setdefault(due.category, _respawn(view, due))
    return list(found.values())


def _respawn(view: View, due: Due) -> _Considered:
    """A respawn carries a task only while the last answer still names one for its category."""
    task = ""
    if view.answer is not None and view.answer.fresh:
        task = next((entry.task for entry in view.answer.ranking if entry.category == due.category), "")
    return _Considered(due.category, None, "respawn", task=task, due=due)


# ── the decision ──────────────────────────────────────────────────────────────────────────────────────────────────────


def decide(view: View) -> Decision:
    """The verdicts for every candidate of the pass that `view` describes. Pure and total."""
    board = _Board(view)
    considered = _considered(view)
    ledger = opened(view) if view.policy == "fair" and any(each.rule for each in considered) else None
    if ledger is not None:
        for each in considered:
            category = view.categories.get(each.name)
            each.claim = ledger.claim(each.name)
            each.last_started = None if category is None else category.last_started
    serve = POLICIES.get(view.policy, intent)
    candidates = [_judge(board, candidate) for candidate in serve(view, considered)]
    verdicts = {candidate.category: candidate.verdict for candidate in candidates}
    return Decision(
        decider=DECIDER,
        basis=view.position,
        now=view.now,
        policy=view.policy,
        capacity=view.slots,
        live=len(view.live),
        chosen=tuple(board.chosen),
        candidates=tuple(candidates),
        idle=_idle(board, candidates),
        ledger=None if ledger is None else closed(ledger, [choice.category for choice in board.chosen], verdicts),
    )


def able_backends(view: View, before: Sequence[Choice], category: Category, wanted: str | None = None) -> list[str]:
    """The backends that could take a session of the category once `before` was granted, in the order of choice among
    those named; for explanations."""
    return [backend.name for backend in _Board(view, before).able(category, wanted)]


def _judge(board: _Board, candidate: _Considered) -> Candidate:
    """The verdict for one candidate; a chosen one is entered on the board."""
    category = board.view.categories.get(candidate.name)
    if category is None:
        return _verdict(candidate, "unknown_category", (), {})
    failed = {code: detail for code, gate in board.gates if (detail := gate(board, candidate, category)) is not None}
    if failed:
        first, *others = failed
        weighed = None if failed.keys().isdisjoint(("no_backend", "budget_spent")) else (
            board.weighed(category, candidate.backend, None)
        )
        return _verdict(candidate, first, tuple(others), failed[first], weighed)
    lane, backend = board.lane(category), board.backend(category, candidate.backend)
    assert lane is not None
    assert backend is not None
    assert candidate.rule is not None
    weighed = board.weighed(category, candidate.backend, backend)
    board.grant(
        Choice(
            category=category.name,
            task=candidate.task,
            rule=candidate.rule,
            backend=backend,
            keys=tuple(sorted({lane, *category.locks})),
            chain=0 if candidate.due is None else candidate.due.chain + 1,
            parent=None if candidate.due is None else candidate.due.session,
        )
    )
    return _verdict(candidate, "chosen", (), {}, weighed)


def _verdict(
    candidate: _Considered,
    verdict: str,
    also: tuple[str, ...],
    detail: Detail,
    backends: dict[str, str] | None = None,
) -> Candidate:
    return Candidate(candidate.name, candidate.rank, candidate.rule, candidate.score, verdict, also, detail, backends)


def _idle(board: _Board, candidates: list[Candidate]) -> tuple[tuple[int, str], ...]:
    """A reason for each slot left free: first a restraint on the whole loop, then the verdict of each candidate that
    was asked for and not chosen, in order; what is left had nobody to ask for it."""
    left = board.free()
    if left <= 0:
        return ()
    reasons: list[str] = []
    restraint = board.view.restraints.get("all")
    answer = board.view.answer
    if restraint is not None:
        reasons = [restraint.mode] * left
    elif answer is not None and answer.rejected and board.view.manual is None:
        reasons = ["rejected"] * left
    else:
        reasons = [candidate.verdict for candidate in candidates if candidate.rule and candidate.verdict != "chosen"]
    reasons = reasons[:left] + ["nothing_ranked"] * (left - len(reasons))
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return tuple((slots, reason) for reason, slots in counts.items())

