"""Known bugs, planted one at a time: each replaces a few words in one function of the product.

`was` must be in that function's source exactly once, or planting fails: a bug that could not be planted proves nothing.
Of a function that makes functions at import, what it made already stays as it was: plant in what those call.
Where the product has changed, mend the entry so that it plants the same mistake in the new words.
"""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from pkgutil import resolve_name
from types import FunctionType


class NotPlanted(Exception):
    """The product no longer reads as the bug expects; the message says where."""


@dataclass(frozen=True, slots=True)
class Bug:
    """In the function `where` (module:name), `becomes` instead of `was`."""

    name: str
    where: str
    was: str
    becomes: str

    def planted(self) -> tuple[FunctionType, str]:
        """The function, and its source with the bug in it. Raises NotPlanted."""
        try:
            function = inspect.unwrap(resolve_name(self.where))
        except (ImportError, AttributeError) as error:
            raise NotPlanted(f"{self.where}: {error}; mend {__file__}") from None
        if isinstance(function, property):
            function = function.fget
        assert isinstance(function, FunctionType)
        source = inspect.getsource(function)
        if source.count(self.was) != 1:
            raise NotPlanted(f"{self.where} has {self.was!r} {source.count(self.was)} times; mend {__file__}")
        return function, textwrap.dedent(source.replace(self.was, self.becomes))

    def plant(self) -> None:
        """Change the function in this process, for everybody who has it. Raises NotPlanted."""
        function, source = self.planted()
        body = source[source.index("def ") :]  # without its decorators
        names: dict[str, object] = {}
        exec(compile(body, f"<planted {self.name}>", "exec"), function.__globals__, names)
        planted = names[function.__name__]
        assert isinstance(planted, FunctionType)
        function.__code__ = planted.__code__


BUGS = (
    Bug(  # the net gives slots in the order of the file, not to the most owed
        "first_n_allowlist_fallback", "loop.policies:most_owed",
        "[category.name for category in sorted(parallel, key=order)]", "[category.name for category in parallel]",
    ),
    Bug("cap_ignored", "loop.decider:_over_allocated", "if most is None or", "if True or"),
    Bug(  # each link of a chain takes itself for the first
        "respawn_unbounded", "projections.view:_due", 'chain=due["chain"]', "chain=0",
    ),
    Bug(  # the tail is counted as seen, and not folded: decided on what was before others wrote
        "stale_read", "loop.journal:Journal.transaction",
        "self.state.fold(transaction.events(self.state.position))", "self.state.position = transaction.head",
    ),
    Bug(  # one success in between, and nothing backs off any more
        "streak_instead_of_window", "projections.feedback:backoff",
        "k = len([at for at in times if since < at <= times[-1]])",
        'k = next((i for i, end in enumerate(reversed(ends)) if not end["noop"]), len(ends))',
    ),
    Bug(  # what a readable answer leaves free goes to the allowlist
        "net_open_on_a_valid_answer", "loop.decider:_at_fire",
        'if answer.rejected and view.on_reject == "fallback":\n            ranked = [',
        'if view.on_reject == "fallback":\n            ranked += [',
    ),
    Bug(  # somebody holds the kernel lock, nobody knows who: taken for dead
        "lock_taken_on_unknown_liveness", "loop.sessions.reconcile:_bury",
        "        return False\n    with held:",
        "        held = contextlib.nullcontext()\n        held.note_lost = lambda *words: None\n    with held:",
    ),
    Bug(
        "end_counted_twice", "projections.outcomes:_end",
        'keep_recent(state["assessed"], item, RECENT)', 'keep_recent(state["assessed"], item, RECENT); '
        'keep_recent(state["assessed"], item, RECENT)',
    ),
    Bug("refund_forgotten", "projections.allocation:ended", "cell[0] -= unused", "cell[0] -= 0"),
    Bug(  # of several keys only the first is let go
        "lock_left_behind", "loop.sessions.ingest:append_end", 'for key in files.spec["keys"]:',
        'for key in files.spec["keys"][:1]:',
    ),
    Bug("slots_of_this_pass_forgotten", "loop.decider:_Board.free", " - len(self.chosen)", ""),
    Bug(
        "other_locks_of_a_category_forgotten", "loop.decider:_lock_held",
        "for key in category.locks:", "for key in ():",
    ),
    Bug(
        "pause_of_a_category_ignored", "projections.view:restraints",
        "if until is None or until > now:", 'if scope == "all" and (until is None or until > now):',
    ),
    Bug(  # a clock that was set back comes to an instant again
        "instant_used_twice", "loop.passes:is_used", "if fires.had(", "if False and fires.had(",
    ),
    Bug("old_answer_used", "projections.view:_answer", "asked_now or 0 <= age <=", "asked_now or 0 <= 0 <="),
    Bug("gate_error_is_work", "loop.decider:_gate_error", 'in ("work", "no_work")', 'in ("work", "no_work", "error")'),
    Bug("limited_pool_used", "projections.pools:of_pool", "if known is None else", "if True else"),
    Bug(  # all that may run in a pool whose time has come, not one probe
        "stampede_of_probes", "projections.pools:_of_limit", "if now >= over:\n        return Access(trial=(scope,))",
        "if now >= over:\n        return OPEN",
    ),
    Bug(  # a dead controller is waited for, for ever
        "dead_granter_awaited", "loop.sessions.reconcile:_may_start",
        "return proc.alive(pid, start, boot)", "return True",
    ),
    Bug("second_pass_after_one_end", "loop.controller:Loop.session_ended", "if session in entry", "if None in entry"),
    Bug("rate_ignored", "loop.decider:_rate_limited", "rates.hour + more >= rates.hour_limit", "False"),
    Bug("net_without_limit", "loop.decider:_no_slot", 'candidate.rule == "allowlist" and', "False and"),
    Bug(
        "company_for_who_must_be_alone", "loop.decider:_not_alone",
        'category.parallel == "alone" and present', "False",
    ),
    Bug("start_not_charged", "loop.fair:closed", " - UNIT * (name in charged)", " - 0"),
    Bug(  # a clock that was set back is believed
        "step_back_unrecorded", "events.store:EventLog._begin", 'transaction.append(stepped, actor="store")', "pass",
    ),
    Bug("voided_request_ends_a_chain", "projections.outcomes:_end", 'if code != "voided":', "if True:"),
)  # fmt: skip
