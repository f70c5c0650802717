"""`loop report` as data: five questions about a window, each with its figure and what the sample shows, the readiness
ladder, and where idle slots went. An answer is true only where the data show it, and null where they cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, floor
from typing import Any

from events.envelope import to_text
from events.store import EventLog
from loop.history import History, Tally, history
from loop.output import as_of, clean
from loop.status import categories
from loop.text import count_of
from projections import figures
from projections.rates import RateRatio, lower95, rate_ratio, sample_under, upper95

NEAR_ZERO = 0.05  # a rate whose upper bound is below this counts as near zero
MEASURED_HOURS = 24  # of decisions that follow each other, before a distribution counts as measured
HOUR_MICROS = 3_600_000_000
SPAN = 48 * HOUR_MICROS  # that is looked at before more slots are given

Line = dict[str, Any]

ABOUT: dict[str, dict[bool | None, str]] = {
    "over_allocation": {False: "somebody has over 2 times its target", None: "not enough starts to judge every ratio"},
    "neglected": {False: "neglected work was not started", None: "that neglect is served is not shown"},
}
"""What a distribution must show beside its hours, and how it reads where it does not."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the data say: `ok` None where they cannot; `value` and `bound` are numbers or None."""

    ok: bool | None
    value: float | None
    bound: float | None
    detail: str
    more: Line = field(default_factory=dict)


def report(log: EventLog, *, upto: int, now: int, span: int) -> dict[str, Any]:
    """The report over the `span` microseconds before `now`, from the log up to position `upto`.

    Windows over two hours begin with a whole UTC hour, and none before the log.
    """
    return told(history(log, upto=upto, now=now, span=span), upto)


def told(found: History, upto: int) -> dict[str, Any]:
    """The report of a window that ends at position `upto`."""
    now = found.now
    lines = categories(found.state, now, found.window)
    answers = _answers(found, lines)
    rungs = _ladder(found, answers)
    return {
        "schema": "loop.report/1",
        "as_of": as_of(upto, to_text(now)),
        "data": {
            "from": to_text(found.begin),
            "hours": _hours(found.length),
            "sessions": found.tally.started.total(),
            "measured_hours": _hours(found.idle.measured),
            "hours_before": _hours(found.begin - found.before),
        },
        "questions": [
            {"name": name, "ok": each.ok, "value": each.value, "bound": each.bound, "detail": each.detail, **each.more}
            for name, each in answers.items()
        ],
        "ladder": [{"name": name, "ok": each.ok, "detail": each.detail} for name, each in rungs.items()],
        "held_back_by": next((name for name, each in rungs.items() if not each.ok), None),
        "categories": lines,
        "idle_slot_hours": {reason: _hours(time) for reason, time in found.idle.idle.most_common() if time},
        "slot_hours": _hours(found.idle.offered),
    }


def red_rungs(log: EventLog, *, upto: int, now: int) -> dict[str, str]:
    """Rung -> what is wrong, for those below more slots that the last SPAN shows to be broken.

    What the data cannot show is not red.
    """
    ladder = report(log, upto=upto, now=now, span=SPAN)["ladder"]
    return {rung["name"]: rung["detail"] for rung in ladder if rung["ok"] is False and rung["name"] != "more_slots"}


def _hours(time: int) -> float:
    return round(time / HOUR_MICROS, 4)


def _all(parts: Iterable[bool | None]) -> bool | None:
    """False if any is, else None if any is."""
    known = list(parts)
    return False if False in known else None if None in known else True


def _answers(found: History, lines: list[Line]) -> dict[str, Answer]:
    alone = figures.only_locks(found.state)  # another program's locks: of the rest nothing is known
    unknown = Answer(None, None, None, "unknown: another program's locks are all that the log has")
    return {
        "neglected": unknown if alone else _neglected(found, lines),
        "over_allocation": unknown if alone else _over_allocation(lines),
        "same_lock": _same_lock(found),
        "noop": unknown if alone else _noop(found.tally),
        "output": unknown if alone else _output(found),
    }


# ── the five questions ────────────────────────────────────────────────────────────────────────────────────────────────


def _neglected(found: History, lines: list[Line]) -> Answer:
    """`value` of `bound` categories that were neglected in the window started since, and did their own work."""
    items, verdicts = [], []
    for name, owed in sorted(found.owed.items()):
        did = True if owed.done else None if owed.live or owed.lost else False
        verdicts.append(did if owed.started else False)
        items.append(
            {
                "category": name,
                "since": owed.since,
                "started": owed.started,
                "did_it": owed.done,
                "did_other": dict(owed.elsewhere),
                "ok": verdicts[-1],
            }
        )
    served = verdicts.count(True)
    more = {"items": items}
    if items:
        many = count_of(len(items), "neglected category", "neglected categories")
        parts = [f"{served} of {many} started and did its work"]
        parts += [_unserved(item) for item in items if not item["ok"]]
        return Answer(_all(verdicts), served, len(items), "; ".join(parts), more)
    total = sum(line["spawned"] for line in lines)
    targets = [line["target"] for line in lines if line["target"]]
    if not targets:
        return Answer(None, None, None, "no data: no category has a target", more)
    needed = floor(figures.NEGLECT / min(targets)) + 1
    if total < needed:
        detail = f"nobody was neglected in {count_of(total, 'start')}; the smallest target could be from {needed} on"
        return Answer(None, 0, 0, detail, more)
    return Answer(True, 0, 0, f"nobody was neglected in {count_of(total, 'start')}", more)


