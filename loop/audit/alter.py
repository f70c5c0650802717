"""Facts of a View altered, each as a function from one View to another. Nothing else of the view changes with them:
what a longer life or an earlier end would have brought besides is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from projections.view import Answer, Category, Entry, View

Alter = Callable[[View], View]


def loop(**fields: Any) -> Alter:
    """Fields of the view itself."""
    return lambda view: view._replace(**fields)


def rates(**fields: Any) -> Alter:
    """Ceilings of the start rate."""
    return lambda view: view._replace(rates=view.rates._replace(**fields))


def category(name: str, **fields: Any) -> Alter:
    """Fields of a category, where it is configured."""

    def apply(view: View) -> View:
        known = view.categories.get(name)
        return view if known is None else view._replace(categories={**view.categories, name: known._replace(**fields)})

    return apply


def new_category(name: str) -> Alter:
    """A category with the defaults and a command of its own."""
    added = Category(
        name=name,
        target=None,
        parallel=True,
        lanes=1,
        locks=(),
        backends=None,
        own_command=True,
        cooldown_until=None,
        backoff=None,
        wait=None,
        gate=None,
        supply="unknown",
        started=0,
        last_started=None,
        timeout=3_000_000_000,
    )
    return lambda view: view._replace(categories={**view.categories, name: added})


def measured(name: str) -> Alter:
    """A figure of the host within its bound."""
    return lambda view: view._replace(
        host=tuple(each._replace(value=each.bound, ok=True) if each.name == name else each for each in view.host),
    )


def backend(name: str, **fields: Any) -> Alter:
    """Fields of a backend."""
    return lambda view: view._replace(backends={**view.backends, name: view.backends[name]._replace(**fields)})


def pool_available(pool: str) -> Alter:
    """Every backend of a pool available, and proved to be."""

    def apply(view: View) -> View:
        found = {
            name: each._replace(state="available", until=None, because=None, trial=()) if each.pool == pool else each
            for name, each in view.backends.items()
        }
        return view._replace(backends=found)

    return apply


def pool(name: str, **fields: Any) -> Alter:
    """Fields of a pool."""
    return lambda view: view._replace(pools={**view.pools, name: view.pools[name]._replace(**fields)})


def budget(scope: str, kind: str, **fields: Any) -> Alter:
    """Fields of one budget of a scope."""

    def apply(view: View) -> View:
        found = tuple(each._replace(**fields) if each.kind == kind else each for each in view.budgets[scope])
        return view._replace(budgets={**view.budgets, scope: found})

    return apply


def unrestrained(scope: str) -> Alter:
    """No pause, drain or freeze of this scope."""
    return lambda view: view._replace(
        restraints={name: held for name, held in view.restraints.items() if name != scope}
    )


def ended(session: str) -> Alter:
    """A session gone, its keys free, its backend's and its pool's place too."""

    def apply(view: View) -> View:
        gone = view.live.get(session)
        backends = dict(view.backends)
        if gone is not None and gone["backend"] in backends:
            used = backends[gone["backend"]]
            backends[used.name] = used._replace(live=used.live - 1)
        pools = dict(view.pools)
        if gone is not None and gone["pool"] in pools:
            pools[gone["pool"]] = pools[gone["pool"]]._replace(live=pools[gone["pool"]].live - 1)
        return view._replace(
            live={id: live for id, live in view.live.items() if id != session},
            held={key: holder for key, holder in view.held.items() if holder != session},
            backends=backends,
            pools=pools,
        )

    return apply


def answer(**fields: Any) -> Alter:
    """Fields of the selector's answer."""

    def apply(view: View) -> View:
        return view if view.answer is None else view._replace(answer=view.answer._replace(**fields))

    return apply


def answered(name: str) -> Alter:
    """A usable answer that names just this category."""
    return answer(rejected=False, reason=None, fresh=True, ranking=(Entry(name, "selected", "", None),))


def unused(name: str) -> Alter:
    """The answer not yet used for this category."""

    def apply(view: View) -> View:
        known = view.answer
        return view if known is None else answer(used=known.used - {name})(view)

    return apply


def ranked(name: str, place: int) -> Alter:
    """The category at a place (from 0) of the ranking, moved there or put in."""

    def entries(known: Answer) -> tuple[Entry, ...]:
        new = Entry(name, "all_scores" if place else "selected", "", None)
        own = next((entry for entry in known.ranking if entry.category == name), new)
        others = [entry for entry in known.ranking if entry.category != name]
        return (*others[:place], own, *others[place:])

    def apply(view: View) -> View:
        return view if view.answer is None else answer(ranking=entries(view.answer))(view)

    return apply


def unranked(name: str) -> Alter:
    """The category not in the ranking."""

    def apply(view: View) -> View:
        known = view.answer
        kept = () if known is None else tuple(entry for entry in known.ranking if entry.category != name)
        return answer(ranking=kept)(view)

    return apply


def without_task(name: str) -> Alter:
    """The category asked for without a task."""

    def apply(view: View) -> View:
        if view.manual is not None:
            return view._replace(manual=view.manual._replace(task=""))
        known = view.answer
        entries = () if known is None else known.ranking
        return answer(ranking=tuple(entry._replace(task="") if entry.category == name else entry for entry in entries))(
            view
        )

    return apply


def not_due(session: str) -> Alter:
    """A session that earned no respawn."""
    return lambda view: view._replace(due=tuple(due for due in view.due if due.session != session))


def any_backend_by_hand(view: View) -> View:
    """A start by hand that asks for no backend."""
    return view if view.manual is None else view._replace(manual=view.manual._replace(backend=None))
