"""What each verdict suggests: the changes of fact that might have started a category.

They are only suggestions; `loop.audit.flips` keeps those after which the decider really chooses the category.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from loop.audit import alter
from loop.audit.changes import (
    RUNGS,
    Change,
    Ladder,
    competitors,
    more,
    parallel,
    ranks,
    respawn_limit,
    session_text,
    sessions_ended,
    stop_command,
)
from loop.decider import Decision
from loop.output import clean, local
from loop.shares import UNIT, Starts, counted
from loop.words import amount
from projections.budgets import LIMITS
from projections.view import Backend, Budget, Category, Gate, View, time_text

Remedy = Callable[[View, Decision, str], Iterator[Ladder]]


def suggested(view: View, decision: Decision, name: str) -> list[Ladder]:
    """Ladders for the category `name`, which `decision` on `view` did not choose; those for its verdict first."""
    candidate = next((each for each in decision.candidates if each.category == name), None)
    verdicts = ("unknown_category", "not_ranked") if candidate is None else (candidate.verdict, *candidate.also)
    found: dict[str, Ladder] = {}
    for verdict in verdicts:
        if verdict == "unknown_category" and name in view.categories:
            continue
        for ladder in REMEDIES[verdict](view, decision, name) if verdict in REMEDIES else ():
            if ladder:
                found.setdefault(ladder[0].fact, ladder)
    return list(found.values())


# ── what each verdict suggests ────────────────────────────────────────────────────────────────────────────────────────


def _unknown_category(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    shown = clean(name, 64)
    yield [
        Change(
            fact=f'category["{shown}"]',
            old=None,
            new="configured",
            text=f"{shown} had been a category of the config",
            apply=alter.new_category(name),
            setting=f"[categories.{shown}]",
        )
    ]


def _not_allowed(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    yield [parallel(view.categories[name], "it had been in the parallel allowlist", f"loop start {name}")]


def _not_ranked(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    answer = view.answer
    command = f"loop start {name}" if name in view.categories else None
    if answer is not None and answer.rejected:
        text = "the selector's answer had been readable and had named it"
        yield [Change("selection.rejected", True, False, text, alter.answered(name), command)]
        if view.on_reject != "fallback" and answer.asked_now:
            text, setting = "a rejected answer had been replaced by the allowlist", '[selector] on_reject = "fallback"'
            apply = alter.loop(on_reject="fallback")
            yield [Change("selector.on_reject", view.on_reject, "fallback", text, apply, None, setting)]
    elif answer is not None and view.manual is None:
        if not (answer.fresh or answer.asked_now):
            text = "the last answer had not been too old"
            setting = f"[selector] max_age = longer than {answer.age // 1_000_000}s"
            yield [Change("selection.fresh", False, True, text, alter.answer(fresh=True), command, setting)]
        if name in answer.used:
            text = "it had not had its session on this answer already"
            yield [Change(f'selection.used["{name}"]', True, False, text, alter.unused(name), command)]
        yield ranks(view, name, command)
    for due in view.due:
        if due.category == name and due.chain >= view.respawn_limit:
            yield [respawn_limit(view, due.chain + 1)]


def _restrained(mode: str) -> Remedy:
    def remedy(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
        for scope, command in (("all", "loop resume"), (f"category:{name}", f"loop resume --category {name}")):
            restraint = view.restraints.get(scope)
            command += ' --reason "…"' if mode == "frozen" else ""
            if restraint is not None and restraint.mode == mode:
                text = f"{'the loop' if scope == 'all' else 'it'} had not been {mode}"
                yield [Change(f'restraint["{scope}"].mode', mode, None, text, alter.unrestrained(scope), command)]

    return remedy


def _lock_held(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    category = view.categories[name]
    keys = (*category.lane_keys(), *category.locks)
    for key in keys:
        if (session := view.held.get(key)) is not None:
            text = f"{session_text(view, session)} had ended and freed {key}"
            fact = f'locks["{key}"].session'
            yield [Change(fact, session, None, text, alter.ended(session), stop_command(view, session))]
    yield from competitors(view, decision, keys=keys)
    if all(key in view.held for key in category.lane_keys()):
        count = category.lanes + 1
        yield [
            Change(
                fact=f'category["{name}"].lanes',
                old=category.lanes,
                new=count,
                text=f"{count} of its sessions might run at once",
                apply=alter.category(name, lanes=count),
                setting=f"[categories.{name}] lanes = {count}",
            )
        ]


def _task_taken(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    answer = view.answer
    entries = () if answer is None else answer.ranking
    task = next((entry.task for entry in entries if entry.category == name), "")
    if view.manual is not None:
        task = view.manual.task
    text = f"it had been asked for with another task than {clean(task, 40)}"
    yield [Change(f'ranking["{name}"].task', task, None, text, alter.without_task(name))]
    yield from sessions_ended(view, (id for id, live in view.live.items() if live["task"] == task))
    yield from competitors(view, decision)


def _not_alone(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    category = view.categories[name]
    if category.parallel == "alone":
        yield [parallel(category, "it might run beside others")]
        yield from sessions_ended(view, view.live)
    present = [live["category"] for live in view.live.values()] + [choice.category for choice in decision.chosen]
    for other in dict.fromkeys(present):
        if other != name and other in view.categories and view.categories[other].parallel == "alone":
            yield from sessions_ended(view, (id for id, live in view.live.items() if live["category"] == other))
            yield [parallel(view.categories[other], f"{other} might run beside others")]
    yield from competitors(view, decision)


def _cooling_down(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    until, back = view.categories[name].cooldown_until, view.categories[name].backoff
    if back is not None:
        when = time_text(back.until)
        yield [
            Change(
                fact=f'category["{name}"].backoff',
                old=when,
                new=None,
                text=f"it had not backed off, after {back.noops} NOOPs in {back.of}, until {local(when)}",
                apply=alter.category(name, backoff=None),
                command=f"loop start {name}",
            )
        ]
    if until is None:
        return
    when = time_text(until)
    yield [
        Change(
            fact=f'category["{name}"].cooldown_until',
            old=when,
            new=None,
            text=f"its cool-down had been over, as it is at {local(when)}",
            apply=alter.category(name, cooldown_until=None),
            command=f"loop start {name}",
            setting=f'[categories.{name}] cooldown = "0s"',
        )
    ]


def _respawn_spent(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    for due in view.due:
        if due.category == name and due.chain >= view.respawn_limit:
            yield [respawn_limit(view, due.chain + 1)]


def _no_work(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    category, command = view.categories[name], f"loop start {name}"
    if category.gate is not None and category.gate.answer == "no_work":
        yield [_gate_says_work(category, "its gate had said that there is work")]
    if category.wait is not None:
        wait = category.wait
        when = time_text(wait.until)
        text = f"session {wait.session} had not found it blocked, for which it waits until {local(when)}"
        apply = alter.category(name, wait=None)
        yield [Change(f'category["{name}"].wait', wait.session, None, text, apply, command)]


def _gate_error(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    yield [_gate_says_work(view.categories[name], "its gate had just said that there is work")]


def _gate_says_work(category: Category, text: str) -> Change:
    name, gate = category.name, category.gate
    old = None if gate is None else gate.answer
    apply = alter.category(name, gate=Gate("work", 0, 0))
    return Change(f'category["{name}"].gate', old, "work", text, apply, f"loop start {name}")


def _host_busy(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    for measure in view.host:
        if not measure.ok:
            most = "most" if measure.bound_name.startswith("max_") else "least"
            seen = "it was not measured" if measure.value is None else f"it was {measure.value}"
            text = f"the host's {measure.name} had been at {most} {measure.bound}; {seen}"
            fact, setting = f"host.{measure.name}", f"[host] without {measure.bound_name}"
            yield [Change(fact, measure.value, measure.bound, text, alter.measured(measure.name), None, setting)]


def _over_allocated(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    """A higher cap or target, or fewer starts in the window; what the cap sees depends on who was served before."""
    category, max_ratio = view.categories[name], view.max_ratio
    starts = Starts.of(view)
    whole = starts.whole
    if max_ratio is None or not category.target or not whole:
        return
    started, first = counted(category), starts.total + 1
    totals = range(first + len(decision.chosen), first - 1, -1)
    ratios = dict.fromkeys(_hundredths(started * UNIT * whole // (category.target * total) + 1) for total in totals)
    yield [
        Change(
            fact="allocation.max_ratio",
            old=max_ratio / UNIT,
            new=ratio / UNIT,
            text=f"the cap had been {ratio / UNIT:g} times the target",
            apply=alter.loop(max_ratio=ratio),
            command=f"loop start {name}",
            setting=f"[allocation] max_ratio = {ratio / UNIT:g}",
        )
        for ratio in ratios
        if ratio > max_ratio
    ]
    others = whole - category.target
    steps = [(max_ratio * total - started * UNIT, started * UNIT * others) for total in totals]
    targets = dict.fromkeys(_hundredths(more // per + 1) for per, more in steps if per > 0)
    yield [
        Change(
            fact=f'category["{name}"].target',
            old=category.target / UNIT,
            new=target / UNIT,
            text=f"its target had been {target / UNIT:g} instead of {category.target / UNIT:g}",
            apply=alter.category(name, target=target),
            setting=f"[categories.{name}] target = {target / UNIT:g}",
        )
        for target in targets
        if category.target < target <= UNIT
    ]
    yield [
        Change(
            fact=f'category["{name}"].spawned',
            old=category.started,
            new=count,
            text=f"it had {count} starts in the window, not {category.started}, as when older ones leave it",
            apply=alter.category(name, started=count),
        )
        for count in range(category.started - 1, max(-1, category.started - 1 - RUNGS), -1)
    ]


def _hundredths(millionths: int) -> int:
    """Rounded up to a number that one writes."""
    return -(-millionths // 10_000) * 10_000


def _budget_spent(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    """A higher limit, or usage that somebody tells."""
    category = view.categories[name]
    backends = _in_question(view, category)
    scopes = [f"category:{name}", *(f"backend:{each.name}" for each in backends)]
    scopes += dict.fromkeys(f"pool:{each.pool}" for each in backends)
    for scope in scopes:
        for budget in view.budgets.get(scope, ()):
            if budget.room <= len(decision.chosen):
                yield _larger(scope, budget) if budget.each is not None else [_told(scope, budget)]
    yield from competitors(view, decision)


def _larger(scope: str, budget: Budget) -> Ladder:
    kind, _, name = scope.partition(":")
    table = {"category": "categories", "backend": "backends", "pool": "pools"}[kind]
    limits = [limit for count in range(1, RUNGS + 1) if (limit := budget.needed(count)) and limit > budget.limit]
    return [
        Change(
            fact=f'budget["{scope}"].{budget.kind}',
            old=budget.limit,
            new=limit,
            text=f"the budget of {kind} {name} had been {amount(budget.kind, limit)} a day",
            apply=alter.budget(scope, budget.kind, limit=limit),
            setting=f"[{table}.{name}] {LIMITS[budget.kind]} = {limit / UNIT if budget.kind == 'cost' else limit}",
        )
        for limit in limits
    ]


def _told(scope: str, budget: Budget) -> Change:
    kind, _, name = scope.partition(":")
    untold = budget.open + budget.unknown
    return Change(
        fact=f'budget["{scope}"].untold',
        old=untold,
        new=0,
        text=f"the {untold} sessions of {kind} {name} whose {budget.kind} nobody knows had told it, and used little",
        apply=alter.budget(scope, budget.kind, open=0, unknown=0, each=0),
    )


def _in_question(view: View, category: Category) -> list[Backend]:
    """The backends of the request by hand, of the category, or all."""
    wanted = None if view.manual is None else view.manual.backend
    named = (wanted,) if wanted is not None else category.backends
    return [view.backends[each] for each in (view.backends if named is None else named) if each in view.backends]


def _no_backend(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    category, manual = view.categories[name], view.manual
    wanted = None if manual is None else manual.backend
    backends = _in_question(view, category)
    for pool in dict.fromkeys(each.pool for each in backends if each.state != "available" or each.trial):
        known = next(each for each in backends if each.pool == pool)
        until = "" if known.until is None else f", as it is expected to at {local(time_text(known.until))}"
        text = f"pool {pool} had taken sessions again{until}"
        yield [Change(f'pool["{pool}"].state', known.state, "available", text, alter.pool_available(pool))]
    for backend in backends:
        yield from _able(backend, category)
    for pool in dict.fromkeys(each.pool for each in backends):
        shared = view.pools.get(pool)
        if shared is not None and shared.concurrency is not None:
            yield _wider(pool, shared.concurrency, shared.live)
    names, pools = {backend.name for backend in backends}, {backend.pool for backend in backends}
    theirs = (id for id, live in view.live.items() if live["backend"] in names or live["pool"] in pools)
    yield from sessions_ended(view, theirs)
    if wanted is not None:
        text = f"backend {clean(wanted, 64)} had not been asked for"
        yield [Change("request.backend", wanted, None, text, alter.any_backend_by_hand, f"loop start {name}")]
    elif category.backends is not None:
        text = "it might have run on any backend"
        fact, setting = f'category["{name}"].backends', f"[categories.{name}] without backends"
        apply = alter.category(name, backends=None)
        yield [Change(fact, list(category.backends), None, text, apply, None, setting)]
    yield from competitors(view, decision)


def _wider(pool: str, concurrency: int, live: int) -> Ladder:
    return more(
        f'pool["{pool}"].concurrency',
        concurrency,
        live,
        lambda count: f"pool {pool} might run {count} sessions at once",
        lambda count: alter.pool(pool, concurrency=count),
        f"[pools.{pool}] concurrency",
    )


def _able(backend: Backend, category: Category) -> Iterator[Ladder]:
    """What one backend would need to take a session of the category."""
    name = backend.name
    if backend.paused:
        text, command = f"backend {name} had not been paused", f"loop resume --backend {name}"
        yield [Change(f'backend["{name}"].paused', True, False, text, alter.backend(name, paused=False), command)]
    if not (backend.command or category.own_command):
        text, setting = f"backend {name} had a command", f"[backends.{name}] command = […]"
        apply = alter.backend(name, command=True)
        yield [Change(f'backend["{name}"].command', False, True, text, apply, None, setting)]
    if backend.concurrency is not None:
        yield more(
            f'backend["{name}"].concurrency',
            backend.concurrency,
            backend.live,
            lambda count: f"backend {name} might run {count} sessions at once",
            lambda count: alter.backend(name, concurrency=count),
            f"[backends.{name}] concurrency",
        )


def _rate_limited(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    rates = view.rates
    for window, count, limit in (("hour", rates.hour, rates.hour_limit), ("day", rates.day, rates.day_limit)):
        if limit is not None:
            key = f"max_starts_per_{window}"
            yield more(f"loop.{key}", limit, count, _starts_text(window), _rates_limit(window), f"[loop] {key}")
    yield from competitors(view, decision)


def _starts_text(window: str) -> Callable[[int], str]:
    return lambda count: f"{count} starts in the {window} were allowed"


def _rates_limit(window: str) -> Callable[[int], Callable[[View], View]]:
    return lambda count: alter.rates(**{f"{window}_limit": count})


def _no_slot(view: View, decision: Decision, name: str) -> Iterator[Ladder]:
    candidate = next((each for each in decision.candidates if each.category == name), None)
    rule = None if candidate is None else candidate.rule
    yield more(
        "capacity",
        view.slots,
        len(view.live),
        lambda count: f"there had been {count} slots instead of {view.slots}",
        lambda count: alter.loop(slots=count),
        "[loop] slots",
    )
    if rule == "allowlist":
        kept = sum(live["rule"] == "allowlist" for live in view.live.values())
        yield more(
            "selector.fallback_slots",
            view.fallback_slots,
            kept,
            lambda count: f"the safety net had {count} slots instead of {view.fallback_slots}",
            lambda count: alter.loop(fallback_slots=count),
            "[selector] fallback_slots",
        )
        text = "the selector's answer had been readable and had named it"
        yield [Change("selection.rejected", True, False, text, alter.answered(name))]
    elif view.answer is not None and not view.answer.rejected and rule not in ("manual", "respawn"):
        yield ranks(view, name, None)
    yield _more_credit(view, decision, name)
    yield from sessions_ended(view, view.live)
    yield from competitors(view, decision)


def _more_credit(view: View, decision: Decision, name: str) -> Ladder:
    """Under policy `fair`: just more credit than one after another of those that were served."""
    accounts = {} if decision.ledger is None else decision.ledger["accounts"]
    if name not in accounts:
        return []
    claim, credit = accounts[name]["claim"], accounts[name]["credit"]
    served = (accounts[choice.category]["claim"] for choice in decision.chosen if choice.category in accounts)
    needed = [credit + other - claim + 1 for other in sorted(served)]
    return [
        Change(
            fact=f'category["{name}"].credit',
            old=credit / UNIT,
            new=more / UNIT,
            text=f"its credit had been {more / UNIT:.2f} slots instead of {credit / UNIT:.2f}",
            apply=alter.loop(ledger={**view.ledger, name: more}),
        )
        for more in needed
    ]


REMEDIES: Mapping[str, Remedy] = {
    "unknown_category": _unknown_category,
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
"""For every verdict that the decider gives; a test compares."""
