"""History stays readable: one stored example of each (type, version), for ever, read as today's shape.

The file is only ever added to. A new version of a type needs its example here and an upcaster from the one before.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from events.catalog import REGISTRY, parse
from events.upcast import UPCASTERS, upcast
from projections.state import ROUTES

CORPUS = Path(__file__).resolve().parents[1] / "fixtures" / "events.jsonl"
EXAMPLES: list[dict[str, Any]] = [json.loads(line) for line in CORPUS.read_text().splitlines()]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: f"{example['type']}/{example['version']}")
def test_a_stored_example_reads_as_todays_shape(example: dict[str, Any]) -> None:
    data = upcast(example["type"], example["version"], example["data"])
    model = parse(example["type"], data, example["private"])
    again, private = model.split()
    assert again == data
    assert private == example["private"]
    assert example["type"] in ROUTES


def test_every_version_of_every_type_has_its_example() -> None:
    stored = {(example["type"], example["version"]) for example in EXAMPLES}
    wanted = {(name, version) for name, model in REGISTRY.items() for version in range(1, model.version + 1)}
    assert stored == wanted


@pytest.mark.parametrize(("type", "version"), sorted(UPCASTERS))
@pytest.mark.parametrize("damaged", [{}, {"candidates": [1]}, {"candidates": 1}, {"categories": [], "backends": {}}])
def test_data_that_is_unlike_its_version_is_no_bug_of_ours(type: str, version: int, damaged: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        assert set(damaged) <= set(upcast(type, version, damaged))
