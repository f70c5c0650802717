"""The transaction of a pass: its facts, the decision on exactly those, and the grants. Nothing here runs or waits.

`decide_pass` writes through `loop.journal.Writing`, so the same code appends a real pass and rehearses one for
`loop plan`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from events.catalog import (
    BackendProbed,
    ClockStepped,
    FanoutDecided,
    HostMeasured,
    HostSuspended,
    LockAcquired,
    LoopConfigured,
    OperatorRequested,
    SessionRequested,
    TickSkipped,
    TickStarted,
)
from events.clock import Clock
from events.envelope import to_json, to_micros, to_text
from events.errors import ConfigError
from loop.command import render, render_argv
from loop.config import Config, facts
from loop.config_file import prompt_of
from loop.decider import Choice, Decision, decide
from loop.gates import Answers
from loop.journal import Entry, Journal, Rehearsal, Writing
from loop.observe import Selection
from loop.resuming import GO_ON, to_resume
from loop.sessions import proc, rundir
from projections import fires, schedule
from projections.resumes import CutOff
from projections.state import State
from projections.view import View, view

ACTOR = "controller"
TIMER = "schedule"  # the one timer of a config; daemon, timer unit and cron all fire it
ARGUMENT_KEPT = 2_000  # characters of one argument that the log keeps
STEP_TOLERANCE = 2_000_000  # microseconds that the wall clock may move against boot time between two passes
SHORTEST_SUSPENSION = 1_000_000  # microseconds; the two clocks are read one after the other

Trigger = Literal["timer", "manual", "session_end"]


@dataclass(frozen=True, slots=True)
class Process:
    """Who makes a pass: its pid, its start time (clock ticks since boot) and the boot's id."""

    pid: int
    start: int | None
    boot: str


def this_process() -> Process:
    """The one that asks."""
    return Process(os.getpid(), proc.start_time(os.getpid()), proc.boot_id())


@dataclass(frozen=True, slots=True)
class Fire:
    """What brings a pass: a timer with its nominal instant (microseconds), an operator, or the end of a session."""

    trigger: Trigger
    nominal: int | None = None
    ended: str | None = None
    start: OperatorRequested | None = None
    category: str | None = None
    expect: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a pass brings into its transaction."""

    fire: Fire
    config: Config
    selection: Selection | None = None
    gates: Answers = field(default_factory=dict)
    host: HostMeasured | None = None
    red_rungs: tuple[str, ...] = ()
    """The rungs of the readiness ladder that are red although the config raises `slots`."""
    keep_config: bool = False
    """Decide under the config that the log has in force (`plan --at`), not under this one."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A session that the log grants and that is to be started now."""

    session: str
    token: int
    tick: str
    choice: Choice
    argv: list[str]
    cwd: str
    deadline: str
    trigger: Trigger
    problem: str | None
    """Why it cannot be started after all (its prompt file is gone); the request is then voided."""
    resumes: CutOff | None = None
    """The conversation that it goes on with."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What the transaction came to."""

    tick: str
    position: int
    decision: Decision
    grants: tuple[Grant, ...]
    seen: View
    config: str
    """The hash of the config in force."""
    answered: tuple[Any, ...] | None
    """Of the selector's last answer: whether it was rejected, why, its ranking."""

    @property
    def inputs(self) -> str:
        """A digest of what the decision rests on and what it says: config, ranking, what the gates said, which bounds
        of the host hold, verdicts; no time and no position.

        Two passes with the same inputs would start the same; `tick --expect` compares it.
        """
        about = {
            "config": self.config,
            "ranking": self.answered,
            "gates": {name: each.gate.answer for name, each in self.seen.categories.items() if each.gate is not None},
            "host": {measure.bound_name: measure.ok for measure in self.seen.host},
            "verdicts": [[each.category, each.rule, each.verdict] for each in self.decision.candidates],
        }
        return hashlib.sha256(to_json(about).encode()).hexdigest()[:12]




