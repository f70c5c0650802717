"""`make agents`: install the real agents, run them under loop against a model on loopback, and count.

`--record DIR` keeps what each of them printed, for the tests that need no agent.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import install  # noqa: E402

AGENTS_OWN = ("ANTHROPIC_", "CLAUDE", "CODEX_", "OPENAI_", "GPTME_")  # variables that would lead them elsewhere


class Tally:
    """How many tests came to what."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.counts[report.outcome] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the real agents under loop, on a model server on loopback.")
    parser.add_argument("--record", type=Path, metavar="DIR", help="keep what the agents print in DIR")
    parser.add_argument("-k", metavar="WORDS", help="only these, as pytest's -k")
    asked = parser.parse_args()
    if asked.record is not None:
        os.environ["RECORD"] = str(asked.record.resolve())
    for name in [name for name in os.environ if name.startswith(AGENTS_OWN)]:
        del os.environ[name]
    tally, missing = Tally(), install.install()
    for agent, why in missing.items():
        os.environ[f"MISSING_{agent.upper()}"] = why
    words = ["-k", asked.k] if asked.k else []
    code = pytest.main([str(HERE / "real_agents.py"), "-rs", "--no-header", "-v", "--timeout=180", *words], [tally])
    counts = tally.counts
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
