"""What happens to the processes of a run: kills, stops and more passes, in an order that the seed decides.

Its deck holds every deed; it is shuffled, dealt out and shuffled again, so that none is left to luck. A deed that finds
no victim comes up again later. Only processes of the arena's own run are ever signalled, by pid and start time.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.torture.arena import Arena, Command
from tests.torture.processes import Process, send

KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
DEEDS = {
    "kill controller": ("controller", KILL), "kill pass": ("pass", KILL), "kill shim": ("shim", KILL),
    "kill worker": ("worker", KILL), "stop controller": ("controller", STOP), "stop pass": ("pass", STOP),
    "stop shim": ("shim", STOP), "stop worker": ("worker", STOP),
}  # fmt: skip
PASSES = (("tick",), ("tick", "--timer"), ("tick", "--timer"), ("tick",))
PAUSE = 0.3  # seconds between two deeds, on average
STOPPED = (0.1, 3.0)  # seconds from SIGSTOP to SIGCONT
AT_ONCE = 4  # passes of our own that may run at the same time
RESUME_EVERY = 4.0  # seconds; so many shims die here that the storm guard freezes the loop, which is right of it


@dataclass(slots=True)
class Monkey:
    arena: Arena
    chance: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    deck: list[str] = field(default_factory=list)
    stopped: list[tuple[float, Process]] = field(default_factory=list)
    passes: list[Command] = field(default_factory=list)
    controller: Command | None = None
    controller_at: float = 0.0
    resume_at: float = 0.0
    resumes: list[Command] = field(default_factory=list)

    def rage(self, seconds: float) -> None:
        """For so many seconds; then whoever was stopped goes on, and nobody else is hurt."""
        until = time.monotonic() + seconds
        try:
            while (now := time.monotonic()) < until:
                self._keep_controller(now)
                self._let_go(now)
                self._resume(now)
                self._next()
                time.sleep(min(self.chance.expovariate(1 / PAUSE), 2.0))
        finally:
            self._let_go(float("inf"))

    def _keep_controller(self, now: float) -> None:
        """`loop run` comes back, as under a service manager, a moment after it was killed."""
        if self.controller is not None and self.controller.ended():
            self.controller, self.controller_at = None, now + self.chance.uniform(0.1, 1.5)
        if self.controller is None and now >= self.controller_at:
            self.controller = self.arena.start("run", "-q")

    def _let_go(self, now: float) -> None:
        for at, process in self.stopped:
            if at <= now:
                send(process, CONT)
        self.stopped = [(at, process) for at, process in self.stopped if at > now]

    def _resume(self, now: float) -> None:
        """The operator, who looks by every few seconds; one at a time."""
        if now >= self.resume_at and all(command.ended() for command in self.resumes):
            self.resume_at = now + RESUME_EVERY
            self.resumes = [self.arena.start("resume", "--reason", "torture")]

    def _next(self) -> None:
        if not self.deck:
            self.deck = [*DEEDS, *("pass" for _ in PASSES)]
            self.chance.shuffle(self.deck)
        deed = self.deck.pop()
        if deed == "pass":
            self._start_pass()
        elif not self._strike(deed):
            self.deck.insert(0, deed)

    def _start_pass(self) -> None:
        self.passes = [command for command in self.passes if not command.ended()]
        if len(self.passes) < AT_ONCE:
            self.passes.append(self.arena.start(*self.chance.choice(PASSES)))
            self.struck["pass started"] += 1

    def _strike(self, deed: str) -> bool:
        role, number = DEEDS[deed]
        victims = self.arena.processes()[role]
        if not victims:
            return False
        victim = self.chance.choice(victims)
        ours = next((command for command in self.arena.started if command.popen.pid == victim.pid), None)
        if ours is not None and number == KILL:
            if ours in self.resumes:
                return False  # a person would say it again
            ours.killed = True
        if not send(victim, number):
            return False
        if number == STOP:
            self.stopped.append((time.monotonic() + self.chance.uniform(*STOPPED), victim))
        self.struck[deed] += 1
        return True
