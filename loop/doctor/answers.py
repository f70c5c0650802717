"""What only a try can show: the selector asked as `loop plan` asks it, the targets held against slots and lanes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from events.catalog import SelectionRejected
from events.clock import Clock
from loop.doctor.check import Check, listed
from loop.journal import Rehearsal
from loop.observe import ask_selector
from loop.passes import configure
from loop.targets import about_targets
from projections.state import State
from projections.view import view

if TYPE_CHECKING:
    from loop.config import Config


def selector(config: Config, environ: Mapping[str, str], clock: Clock) -> Check:
    """Asked with LOOP_DRY_RUN=1; an answer that a pass would reject is a failure."""
    rehearsal = Rehearsal(State(), clock.now())
    configure(rehearsal, config)
    answer = ask_selector(config, view(rehearsal.state, clock.now()), environ, dry_run=True)
    if isinstance(answer, SelectionRejected):
        keys = f" ({listed(answer.keys)})" if answer.keys else ""
        detail = f"its answer is rejected: {answer.reason}{keys}: {(answer.text or '').strip()[:200]}"
        return Check("selector_answer", "fail", detail, "mend it, and see: loop plan")
    names = [entry.category for entry in answer.ranking]
    unknown = [name for name in names if name not in config.categories]
    seconds = "" if answer.seconds is None else f" in {answer.seconds:.1f} s"
    detail = f"ranks {listed(names) or 'nothing'}{seconds}"
    if names and len(unknown) == len(names):
        mend = "configure them, or map them with selector.aliases"
        return Check("selector_answer", "warn", f"{detail}; none of them is a category of loop.toml", mend)
    if answer.seconds is not None and answer.seconds > config.selector.timeout / 2:
        return Check("selector_answer", "warn", f"{detail}, over half of selector.timeout", "raise selector.timeout")
    return Check("selector_answer", "ok", detail)


def feasible(config: Config) -> Check:
    """Whether the targets can be met at all with these slots, lanes and locks."""
    if found := list(about_targets(config)):
        return Check("feasible", "warn", "\n".join(found), "mend targets, slots or lanes, then: loop config check")
    return Check("feasible", "ok", "slots, lanes and locks can meet every target")
