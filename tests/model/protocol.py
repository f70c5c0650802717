"""The protocol of locks and processes as a small state machine: docs/sessions.md with everything left out that is not
about who may run.

Two keys, two controllers, three sessions that want them: `s0` the one, `s1` the other, `s2` both, granted in this order
as the log allows. Any controller may crash between any two of its steps and begin anew; any shim or worker may be
killed at any instant; a worker may leave an escapee behind that closed the inherited lock; a dead shim's pid may be
reused; the host may be suspended. A crash or a kill is a step like any other: every interleaving is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

TWO_KEYS = ((0,), (1,), (0, 1))  # of s0, s1, s2; a session's token is its number
ONE_KEY = ((0,), (0,))  # enough to see a broken protocol break
CONTROLLERS = (0, 1)
HOLDING = frozenset({"locked", "witnessed", "running", "exited", "swept", "closed"})  # shims with the kernel lock
GONE = frozenset({"dead", "reused"})  # by pid, start time and boot id
UNBORN = frozenset({"none", "done", *GONE})


@dataclass(frozen=True)
class Rules:
    """The protocol; every False is a mistake that somebody has made."""

    basis: str = "flock"  # or "lease": a row with a time; "pid": a row with a pid, written after the spawn
    inherit: bool = True  # the worker inherits the lock
    sweep: bool = True  # whoever believes a key free has looked for the session's processes first
    claim: bool = True  # shim and reconciler link one name before they act
    identity: bool = True  # a pid is nothing without start time and boot id
    witness_first: bool = True  # the end of a hold is in the witness before the log gives the key away


class Session(NamedTuple):
    log: str = "none"  # live, over
    launch: str = "none"  # pending0, spawned0 (by controller 0), noted; orphaned: controller 0 crashed before that
    claim: str = "none"  # shim, reconciler
    shim: str = "none"  # new, claimed, HOLDING, freed, done, GONE
    worker: bool = False
    escapee: bool = False
    lapsed: bool = False  # its lease, while the host slept


OVER = Session(log="over", launch="noted", claim="shim", shim="done")


class World(NamedTuple):
    keys: tuple[tuple[int, ...], ...]
    sessions: tuple[Session, ...]
    burying: tuple[tuple[int, str], ...] = ((-1, ""),) * len(CONTROLLERS)  # session and stage, by controller
    witness: tuple[tuple[int, int], ...] = ((-1, -1),) * 2  # by key: the token of the open hold, the last token
    wrong: str = ""

    def put(self, number: int, **fields: object) -> World:
        changed = self.sessions[number]._replace(**fields)  # type: ignore[arg-type]
        is_past = changed.log == "over" and changed.shim in UNBORN and not changed.launch.startswith("pending")
        if is_past and not (changed.worker or changed.escapee):
            changed = OVER  # how it came to that makes no difference any more
        return self._replace(sessions=(*self.sessions[:number], changed, *self.sessions[number + 1 :]))

    def bury(self, controller: int, number: int, stage: str) -> World:
        burying = [*self.burying]
        burying[controller] = (number, stage) if stage else (-1, "")
        return self._replace(burying=tuple(burying))

    def acquired(self, number: int) -> World:
        witness, wrong = [*self.witness], self.wrong
        for key in self.keys[number]:
            open_token, last = witness[key]
            if open_token >= 0 or number <= last:
                wrong = "the witness has two holds and no end between"
            witness[key] = (number, max(last, number))
        return self._replace(witness=tuple(witness), wrong=wrong)

    def closed(self, number: int) -> World:
        witness = [(-1, last) if open_token == number else (open_token, last) for open_token, last in self.witness]
        return self._replace(witness=tuple(witness))


def start(keys: tuple[tuple[int, ...], ...]) -> World:
    """A log that is empty; `keys` are those of each session to come."""
    return World(keys, (Session(),) * len(keys))


def violation(world: World) -> str | None:
    """What must never be."""
    if world.wrong:
        return world.wrong
    active = [number for number, each in enumerate(world.sessions) if each.worker or each.escapee]
    for one in active:
        for other in active:
            if one < other and set(world.keys[one]) & set(world.keys[other]):
                return f"s{one} and s{other} run under one key"
    return None


def at_rest(world: World) -> bool:
    """Every session asked for has come to its end, and every hold to its own."""
    return all(each.log == "over" for each in world.sessions) and all(hold < 0 for hold, _ in world.witness)


def is_free(world: World, rules: Rules, number: int) -> bool:
    """Whether a flock on every key of a session would succeed, for a process that is not part of it."""
    for other, each in enumerate(world.sessions):
        holds = each.shim in HOLDING or (rules.inherit and each.worker)
        if holds and set(world.keys[other]) & set(world.keys[number]):
            return False
    held = (other for other, stage in world.burying if stage)
    return not any(set(world.keys[other]) & set(world.keys[number]) for other in held)


def steps(world: World, rules: Rules) -> Iterator[tuple[str, World]]:
    """Everything that can happen next, by name."""
    if rules.basis == "lease" and any(each.log == "live" and not each.lapsed for each in world.sessions):
        lapsed = (each._replace(lapsed=each.log == "live") for each in world.sessions)
        yield "SUSPEND: every lease lapses", world._replace(sessions=tuple(lapsed))
    for controller in CONTROLLERS:
        yield from controller_steps(world, rules, controller)
    for number, each in enumerate(world.sessions):
        yield from shim_steps(world, rules, number, each)
        yield from worker_steps(world, number, each)


def controller_steps(world: World, rules: Rules, controller: int) -> Iterator[tuple[str, World]]:
    who, sessions = f"controller {controller}", world.sessions
    next_one = next((number for number, each in enumerate(sessions) if each.log == "none"), None)
    if next_one is not None:
        live = {key for number, each in enumerate(sessions) if each.log == "live" for key in world.keys[number]}
        if not live & set(world.keys[next_one]):
            yield f"{who} grants s{next_one}", world.put(next_one, log="live", launch=f"pending{controller}")
    mine = (f"pending{controller}", f"spawned{controller}")
    if world.burying[controller][1] or any(each.launch in mine for each in sessions):
        crashed = world.bury(controller, -1, "")
        for number, each in enumerate(sessions):
            if each.launch in mine:
                crashed = crashed.put(number, launch="orphaned")
        yield f"{who} CRASHES", crashed
    for number, each in enumerate(sessions):
        if each.launch == mine[0]:
            yield f"{who} spawns the shim of s{number}", world.put(number, launch=mine[1], shim="new")
        elif each.launch == mine[1]:
            yield f"{who} notes the shim of s{number}", world.put(number, launch="noted")
        if each.log == "live" and not world.burying[controller][1]:
            yield from reconcile_steps(world, rules, controller, number, each)
    yield from bury_steps(world, rules, controller)


def reconcile_steps(
    world: World, rules: Rules, controller: int, number: int, each: Session
) -> Iterator[tuple[str, World]]:
    """One look of a reconciler at one session that lives in the log."""
    who, over = f"controller {controller}", world.put(number, log="over")
    if rules.basis == "lease":
        if each.lapsed or each.shim == "done":
            yield f"{who} finds the lease of s{number} lapsed", over
        return
    never_noted = each.launch == "orphaned"
    if rules.basis == "pid":
        if each.shim == "done" or never_noted or (each.launch == "noted" and each.shim in GONE):
            yield f"{who} finds no process of s{number}", over
        return
    if each.shim == "done":
        yield f"{who} ingests s{number}", over
    elif each.claim == "reconciler":
        yield f"{who} voids s{number}", over
    elif each.claim == "none" and (never_noted or (each.launch == "noted" and each.shim in GONE)):
        if rules.claim:
            yield f"{who} claims s{number}", world.put(number, claim="reconciler")
        else:
            yield f"{who} voids s{number}", over
    elif each.claim == "shim" and each.shim in GONE:
        if each.shim == "reused" and not rules.identity:
            yield f"{who} signals the pid of s{number}'s shim", world._replace(wrong="a stranger was signalled")
        if rules.sweep and (each.worker or each.escapee):
            yield f"{who} ends the processes of s{number}", world.put(number, worker=False, escapee=False)
        if is_free(world, rules, number):
            yield f"{who} locks the keys of s{number}", world.bury(controller, number, "holds")


def bury_steps(world: World, rules: Rules, controller: int) -> Iterator[tuple[str, World]]:
    """A reconciler that holds every key of a session whose shim is gone."""
    who, (number, stage) = f"controller {controller}", world.burying[controller]
    if not stage:
        return
    each = world.sessions[number]
    over = world.put(number, log="over")
    if stage == "holds":
        if rules.sweep and (each.worker or each.escapee):
            yield f"{who} finds processes of s{number} and lets go", world.bury(controller, -1, "")
        elif rules.witness_first:
            yield f"{who} closes the witness of s{number}", world.closed(number).bury(controller, number, "closed")
        else:
            yield f"{who} says that s{number} is lost", over.bury(controller, number, "said")
    elif stage == "closed":
        yield f"{who} says that s{number} is lost", over.bury(controller, number, "said")
    else:
        after = world if rules.witness_first else world.closed(number)
        yield f"{who} lets go of the keys of s{number}", after.bury(controller, -1, "")


def shim_steps(world: World, rules: Rules, number: int, each: Session) -> Iterator[tuple[str, World]]:
    """The shim of one session, in the order of docs/sessions.md."""
    who = f"shim {number}"
    if each.shim == "dead":
        yield f"the pid of {who} is REUSED", world.put(number, shim="reused")
    if each.shim in UNBORN:
        return
    yield f"{who} is KILLED", world.put(number, shim="dead")
    if each.shim == "new":
        if each.claim == "none" or not rules.claim:
            yield f"{who} claims", world.put(number, shim="claimed", claim="shim")
        else:
            yield f"{who} comes too late", world.put(number, shim="dead")
    elif each.shim == "claimed":
        if rules.basis != "flock":
            yield f"{who} goes on", world.put(number, shim="witnessed")
        elif is_free(world, rules, number):
            yield f"{who} locks", world.put(number, shim="locked")
        else:
            yield f"{who} is refused", world.put(number, shim="freed")
    elif each.shim == "locked":
        if any(last >= number for _, last in (world.witness[key] for key in world.keys[number])):
            yield f"{who} is overtaken", world.put(number, shim="freed")
        else:
            yield f"{who} writes the witness", world.acquired(number).put(number, shim="witnessed")
    elif each.shim == "witnessed":
        started = world.put(number, shim="running", worker=True)
        if each.log == "over" and rules.basis == "flock":  # the others go on to what is worse
            started = started._replace(wrong="a worker began whose session the log had ended")
        yield f"{who} starts its worker", started
    elif each.shim == "running":
        if not each.worker:
            yield f"{who} records the exit", world.put(number, shim="exited")
    elif each.shim == "exited":
        yield f"{who} drains", world.put(number, shim="swept", escapee=each.escapee and not rules.sweep)
    elif each.shim == "swept":
        yield f"{who} closes the witness", world.closed(number).put(number, shim="closed")
    elif each.shim == "closed":
        yield f"{who} unlocks", world.put(number, shim="freed")
    elif each.shim == "freed":
        yield f"{who} has ended", world.put(number, shim="done")


def worker_steps(world: World, number: int, each: Session) -> Iterator[tuple[str, World]]:
    if each.worker:
        yield f"worker {number} ends or is KILLED", world.put(number, worker=False)
        if not each.escapee:
            yield f"worker {number} leaves an ESCAPEE without the lock", world.put(number, escapee=True)
    if each.escapee:
        yield f"escapee {number} ends", world.put(number, escapee=False)
