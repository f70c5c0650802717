"""Targets at config load: as they are read, which of them these slots and lanes cannot meet, and what could."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from loop.commands import config as command
from loop.config import Config
from loop.config_file import parse
from loop.config_report import warnings
from loop.home import at
from loop.targets import targets

PATH = Path("/project/loop.toml")


def text_of(slots: int, categories: dict[str, dict[str, Any]], *, more: str = "", policy: str = "intent") -> str:
    lines = ["[loop]", f"slots = {slots}", f'policy = "{policy}"', "[selector]", "builtin = true", more]
    for name, keys in categories.items():
        lines += [f"[categories.{name}]", 'command = ["agent"]', *(f"{key} = {json.dumps(keys[key])}" for key in keys)]
    return "\n".join(lines)


def config_of(slots: int, categories: dict[str, dict[str, Any]], **changes: str) -> Config:
    return parse(text_of(slots, categories, **changes), PATH)


def feasible(config: Config) -> dict[str, float]:
    return {each.name: round(each.feasible, 4) for each in targets(config) if each.feasible is not None}


SKEW: dict[str, dict[str, Any]] = {"code": {"target": 0.4}, **{f"c{number}": {"target": 0.06} for number in range(10)}}


def test_a_target_beyond_its_lanes_is_told_with_the_reason_and_what_is_feasible() -> None:
    config = config_of(6, SKEW)
    [told] = warnings(config)
    assert told == (
        "categories.code.target: 40 % cannot be met while all slots are busy: it needs 2.4 of 6 slots all the time, "
        "and has 1 lane; feasible is 17 %, if sessions last equally long; lanes = 3 would do, where its sessions can "
        "run side by side"
    )
    assert feasible(config)["code"] == round(1 / 6, 4)
    assert feasible(config)["c0"] == round((1 - 1 / 6) / 10, 4), "others get what it cannot use, in proportion"


def test_the_lanes_that_are_named_make_it_feasible() -> None:
    config = config_of(6, SKEW)
    found = re.search(r"lanes = (\d+)", warnings(config)[0])
    assert found is not None
    lanes = int(found[1])
    enough = config_of(6, {**SKEW, "code": {"target": 0.4, "lanes": lanes}})
    fewer = config_of(6, {**SKEW, "code": {"target": 0.4, "lanes": lanes - 1}})
    assert (warnings(enough), feasible(enough)["code"]) == ([], 0.4)
    assert feasible(fewer)["code"] == round((lanes - 1) / 6, 4)
    assert len(warnings(fewer)) == 1


def test_fewer_slots_make_it_feasible_too() -> None:
    assert feasible(config_of(3, SKEW))["code"] == round(1 / 3, 4)
    assert warnings(config_of(2, SKEW)) == []


def test_where_all_lanes_can_always_run_that_is_the_reason() -> None:
    config = config_of(6, {"code": {"target": 0.5}, "docs": {"target": 0.3}, "news": {"target": 0.2}})
    [told] = warnings(config)
    assert "6 slots are enough for all 3 lanes to run all the time; feasible is 33 %" in told
    assert feasible(config) == {"code": 0.3333, "docs": 0.3333, "news": 0.3333}


def test_partial_targets_are_normalised_and_those_without_are_named() -> None:
    config = config_of(1, {"code": {"target": 0.3}, "docs": {"target": 0.1}, "news": {}}, policy="fair")
    assert [(each.name, each.target) for each in targets(config)] == [("code", 0.75), ("docs", 0.25), ("news", None)]
    reading, without = warnings(config)
    assert "sum to 0.40" in reading
    assert without == (
        "categories.*.target: news: without a target beside others that have one, so nothing is owed; under policy "
        "fair they come last"
    )


def test_a_target_that_only_a_hand_can_meet_is_told() -> None:
    config = config_of(1, {"code": {"target": 0.5}, "docs": {"target": 0.5, "parallel": False}})
    assert [line for line in warnings(config) if "by hand" in line] == [
        "categories.docs.target: parallel = false, so it gets starts only by hand: loop start docs"
    ]
    assert [each.feasible for each in targets(config)] == [1.0, None]


def test_targets_behind_one_shared_key_are_told() -> None:
    config = config_of(4, {name: {"target": 0.25, "locks": ["repo"]} for name in ("a", "b")} | {"c": {"target": 0.5}})
    told = "a, b share repo and run one at a time: of 4 busy slots that is 25 %, and their targets come to 50 %"
    assert any(told in line for line in warnings(config))
    alone = config_of(2, {"a": {"target": 0.5, "locks": ["repo"]}, "b": {"target": 0.5}})
    assert warnings(alone) == []


@pytest.mark.parametrize(
    ("ratio", "message"), [(1.0, "is strict"), (1.49, "is strict"), (2.0, "allows what status calls"), (1.75, None)]
)
def test_a_cap_that_starves_or_does_not_cap_is_told(ratio: float, message: str | None) -> None:
    halves = {"a": {"target": 0.5}, "b": {"target": 0.5}}
    told = warnings(config_of(1, halves, more=f"[allocation]\nmax_ratio = {ratio}"))
    assert [line.partition(":")[0] for line in told] == (["allocation.max_ratio"] if message else [])
    assert message is None or message in told[0]


def test_a_cap_without_targets_is_told() -> None:
    told = warnings(config_of(1, {"a": {}}, more="[allocation]\nmax_ratio = 1.75"))
    assert told == ["allocation.max_ratio: no category has a target, so it caps nothing"]


def test_without_targets_there_are_none_to_tell_of() -> None:
    assert targets(config_of(6, {"a": {}, "b": {}})) == []


def test_config_check_prints_the_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "loop.toml"
    path.write_text(text_of(6, {**SKEW, "news": {}, "hand": {"target": 0.0, "parallel": False}}))
    assert command.check(at(path), as_json=False) == 0
    out = capsys.readouterr().out
    assert "targets, as shares of the starts: code 40 % (feasible 17 %), c0 6 % (feasible 8 %)" in out
    assert "news none, hand 0 % (by hand only)" in out
    command.check(at(path), as_json=True)
    answer = json.loads(capsys.readouterr().out)
    found = {each["name"]: each for each in answer["targets"]}
    assert found["code"] == {"name": "code", "target": pytest.approx(0.4), "feasible": pytest.approx(1 / 6, abs=1e-5)}
    assert Fraction(sum(each["feasible"] or 0 for each in found.values())).limit_denominator(1000) == 1