def _unserved(item: Line) -> str:
    name = clean(item["category"])
    if not item["started"]:
        return f"{name} did not start"
    if item["ok"] is None:
        return f"{name} started {item['started']} and has yet to show it"
    return f"{name} started {item['started']} and did {', '.join(map(clean, item['did_other']))} instead"


def _over_allocation(lines: list[Line]) -> Answer:
    """`value` is the largest ratio that rests on enough data, `bound` what all must be under."""
    wanted = [line for line in lines if line["target"]]
    if not wanted:
        return Answer(None, None, figures.OVER, "no data: no category has a target")
    judged = [line for line in wanted if line["enough_data"]]
    parts = []
    worst = max(judged, key=lambda line: line["ratio"], default=None)
    if worst is not None:
        over = [line for line in judged if line["ratio"] >= figures.OVER]
        named = ", ".join(f"{clean(line['name'])} {line['ratio']:.2f}" for line in over or [worst])
        parts.append(f"{'over' if over else 'at most'}: {named} times its target")
    if few := len(wanted) - len(judged):
        total = sum(line["spawned"] for line in lines)
        needed = ceil(figures.ENOUGH / min(line["target"] for line in wanted))
        parts.append(f"too few starts to judge {few} of {len(wanted)}: {total} of {needed}")
    verdicts = [line["ratio"] < figures.OVER if line["enough_data"] else None for line in wanted]
    value = None if worst is None else worst["ratio"]
    return Answer(_all(verdicts), value, figures.OVER, "; ".join(parts))


def _same_lock(found: History) -> Answer:
    """`value` is how many, `bound` the upper bound of their rate per lock taken."""
    count, of = found.violations, found.locks
    bound = upper95(min(count, of), of)
    more = {"of": of}
    if count:
        detail = f"{count_of(count, 'violation')} in {count_of(of, 'lock')} taken: loop log --type 'lock.*'"
        return Answer(False, count, bound, detail, more)
    if bound is None:
        return Answer(None, 0, None, "no data: no lock was taken", more)
    return Answer(True, 0, bound, f"0 in {count_of(of, 'lock')} taken shows at most {_percent(bound)} of them", more)


def _noop(tally: Tally) -> Answer:
    """`value` is the rate over the assessed, `bound` its upper bound."""
    count, of, unproven = tally.outcomes["noop"], tally.assessed, tally.outcomes["unproven"]
    ok, detail = _near_zero(count, of, "assessed", "a NOOP")
    if unproven:
        detail += f"; {unproven} unproven beside them"
    more = {"count": count, "of": of, "unproven": unproven, "lower95": lower95(count, of)}
    return Answer(ok, count / of if of else None, upper95(count, of), detail, more)


def _near_zero(count: int, of: int, sample: str, what: str) -> tuple[bool | None, str]:
    """Whether a rate is below NEAR_ZERO, or above, or neither is shown; and what would show it."""
    high, low = upper95(count, of), lower95(count, of)
    wanted = f"would show under {_percent(NEAR_ZERO)}"
    needed = sample_under(count, NEAR_ZERO)
    more = f"without {what}" if not count else f"with no more than {count}"
    would = "" if needed is None else f"; {needed} {sample} {more} {wanted}"
    if high is None or low is None:
        return None, f"no data{would}"
    shown = f"{count} of {of} shows at most {_percent(high)}"
    if high < NEAR_ZERO:
        return True, shown
    if low > NEAR_ZERO:
        return False, f"{shown} and at least {_percent(low)}"
    return None, shown + would


