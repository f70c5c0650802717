"""The vocabulary: one frozen model per event type, one registry.

A field marked `Private` goes to the event's private part (argv, paths, payload text, reasons in words), which no
projection reads and a redacted export drops; everything else goes to `data`, which is all that a fold may read. Models
validate what is written. Reading never needs them: folds work on the decoded dicts.
"""

from __future__ import annotations

from functools import cache
from json import dumps
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from events.envelope import Json

_PRIVATE = {"private": True}

PrivateText = Annotated[str | None, Field(default=None, json_schema_extra=_PRIVATE, max_length=65_536)]
PrivateList = Annotated[list[str] | None, Field(default=None, json_schema_extra=_PRIVATE)]


def _finite(value: Json) -> Json:
    """The same object; raises ValueError where JSON would lose a float in it. Only for text from outside."""
    dumps(value, allow_nan=False)
    return value


FiniteJson = Annotated[Json, AfterValidator(_finite)]
PrivateJson = Annotated[FiniteJson | None, Field(default=None, json_schema_extra=_PRIVATE)]

Rule = Literal["selected", "diversity_alternatives", "alternatives", "all_scores", "allowlist", "respawn", "manual"]
Trigger = Literal["timer", "manual", "session_end"]
Outcome = Literal[
    "productive",
    "noop",
    "unproven",
    "blocked",
    "failed",
    "limited",
    "refused",
    "timed_out",
    "stalled",
    "cancelled",
    "lost",
]


class _Part(BaseModel):
    # defer_build: a command that appends three types of event should not pay for forty validators.
    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), defer_build=True, allow_inf_nan=False
    )


class Payload(_Part):
    """What an event carries beside its envelope; subclasses name their `type` and `version`."""

    type: ClassVar[str]
    version: ClassVar[int] = 1

    def split(self) -> tuple[Json, Json | None]:
        """(data, private) as JSON-ready dicts; private is None where nothing private was given."""
        values: Json = self.__pydantic_serializer__.to_python(self, mode="json", by_alias=True)  # model_dump's core
        private: Json = {}
        for name in _private_fields(type(self)):
            value = values.pop(name)
            if value is not None:
                private[name] = value
        return values, private or None


@cache
def _private_fields(model: type[Payload]) -> tuple[str, ...]:
    return tuple(name for name, field in model.model_fields.items() if field.json_schema_extra == _PRIVATE)


# ── the loop ──────────────────────────────────────────────────────────────────────────────────────────────────────


class CategoryConfig(_Part):
    """What views and the decider read of a category; times in seconds."""

    target: float | None
    parallel: bool | Literal["alone"]
    maintenance: bool
    cooldown: float | None
    backends: list[str] | None
    lanes: int
    locks: list[str]
    evidence: str
    exit_codes: dict[str, str]
    timeout: float
    silence: float | None
    kill_on_silence: bool
    grace: float
    gate: bool
    own_command: bool
    env: list[str]
    max_runs_per_day: int | None = None
    max_tokens_per_day: int | None = None
    max_cost_per_day: float | None = None


class BackendConfig(_Part):
    pool: str
    concurrency: int | None
    max_runs_per_day: int | None
    command: bool
    env: list[str]
    max_tokens_per_day: int | None = None
    max_cost_per_day: float | None = None


class PoolConfig(_Part):
    """What the backends of a pool share; money in US dollars."""

    concurrency: int | None
    max_runs_per_day: int | None
    max_tokens_per_day: int | None
    max_cost_per_day: float | None


class SelectorConfig(_Part):
    kind: Literal["command", "builtin"]
    timeout: float
    max_age: float
    on_reject: Literal["hold", "fallback"]
    fallback_slots: int
    default_category: str | None
    aliases: dict[str, str]
    weights: dict[str, float] = {}
    learn: bool = False


class RespawnConfig(_Part):
    limit: int
    min_grade: float


class HostConfig(_Part):
    max_load_per_cpu: float | None
    min_memory_available: float | None
    min_disk_free: int | None


