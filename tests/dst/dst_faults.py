"""What goes wrong in a run: a seed draws its own mix, so that no fault hides behind another in all of them.

Rates are chances per occasion (a step, a launch, a session, a fire). A mix leaves out about half of the faults
altogether: what only shows when one kind strikes alone is found as well as what needs two.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from loop.simulate.chance import stream

RATES = {
    "crash": (0.0005, 0.004),  # a process dies between any two steps: statements, transactions, launches
    "kill_shim": (0.05, 0.25),  # a session's shim is killed, its worker with it or not
    "hide": (0.4, 0.9),  # … of those: what lives on hides from the sweep, and nobody can know whether it does
    "lose_ingest": (0.05, 0.5),  # the process that should ingest an end never comes
    "stillborn": (0.01, 0.1),  # a shim dies before it claims its session
    "launch_error": (0.01, 0.1),
    "reboot": (0.0005, 0.003),  # at a look of the controller
    "step_clock": (0.001, 0.006),  # likewise; an hour at most, forwards or back
    "drift": (0.02, 0.3),  # the selector's answer has another shape, or none
    "gate_error": (0.05, 0.4),
    "busy_host": (0.02, 0.2),
    "restrain": (0.005, 0.02),  # an operator pauses, drains or freezes all, a category or a backend
    "by_hand": (0.002, 0.02),  # an operator starts something
    "reconfigure": (0.001, 0.01),
    "break_config": (0.001, 0.01),
    "race": (0.05, 0.5),  # another process writes between a pass's observation and its transaction
    "twice": (0.05, 0.3),  # a fire or a session's end is told a second time
    "outage": (0.5, 1.0),  # of the backends' pools; whether there are any
}
"""Fault -> the range from which a mix draws its rate."""


@dataclass(frozen=True, slots=True)
class Mix:
    """The rates of one run; 0 where the seed has no such fault."""

    crash: float
    kill_shim: float
    hide: float
    lose_ingest: float
    stillborn: float
    launch_error: float
    reboot: float
    step_clock: float
    drift: float
    gate_error: float
    busy_host: float
    restrain: float
    by_hand: float
    reconfigure: float
    break_config: float
    race: float
    twice: float
    outage: float

    def __str__(self) -> str:
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {rate:.3g}" for name, rate in named if rate) or "none"


NONE = Mix(**dict.fromkeys(RATES, 0.0))


def mix(seed: int) -> Mix:
    """The faults of a seed."""
    random = stream(seed, "mix")
    drawn = {name: (random.random() < 0.5, random.uniform(*bounds)) for name, bounds in RATES.items()}
    return Mix(**{name: rate if on else 0.0 for name, (on, rate) in drawn.items()})


def changes(seed: int, number: int = 0) -> list[str]:
    """The config of a seed on top of fleet.toml, and what its `number`-th reconfiguration makes of it."""
    random = stream(seed, "config")
    base = {
        "loop.policy": random.choice(["intent", "intent", "fair"]),
        "selector.on_reject": random.choice(["fallback", "fallback", "hold"]),
        "selector.max_age": random.choice(["10m", "30m"]),
    }
    random = stream(seed, "config", number)
    later = {
        "loop.slots": random.choice([2, 3, 4, 5]),
        "loop.max_starts_per_hour": random.choice([4, 12, 12]),
        "selector.fallback_slots": random.choice([1, 2]),
        "allocation.max_ratio": random.choice([1.0, 1.5, 4.0]),
        "respawn.limit": random.choice([0, 1, 2]),
    }
    return [f"{key}={value}" for key, value in {**base, **later}.items()]