def decide_pass(entry: Writing, facts: Facts, clock: Clock, process: Process | None = None) -> Decided:
    """Append a pass, its facts, its decision and its grants; the same for a real pass, a rehearsal and a simulation.

    It is `process`'s, without one this process's.
    """
    fire, process = facts.fire, process or this_process()
    note_clock(entry, clock, process.boot)
    if not facts.keep_config or entry.state.control["config"] is None:
        configure(entry, facts.config, facts.red_rungs)
    tick = entry.tick_id()
    missed = 0
    timer = None
    if fire.nominal is not None:
        timer = TIMER
        before = fires.before(entry.state.control["used"].get(TIMER, []), to_text(fire.nominal))
        missed = 0 if before is None else _missed(entry, before, fire.nominal)
    cause = entry.append(
        TickStarted(
            trigger=fire.trigger,
            pid=process.pid,
            start=process.start,
            boot=process.boot,
            boottime=clock.boottime(),
            awake=_awake(clock),
            timer=timer,
            nominal=None if fire.nominal is None else to_text(fire.nominal),
            missed=missed,
            ended=fire.ended,
        ),
        actor=ACTOR,
        tick=tick,
    ).position
    if fire.start is not None:
        cause = entry.append(
            fire.start, actor="operator", tick=tick, cause=cause, category=fire.category
        ).position
    if facts.selection is not None:
        cause = entry.append(facts.selection, actor="selector", tick=tick, cause=cause).position
    for category, answer in facts.gates.items():
        entry.append(answer, actor="gate", tick=tick, cause=cause, category=category)
    if facts.host is not None:
        entry.append(facts.host, actor=ACTOR, tick=tick, cause=cause)
    seen = view(entry.state, entry.now)
    decision = decide(seen)
    event = entry.append(FanoutDecided.model_validate(decision.as_dict()), actor=ACTOR, tick=tick, cause=cause)
    chosen = () if facts.keep_config else decision.chosen  # a past config has no commands to grant
    grants = tuple(_grant(entry, facts, choice, tick, event.position) for choice in chosen)
    _note_probes(entry, seen, grants)
    config, last = entry.state.control["config"], entry.state.selection["last"]
    assert config is not None
    answered = None if last is None else (last["rejected"], last["reason"], last["ranking"])
    return Decided(tick, event.position, decision, grants, seen, config["hash"], answered)


def configure(entry: Writing, config: Config, red_rungs: Sequence[str] = ()) -> None:
    """Append `loop.configured` where the config differs from the one in force, with what is red as `slots` rises."""
    data, private = facts(config)
    known = entry.state.control["config"]
    if known is None or known["hash"] != data["hash"]:
        about = {"red_rungs": red_rungs, "settings": private, "source": config.source}
        entry.append(LoopConfigured.model_validate({**data, **about}), actor=ACTOR)


def raises_slots(state: State, config: Config) -> bool:
    """Whether the config gives more slots than the one in force."""
    known = state.control["config"]
    return known is not None and config.loop.slots > known["slots"]


def preview(journal: Journal, config: Config, clock: Clock) -> View:
    """The view that the next decision would have now, before any selector was asked."""
    rehearsal = Rehearsal(journal.refresh(), clock.now())
    configure(rehearsal, config)
    return view(rehearsal.state, rehearsal.now)


def _grant(entry: Writing, facts: Facts, choice: Choice, tick: str, cause: int) -> Grant:
    config = facts.config
    session = entry.session_id()
    settings = config.session_of(choice.category)
    values = placeholders(session, choice, rundir.path_of(str(config.state), session))
    problem = None
    try:
        values["prompt"] = prompt_of(config, choice.category, values)
    except ConfigError as error:  # one category's missing file is no reason to stop the others
        problem = error.message
    command = config.command_of(choice.category, choice.backend)
    resumes = to_resume(entry.state, config, choice.category, choice.task, choice.backend, entry.now, values)
    if resumes is not None:
        command = config.resume_command_of(choice.category, choice.backend) or command
        values = {**values, "resume": resumes["token"], "prompt": GO_ON + values["prompt"]}
    argv = render_argv(command, values)
    cwd = render(settings.cwd, values)
    deadline = to_text(entry.now + round(settings.timeout * 1_000_000))
    about: dict[str, Any] = {"actor": ACTOR, "tick": tick, "session": session, "category": choice.category}
    requested = entry.append(
        SessionRequested.model_validate(
            {
                "task": choice.task,
                "backend": choice.backend,
                "pool": config.pool_of(choice.backend),
                "keys": list(choice.keys),
                "chain": choice.chain,
                "parent": choice.parent,
                "rule": choice.rule,
                "trigger": facts.fire.trigger,
                "timeout": settings.timeout,
                "deadline": deadline,
                "resumes": None if resumes is None else resumes["session"],
                "argv": [argument[:ARGUMENT_KEPT] for argument in argv],
                "cwd": cwd,
            }
        ),
        cause=cause,
        **about,
    )
    for key in choice.keys:
        entry.append(LockAcquired(key=key, token=requested.position), cause=requested.position, **about)
    return Grant(session, requested.position, tick, choice, argv, cwd, deadline, facts.fire.trigger, problem, resumes)