class LoopConfigured(Payload):
    """The effective config, whenever it differs from the one in force; defaults written out, times in seconds.

    `red_rungs`: where it raises `slots`, the rungs of the readiness ladder that were red then; no decision reads them.
    `source`: the SHA-256 of the file's text, by which a reader knows that nothing was edited since.
    """

    type = "loop.configured"
    version = 4
    hash: str
    slots: int
    every: float | None
    cron: str | None
    timezone: str | None
    jitter: float
    policy: str
    max_starts_per_hour: int
    max_starts_per_day: int | None
    stagger: float
    window: float
    max_ratio: float | None
    selector: SelectorConfig
    respawn: RespawnConfig
    host: HostConfig
    categories: dict[str, CategoryConfig]
    backends: dict[str, BackendConfig]
    pools: dict[str, PoolConfig] = {}
    red_rungs: list[str] = []
    source: str | None = None
    settings: PrivateJson


class _Mode(Payload):
    scope: Literal["all", "category", "backend"] = "all"
    name: str | None = None
    until: str | None = None
    reason: PrivateText


class LoopPaused(_Mode):
    type = "loop.paused"


class LoopResumed(_Mode):
    type = "loop.resumed"


class LoopDraining(_Mode):
    type = "loop.draining"


class LoopFrozen(_Mode):
    """Nothing starts in its scope until `loop resume --reason`; `because` is a rule of the storm guard."""

    type = "loop.frozen"
    version = 2
    because: Literal["failures", "lost", "violation"] | None = None


class OperatorRequested(Payload):
    """An operator's word, before anything is done about it. From `timer_install` on fires are awaited; after `probe`
    the backend named may be tried by one session."""

    type = "operator.requested"
    action: Literal["start", "stop", "cancel", "resume", "timer_install", "timer_remove", "probe"]
    task: str | None = None
    backend: str | None = None
    kill: bool = False
    reason: PrivateText


# ── passes ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TickStarted(Payload):
    """A pass. `boottime` and `awake` (CLOCK_MONOTONIC, which stands still while the host is suspended) are in
    microseconds; `missed` counts the fires that this one stands in for."""

    type = "tick.started"
    trigger: Trigger
    pid: int
    start: int | None
    boot: str
    boottime: int
    awake: int | None = None
    timer: str | None = None
    nominal: str | None = None
    missed: int = 0
    ended: str | None = None


class TickSkipped(Payload):
    type = "tick.skipped"
    trigger: Trigger
    reason: Literal["overlap", "used", "paused", "draining", "frozen", "invalid_config", "expect", "stopped"]
    timer: str | None = None
    nominal: str | None = None
    text: PrivateText


class TickFinished(Payload):
    type = "tick.finished"
    started: int
    failed: int
    seconds: float


class RankingEntry(_Part):
    category: str
    rule: Rule
    task: str | None = None
    score: float | None = None


class SelectionMade(Payload):
    """The selector's answer, normalised; `digest` is the SHA-256 of the payload as it came.

    `plateau`: the category that the built-in selector saw crowd out the others; `empty`: those it found without work.
    """

    type = "selection.made"
    version = 3
    source: Literal["command", "builtin", "payload"]
    tier: int | None
    ranking: list[RankingEntry]
    exit_code: int | None = None
    seconds: float | None = None
    digest: str | None = None
    plateau: str | None = None
    empty: list[str] = Field(default_factory=list)
    warnings: PrivateList
    payload: PrivateText


class SelectionRejected(Payload):
    """An answer that cannot be read: the reason, and the offending keys."""

    type = "selection.rejected"
    source: Literal["command", "builtin", "payload"]
    reason: str
    keys: list[str]
    exit_code: int | None = None
    seconds: float | None = None
    digest: str | None = None
    text: PrivateText
    payload: PrivateText


class GateAnswered(Payload):
    """What the gate of the envelope's category said; `text` is what it printed, or what went wrong."""

    type = "gate.answered"
    answer: Literal["work", "no_work", "error"]
    exit_code: int | None = None
    seconds: float
    text: PrivateText


class HostMeasured(Payload):
    """The figures that the config bounds; null are the others, and those that could not be had: `text` says why."""

    type = "host.measured"
    load_per_cpu: float | None = None
    memory_available: float | None = None
    disk_free: int | None = None
    text: PrivateText


class Slots(_Part):
    capacity: int | None
    live: int
    free: int


class Choice(_Part):
    category: str
    task: str
    rule: Rule
    backend: str
    keys: list[str]
    chain: int
    parent: str | None


