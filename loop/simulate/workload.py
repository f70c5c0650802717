"""The workload of a simulation: a TOML file that says how sessions go, what the selector says, and what breaks.

Every category has the figures of `[session]` and `[work]` unless `[categories.NAME]` has its own. `[config]` is a
loop.toml of its own, for whoever has no project yet. Durations are written like in loop.toml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from events.errors import ConfigError, UsageError
from loop.config import Section
from loop.config_file import Problems, validated
from loop.config_values import PathText, PositiveSeconds, Share, Text, name_problem
from loop.home import read_toml, resolved

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "workloads"
DEFAULT = "fleet"

Outcome = Literal["productive", "noop", "unproven", "blocked", "failed"]
"""What a modelled session comes to of itself; limits, timeouts and losses come from backends, deadlines and crashes."""
Weight = Annotated[float, Field(ge=0, le=1e9)]
Score = Annotated[float, Field(gt=0, le=1e6)]


class Histogram(Section):
    """A distribution as it was counted: `counts[i]` lie between `edges[i]` and `edges[i + 1]`, evenly."""

    edges: list[Weight]
    counts: list[Weight]

    @model_validator(mode="after")
    def _matches(self) -> Histogram:
        if len(self.edges) != len(self.counts) + 1:
            raise ValueError(
                f"{len(self.edges)} edges and {len(self.counts)} counts; n counts need n + 1 edges around them"
            )
        if any(high <= low for low, high in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges {self.edges} do not rise; write each larger than the one before")
        if not sum(self.counts):
            raise ValueError("every count is 0; give one of them a weight")
        return self

    def draw(self, random: Random) -> float:
        """One value, by two numbers of `random`, whatever it is."""
        which, where = random.random(), random.random()
        bounds = list(accumulate(self.counts))
        index = next(index for index, bound in enumerate(bounds) if which * bounds[-1] < bound)
        return self.edges[index] + where * (self.edges[index + 1] - self.edges[index])


class Outcomes(Section):
    """How often sessions come to what, in any unit."""

    productive: Weight = 0
    noop: Weight = 0
    unproven: Weight = 0
    blocked: Weight = 0
    failed: Weight = 0

    @model_validator(mode="after")
    def _some(self) -> Outcomes:
        if not sum(self.model_dump().values()):
            raise ValueError("every weight is 0; give one outcome a weight, as in { productive = 76, noop = 10 }")
        return self

    def at(self, chance: float) -> Outcome:
        """The outcome for a number of 0..1, 1 excluded."""
        names = get_args(Outcome)
        weights = [getattr(self, name) for name in names]
        at = chance * sum(weights)
        index = next(index for index, bound in enumerate(accumulate(weights)) if at < bound)
        found: Outcome = names[index]
        return found


class Session(Section):
    """`[session]`: how long sessions run (seconds), what they come to with work and without, and their grades."""

    seconds: Histogram
    outcomes: Outcomes
    without_work: Outcomes
    grades: Histogram

    @model_validator(mode="after")
    def _grades_are_shares(self) -> Session:
        _check_grades(self.grades)
        return self


class Work(Section):
    """`[work]`: in which share of the time a category has work, in spells of this mean length."""

    share: Share = 1.0
    spell: PositiveSeconds = 21_600


class CategoryModel(Section):
    """`[categories.NAME]`: what is otherwise than in `[session]` and `[work]`, and the selector's liking of it."""

    liking: Score = 1.0
    seconds: Histogram | None = None
    outcomes: Outcomes | None = None
    grades: Histogram | None = None
    work: Work | None = None

    @model_validator(mode="after")
    def _grades_are_shares(self) -> CategoryModel:
        if self.grades is not None:
            _check_grades(self.grades)
        return self


class SelectorModel(Section):
    """`[selector]`: what it says of the categories that have work.

    `uniform`: any order. `drifting`: by scores, their logarithms around that of `liking` with a deviation of `drift`
    and a memory of `memory`. `recorded`: the rankings of a store, one after the other and then again. `rejected` is the
    share of answers that cannot be read. A config with the builtin selector is served by that, and by none of these.
    """

    kind: Literal["uniform", "drifting", "recorded"] = "drifting"
    drift: Weight = 0.5
    memory: PositiveSeconds = 86_400
    rejected: Share = 0.0
    store: PathText | None = None

    @model_validator(mode="after")
    def _store_goes_with_recorded(self) -> SelectorModel:
        if (self.kind == "recorded") != (self.store is not None):
            raise ValueError('store goes with kind = "recorded"; write both: store = ".loop/loop.db", or neither')
        return self