def _note_probes(entry: Writing, seen: View, grants: Sequence[Grant]) -> None:
    """Record the grants that try a pool whose limit is over. What a breaker lets through needs no record: the fold
    knows the breaker from the ends that opened it."""
    for grant in grants:
        backend = seen.backends[grant.choice.backend]
        pool = entry.state.backends["pools"].get(backend.pool)
        if pool is not None and pool["probe"] == grant.session and f"pool:{backend.pool}" in backend.trial:
            probed = BackendProbed(pool=backend.pool, source="session")
            about: dict[str, Any] = {"session": grant.session, "category": grant.choice.category}
            entry.append(probed, actor=ACTOR, tick=grant.tick, cause=grant.token, **about)


def placeholders(session: str, choice: Choice, run_dir: str) -> dict[str, str]:
    """What a template may name, the prompt still empty."""
    return {
        "category": choice.category,
        "task": choice.task,
        "session": session,
        "backend": choice.backend,
        "run_dir": run_dir,
        "prompt": "",
        "resume": "",
    }


def is_used(state: State, nominal: int, now: int) -> bool:
    """Whether a nominal instant already had its fire, or was missed and is coalesced into a later one.

    A last fire that is still to come at `now` says that the clock was stepped back: what was missed then comes, too.
    """
    instant, last = to_text(nominal), state.control["fires"].get(TIMER)
    if fires.had(state.control["used"].get(TIMER, []), instant):
        return True
    return last is not None and instant <= last <= to_text(now)


def _missed(entry: Writing, before: str, nominal: int) -> int:
    """How many instants between the last used fire and this one had none."""
    config = entry.state.control["config"]
    assert config is not None
    return max(0, schedule.fires_between(config, to_micros(before), nominal) - 1)


def append_skip(entry: Entry, fire: Fire, reason: str, text: str | None = None) -> str:
    """Record a fire that was no pass; returns the reason."""
    nominal = None if fire.nominal is None else to_text(fire.nominal)
    skipped = TickSkipped.model_validate(
        {
            "trigger": fire.trigger,
            "reason": reason,
            "timer": None if nominal is None else TIMER,
            "nominal": nominal,
            "text": text,
        }
    )
    entry.append(skipped, actor=ACTOR)
    return reason



def note_clock(entry: Writing, clock: Clock, boot: str) -> None:
    """Record `clock.stepped` where the wall clock moved against boot time since the last pass of this `boot`, and
    `host.suspended` where awake time stood still meanwhile.

    The tolerance grows with the time between: a clock that NTP slews (at most 500 ppm) has not stepped.
    """
    known = entry.state.control["clock"]
    if known is None or known["boot"] != boot:
        return
    elapsed = clock.boottime() - known["boottime"]
    expected = to_micros(known["at"]) + elapsed
    if abs(entry.now - expected) > STEP_TOLERANCE + elapsed // 1_000:
        stepped = ClockStepped(
            expected=to_text(expected), observed=to_text(entry.now), seconds=(entry.now - expected) / 1e6
        )
        entry.append(stepped, actor=ACTOR)
    if known.get("awake") is not None:
        slept = elapsed - (_awake(clock) - known["awake"])
        if slept >= SHORTEST_SUSPENSION:
            entry.append(HostSuspended(seconds=slept / 1e6), actor=ACTOR)


def _awake(clock: Clock) -> int:
    """Microseconds of awake time."""
    return round(clock.monotonic() * 1e6)