class Candidate(_Part):
    category: str
    rank: int | None
    rule: Rule | None
    score: int | None
    verdict: str
    also: list[str]
    detail: Json
    backends: dict[str, str] | None = None


class Idle(_Part):
    slots: int
    reason: str


class Account(_Part):
    """One category's account in the credit ledger, in millionths of a slot; the terms are explained in `loop.fair`."""

    weight: int
    lanes: int
    seconds: int
    share: int
    claim: int
    credit: int
    moved: int
    charged: int
    after: int


class Ledger(_Part):
    slots: int
    accounts: dict[str, Account]
    forfeited: dict[str, int]


class FanoutDecided(Payload):
    """A decision in full: what was considered, what was chosen, and why every other slot stayed idle.

    `ledger` has the terms of policy `fair`; none under another policy, or where nobody was asked for. A candidate that
    was chosen, or that no backend could take, has every backend that was considered for it, with a word on each.
    """

    type = "fanout.decided"
    version = 3
    decider: int
    basis: int
    now: str
    policy: str
    slots: Slots
    chosen: list[Choice]
    candidates: list[Candidate]
    idle: list[Idle]
    ledger: Ledger | None


# ── locks ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Lock(Payload):
    key: str
    token: int
    imported: bool = False


class Foreign(_Part):
    """What another program's lock history says of a hold: its process, and when it let go (ISO, to the second).

    `until` is null where the history does not tell: it may have been killed, or hold on.
    """

    pid: int
    until: str | None


class LockAcquired(_Lock):
    """A key granted to the session of the envelope, under its fencing token.

    Imported, it is an observation of another program's lock: `at` is the observation's own time, the session stands for
    the hold, the token is the position of this very event. `script` and `description` are that program's words.
    """

    type = "lock.acquired"
    version = 2
    foreign: Foreign | None = None
    script: PrivateText = None
    description: PrivateText = None


class LockRefused(_Lock):
    """The kernel lock of a granted key was not to be had."""

    type = "lock.refused"
    reason: str
    text: PrivateText


class LockReleased(_Lock):
    """A key let go by its holder. Imported, `token` is the position of the acquire, or its own where none is told."""

    type = "lock.released"
    how: Literal["clean", "lost", "forced", "voided"]


class Interval(_Part):
    """A physical hold of one key on CLOCK_BOOTTIME, in nanoseconds of the boot named."""

    boot: str
    from_ns: int
    to_ns: int


# ── sessions ──────────────────────────────────────────────────────────────────────────────────────────────────────


class SessionRequested(Payload):
    """A grant; its position is the session's fencing token. `deadline` is an ISO time, `timeout` seconds.

    `resumes` is the session whose conversation it goes on with, by the agent's own name for that.
    """

    type = "session.requested"
    version = 2
    task: str
    backend: str
    pool: str
    keys: list[str]
    chain: int
    parent: str | None
    rule: Rule
    trigger: Trigger
    timeout: float
    deadline: str
    resumes: str | None = None
    argv: PrivateList
    cwd: PrivateText


class SessionStarted(Payload):
    type = "session.started"
    pid: int
    start: int | None
    shim_pid: int
    shim_start: int | None
    boot: str


class SessionSpawnFailed(Payload):
    """No worker ever ran: a precondition, a refused lock, a missing command, or a request that was voided."""

    type = "session.spawn_failed"
    code: str
    stage: str
    held: dict[str, Interval] = {}
    text: PrivateText


class _Watch(Payload):
    by: str
    why: str


class SessionAdopted(_Watch):
    type = "session.adopted"


class SessionWarned(_Watch):
    type = "session.warned"


class SessionStopping(_Watch):
    type = "session.stopping"


class Evidence(_Part):
    kind: Literal["claimed", "observed"]
    what: str


class SessionEnded(Payload):
    """The end of a worker. `proved` says whether the outcome may earn a respawn; `seconds` is awake time.

    `to_grade`: a grader is asked now, and `session.graded` or `session.ungraded` will say what it answered.
    """

    type = "session.ended"
    version = 2
    outcome: Outcome
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    grade: float | None = None
    proved: bool = False
    seconds: float | None
    evidence: Evidence | None = None
    usage: FiniteJson | None = None
    resume_token: str | None = None
    done_category: str | None = None
    done_task: str | None = None
    resets_at: str | None = None
    cpu_seconds: float | None = None
    max_rss_kb: int | None = None
    output_bytes: int | None = None
    stragglers: int = 0
    to_grade: bool = False
    held: dict[str, Interval] = {}
    summary: PrivateText
    text: PrivateText