def _output(found: History) -> Answer:
    """`value` is productive sessions per hour over those of the window before, `bound` the least that it may be."""
    config = found.state.control["config"]
    settings = {} if config is None else config["categories"]
    maintenance = [name for name, each in settings.items() if each["maintenance"]]
    now, before = found.tally, found.tally_before
    hours = (found.length / HOUR_MICROS, (found.begin - found.before) / HOUR_MICROS)

    def compared(count: int, earlier: int) -> RateRatio | None:
        return rate_ratio(count, hours[0], earlier, hours[1])

    made = (now.outcomes["productive"], before.outcomes["productive"])
    kept = (sum(now.started[name] for name in maintenance), sum(before.started[name] for name in maintenance))
    output, upkeep = compared(*made), compared(*kept)
    grades = {"grade": _mean(now.graded), "grade_before": _mean(before.graded)}
    more: Line = {
        "productive": {"count": made[0], "before": made[1], **_interval(output)},
        "maintenance": {"categories": maintenance, "count": kept[0], "before": kept[1], **_interval(upkeep)},
        **grades,
    }
    told = f"{count_of(made[0], 'productive session')}{_graded(grades['grade'])}"
    if output is None or upkeep is None:
        return Answer(None, None, None, f"{told}; no data: the log has no window before this one", more)
    parts = [f"{told} after {made[1]}{_graded(grades['grade_before'])} in {hours[1]:.1f} h before: {_times(output)}"]
    if kept != (0, 0):
        parts.append(f"maintenance {kept[0]} after {kept[1]}: {_times(upkeep)}")
    ok = output.rose and _steady(upkeep)
    return Answer(ok, output.ratio, output.low, "; ".join(parts), more)


def _steady(upkeep: RateRatio) -> bool | None:
    """Whether maintenance did not rise: False where its interval shows a rise, None where its figure suggests one."""
    if upkeep.rose:
        return False
    nothing = upkeep.ratio is None and not upkeep.low
    return True if nothing or (upkeep.ratio is not None and upkeep.ratio <= 1) else None


def _mean(grades: list[float]) -> Line:
    return {"mean": sum(grades) / len(grades) if grades else None, "of": len(grades)}


def _graded(grade: Line) -> str:
    return "" if grade["mean"] is None else f" (mean grade {grade['mean']:.2f} of {grade['of']})"


def _interval(ratio: RateRatio | None) -> Line:
    return dict.fromkeys(("ratio", "low", "high")) if ratio is None else {
        "ratio": ratio.ratio, "low": ratio.low, "high": ratio.high
    }  # fmt: skip


def _times(ratio: RateRatio) -> str:
    if ratio.ratio is None and not ratio.low:
        return "no data"
    high = "any" if ratio.high is None else f"{ratio.high:.2f}"
    figure = "" if ratio.ratio is None else f"{ratio.ratio:.2f} times, "
    return f"{figure}95 % interval {ratio.low:.2f} to {high}"


# ── the ladder ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _ladder(found: History, answers: dict[str, Answer]) -> dict[str, Answer]:
    """What must hold before more slots are given, in this order; each rung with what would show it."""
    rungs = {
        "lock_safety": _lock_safety(found),
        "noop_rate": answers["noop"],
        "intent": _intent(found),
        "distribution": _distribution(found, answers),
    }
    missing = [name.replace("_", " ") for name, each in rungs.items() if not each.ok]
    detail = f"not before {', '.join(missing)}" if missing else "every rung below is shown"
    return {**rungs, "more_slots": _rung(_all(each.ok for each in rungs.values()), detail)}


def _rung(ok: bool | None, detail: str) -> Answer:
    return Answer(ok, None, None, detail)


def _lock_safety(found: History) -> Answer:
    """One violation breaks it; how many locks without any show it is the same as for any rate."""
    ok, detail = _near_zero(found.violations, max(found.locks, found.violations), "locks taken", "a violation")
    return _rung(False if found.violations else ok, detail)


def _intent(found: History) -> Answer:
    """Whether starts are those that the selector asked for, and what was chosen really started."""
    chosen = figures.selection(found.state, found.now, found.window)
    followed, granted = chosen["followed"], chosen["granted"]
    lost = followed["of"] - followed["count"]
    ok, detail = _near_zero(lost, followed["of"], "starts of a ranking", "one that it did not name")
    if granted["of"]:
        detail += f"; granted {granted['count']} of {granted['of']}"
    if unacted := sum(chosen["losses"].get(how, 0) for how in figures.UNACTED):
        acted, shown = _near_zero(unacted, granted["count"] + unacted, "choices", "one that never started")
        ok, detail = _all((ok, acted)), f"{count_of(unacted, 'choice')} never started: {shown}; {detail}"
    if chosen["ignored"]:
        return _rung(False, f"{count_of(chosen['ignored'], 'time')} a readable answer was not followed; {detail}")
    return _rung(ok, detail)


def _distribution(found: History, answers: dict[str, Answer]) -> Answer:
    """A day of decisions at least, and nobody neglected or over-allocated in it."""
    hours = found.idle.measured / HOUR_MICROS
    enough = True if hours >= MEASURED_HOURS else None
    parts = [f"{hours:.1f} of {MEASURED_HOURS} to {2 * MEASURED_HOURS} hours measured"]
    parts += [words[answers[name].ok] for name, words in ABOUT.items() if not answers[name].ok]
    return _rung(_all([enough, *(answers[name].ok for name in ABOUT)]), "; ".join(parts))


def _percent(rate: float) -> str:
    return f"{rate * 100:.2g} %" if rate < 0.01 else f"{rate * 100:.1f} %".replace(".0 %", " %")
