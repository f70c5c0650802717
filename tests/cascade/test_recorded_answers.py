"""What a pass records of the built-in selector's answer: its alarm for the folds, and enough to make it again."""

from __future__ import annotations

from pathlib import Path

import orjson
from given import Story, configured, given, over, running

from events.catalog import SelectionMade
from loop.cascade.payload import derived
from loop.cascade.tasks import Files, Task
from loop.config import Config
from loop.config_file import parse
from loop.observe import PAYLOAD_KEPT, ask_selector
from projections.view import View


def config(*names: str) -> Config:
    tables = "".join(f'[categories.{name}]\ncommand = ["agent"]\n' for name in names)
    return parse(f"[selector]\nbuiltin = true\n{tables}", Path("/project/loop.toml"))


def asked(names: tuple[str, ...], view: View, *tasks: Task) -> SelectionMade:
    made = ask_selector(config(*names), view, {}, dry_run=False, files=Files(tasks))
    assert isinstance(made, SelectionMade)
    return made


def one_after_the_other(story: Story, *categories: str) -> Story:
    for number, category in enumerate(categories):
        story.happens(running(f"s{number}", category), over(f"s{number}"))
    return story


def test_the_plateau_it_saw_is_a_fact_that_folds_may_read() -> None:
    names = ("code", "docs", "news")
    view = one_after_the_other(given(configured(categories=names)), *["code", "docs"] * 6).view()
    made = asked(names, view)
    assert made.plateau in ("code", "docs")
    assert made.split()[0]["plateau"] == made.plateau
    calm = one_after_the_other(given(configured(categories=names)), *names * 4).view()
    assert asked(names, calm).plateau is None


def test_an_answer_too_long_to_be_kept_is_kept_as_what_makes_it_again() -> None:
    names = tuple(f"c{number:03}" for number in range(120))
    view = given(configured(categories=names)).view()
    made = asked(names, view, *(Task(f"{name}-task", "backlog", tags=(name,)) for name in names))
    assert made.payload is not None
    assert len(made.payload) <= PAYLOAD_KEPT
    again = derived(view, orjson.loads(made.payload))
    assert len(again["terms"]) == len(made.ranking) == 120
    assert again["all_scores"][names[0]] > 0