class SessionLost(Payload):
    """Nobody knows how it ended: the shim died, or the machine did. `resume_token` is the agent's own name for it."""

    type = "session.lost"
    version = 2
    why: str
    resume_token: str | None = None
    held: dict[str, Interval] = {}


class SessionGraded(Payload):
    """A grade (0..1) given afterwards; it counts in place of the one that the session claimed."""

    type = "session.graded"
    grade: float
    source: str
    text: PrivateText


class SessionUngraded(Payload):
    """A grader gave no grade: `code` says why. What the session claimed still counts."""

    type = "session.ungraded"
    code: str
    source: str
    text: PrivateText


# ── backends ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Pool(Payload):
    pool: str
    source: str


class BackendLimited(_Pool):
    """The pool refuses until `until` (ISO), or for an unknown time where that is null."""

    type = "backend.limited"
    until: str | None = None


class BackendProbed(_Pool):
    type = "backend.probed"


class BackendRestored(_Pool):
    type = "backend.restored"


# ── what was seen ─────────────────────────────────────────────────────────────────────────────────────────────────


class ViolationDetected(Payload):
    type = "violation.detected"
    kind: str
    key: str | None = None
    token: int | None = None
    expected: str | None = None
    observed: str | None = None
    text: PrivateText


class ClockStepped(Payload):
    """The wall clock moved against boot time by `seconds` (negative: backwards)."""

    type = "clock.stepped"
    expected: str
    observed: str
    seconds: float


class OutputRemoved(Payload):
    """The run directory of a session that is over was given up; its events stay. `bytes` is what it took on disk."""

    type = "output.removed"
    why: Literal["age", "size"]
    bytes: int


class HostSuspended(Payload):
    """Of the time since the last pass the host slept `seconds`: deadlines and silence of sessions did not run."""

    type = "host.suspended"
    seconds: float


class ControllerStarted(Payload):
    type = "controller.started"
    pid: int
    start: int | None
    boot: str
    release: str


class ControllerStopped(Payload):
    type = "controller.stopped"
    pid: int
    why: str


class _Notice(Payload):
    """A run of the notify command: of which kind and subject (none: many at once), up to which position."""

    kind: str
    about: int | None = None
    subject: str | None = None


class NoticeSent(_Notice):
    type = "notice.sent"
    version = 2


class NoticeFailed(_Notice):
    type = "notice.failed"
    version = 2
    text: PrivateText


class StoreMigrated(Payload):
    """A schema step; the one at position 1 names the store for good."""

    type = "store.migrated"
    store: str
    schema_from: int
    schema_to: int
    sqlite: str
    release: str


EVENTS: tuple[type[Payload], ...] = (
    LoopConfigured,
    LoopPaused,
    LoopResumed,
    LoopDraining,
    LoopFrozen,
    OperatorRequested,
    TickStarted,
    TickSkipped,
    TickFinished,
    SelectionMade,
    SelectionRejected,
    GateAnswered,
    HostMeasured,
    FanoutDecided,
    LockAcquired,
    LockRefused,
    LockReleased,
    SessionRequested,
    SessionStarted,
    SessionSpawnFailed,
    SessionAdopted,
    SessionWarned,
    SessionStopping,
    SessionEnded,
    SessionLost,
    SessionGraded,
    SessionUngraded,
    BackendLimited,
    BackendProbed,
    BackendRestored,
    ViolationDetected,
    ClockStepped,
    OutputRemoved,
    HostSuspended,
    ControllerStarted,
    ControllerStopped,
    NoticeSent,
    NoticeFailed,
    StoreMigrated,
)

REGISTRY: dict[str, type[Payload]] = {model.type: model for model in EVENTS}


def parse(type: str, data: dict[str, Any], private: dict[str, Any] | None = None) -> Payload:
    """The model of a current event from its two parts; KeyError for an unknown type, ValidationError for a bad one."""
    return REGISTRY[type].model_validate({**data, **(private or {})})
