"""The selector of the demo: prints one JSON object that says which categories are worth starting now, best first.

It looks at what there is: the open tasks in `tasks/`, and what each category was given so far (`loop status --json`).
While a task is open, every second answer is of Tier 1: that task, and the others as diversity alternatives. The answers
between are the diversity payload: a score for each category by how far it is behind its target.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

LAST = 0.01  # the score of a category without a target, and the distance of all others from zero


def scores(report: dict[str, Any]) -> dict[str, float]:
    """Category -> how many starts it is behind its target, moved so that all scores are positive; LAST without one."""
    sections = tomllib.loads(Path("loop.toml").read_text("utf-8"))["categories"]
    had = {line["name"]: line["spawned"] for line in report["categories"]}
    starts = 1 + sum(had.values())
    behind = {name: it["target"] * starts - had.get(name, 0) for name, it in sections.items() if "target" in it}
    least = min(behind.values())
    return {name: round(behind[name] - least + 2 * LAST, 3) if name in behind else LAST for name in sections}


def main() -> None:
    """Print the answer."""
    status = [sys.executable, "-P", "-m", "cli", "status", "--json"]
    report = json.loads(subprocess.run(status, check=True, capture_output=True).stdout)
    scored = scores(report)
    tasks = sorted(Path("tasks").glob("*.json"))
    if tasks and report["selection"]["tier"] != 1:
        category = json.loads(tasks[0].read_text("utf-8"))["category"]
        others = sorted(scored, key=lambda name: -scored[name])
        answer = {
            "tier": 1,
            "selected": {"id": tasks[0].stem, "category": category},
            "diversity_alternatives": [{"category": name} for name in others if name != category],
        }
    else:
        answer = {"tier": 3, "all_scores": scored}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
