"""Seeds in order: `python tests/dst/dst_run.py 1-200`, or single ones: `python tests/dst/dst_run.py 17 23`.

Prints one line a failing seed, and at last `N passed, M failed`; exit code 1 if any failed.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT)]

from dst_faults import mix  # noqa: E402
from dst_world import World  # noqa: E402

SEEDS = Path(__file__).with_name("seeds.txt")


def kept() -> list[int]:
    """The seeds that failed once, in the order of the file."""
    lines = SEEDS.read_text("utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def failure(seed: int) -> str | None:
    """What is wrong with a seed's run, with its faults and the command that runs it again; None where nothing is."""
    try:
        World(seed).run()
    except Exception as error:  # whatever escapes is the finding
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        return f"seed {seed}: {told}\n  faults: {mix(seed)}\n  again: .venv/bin/python tests/dst/dst_run.py {seed}"
    return None


def failures(seeds: Iterable[int]) -> list[str]:
    return [found for seed in seeds if (found := failure(seed)) is not None]


def _seeds(words: list[str]) -> Iterator[int]:
    for word in words:
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


def main(words: list[str]) -> int:
    seeds = list(_seeds(words)) or kept()
    begun, failed = time.monotonic(), 0
    for seed in seeds:
        if (found := failure(seed)) is not None:
            failed += 1
            print(found, flush=True)
    print(f"{time.monotonic() - begun:.1f} s", file=sys.stderr)
    print(f"{len(seeds) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