class Trouble(Section):
    """`[outages]` of each pool and `[crashes]` of the machine: every so often on average, for so long on average."""

    every: PositiveSeconds
    lasts: PositiveSeconds


@dataclass(frozen=True, slots=True)
class Model:
    """What holds for one category."""

    liking: float
    seconds: Histogram
    outcomes: Outcomes
    grades: Histogram
    work: Work


@dataclass(frozen=True, slots=True)
class Workload:
    """A whole and valid workload. `config` has the tables of its own loop.toml, None where it brings none."""

    path: Path
    summary: str
    session: Session
    work: Work
    selector: SelectorModel
    outages: Trouble | None
    crashes: Trouble | None
    categories: Mapping[str, CategoryModel]
    config: Mapping[str, object] | None

    @property
    def store(self) -> Path | None:
        """The store whose rankings are used again."""
        return None if self.selector.store is None else resolved(self.path.parent, self.selector.store)

    def of(self, category: str) -> Model:
        """All that holds for one category."""
        own, base = self.categories.get(category) or CategoryModel(), self.session
        return Model(
            own.liking, own.seconds or base.seconds, own.outcomes or base.outcomes, own.grades or base.grades,
            own.work or self.work,
        )  # fmt: skip


class _About(Section):
    summary: Text = "a workload"


def find(name: str) -> Path:
    """The file of a workload by its path, or a shipped one by its name. Raises UsageError."""
    known = sorted(path.stem for path in SHIPPED.glob("*.toml"))
    if "/" in name or name.endswith(".toml"):
        path = resolved(Path.cwd(), name)
        if not path.exists():
            raise UsageError(f"no workload at {path}", f"shipped: {', '.join(known)}; docs/simulate.md has an example")
        return path
    if name not in known:
        raise UsageError(f"no workload is named {name!r}", f"shipped: {', '.join(known)}; or a file: ./{name}.toml")
    return SHIPPED / f"{name}.toml"


def load(path: Path) -> Workload:
    """The workload in a file. Raises ConfigError, whose message has a line for every problem."""
    tables = read_toml(path)
    problems: Problems = []
    sections = ("about", "session", "work", "selector", "outages", "crashes", "categories", "config")
    for name in tables:
        if name not in sections:
            problems.append(f"[{name[:64]}]: unknown table; known: {', '.join(sections)}")
    about = validated(_About, "about", tables.get("about", {}), problems)
    session = validated(Session, "session", tables.get("session", {}), problems)
    work = validated(Work, "work", tables.get("work", {}), problems)
    selector = validated(SelectorModel, "selector", tables.get("selector", {}), problems)
    outages, crashes = (
        validated(Trouble, name, tables[name], problems) if name in tables else None for name in ("outages", "crashes")
    )
    categories: dict[str, CategoryModel] = {}
    named = tables.get("categories", {})
    for name, table in named.items() if isinstance(named, dict) else ():
        if problem := name_problem(name):
            problems.append(f"[categories]: {problem}")
        elif found := validated(CategoryModel, f"categories.{name}", table, problems):
            categories[name] = found
    config = tables.get("config")
    if not isinstance(named, dict) or not isinstance(config, dict | None):
        problems.append("[categories] and [config]: tables are wanted: [categories.NAME], [config.loop]")
        config = None
    if problems or not (about and session and work and selector):
        lines = [f"{path}: {len(problems)} problem{'' if len(problems) == 1 else 's'}", *(f"  {p}" for p in problems)]
        raise ConfigError("\n".join(lines), f"mend the lines above; an example: {SHIPPED / DEFAULT}.toml")
    return Workload(path, about.summary, session, work, selector, outages, crashes, categories, config)


def _check_grades(grades: Histogram) -> None:
    if grades.edges[-1] > 1:
        raise ValueError(f"grades up to {grades.edges[-1]:g}; a grade is 0..1")
