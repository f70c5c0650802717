"""`loop select` as a whole process with a thousand task files, against one that only imports sqlite3 and rich's table.

`LOOP_BENCH_MILLION` names a store that the bench `million` has left; with it the log has a million events.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter

from loop.home import Home, at
from tests.bench.history import CATEGORIES, store
from tests.bench.measure import Goal, Line, environment, paired
from tests.bench.status import LOOP, PEER

EVENTS = 100_000
TASKS = 1_000
ROUNDS = 15


def bench(directory: Path) -> Iterator[Line]:
    kept = os.environ.get("LOOP_BENCH_MILLION")
    home = at(Path(kept) / "loop.toml") if kept else store(directory, EVENTS)
    env = environment(directory)

    def milliseconds(argv: tuple[str, ...]) -> float:
        begun = perf_counter()
        subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (perf_counter() - begun) * 1e3

    project = _with_tasks(home, directory / "selecting")
    for words in (("select",), ("select", "--json")):
        name = f"loop {' '.join(words)}, {TASKS:,} tasks, {'a million' if kept else f'{EVENTS:,}'} events"
        argv = (*LOOP, "-C", str(project), *words)
        ours, peer = partial(milliseconds, argv), partial(milliseconds, PEER)
        yield paired(name, "ms", ROUNDS, ours, peer, Goal("ratio", "<", 3))


def _with_tasks(home: Home, project: Path) -> Path:
    """A project with the store's log and task files; one pass by its config makes that the config in force."""
    shutil.copytree(home.root, project)
    chance = random.Random(5)
    (project / "tasks").mkdir()
    for number in range(TASKS):
        lines = [
            "---", f"state: {chance.choice(('active', 'backlog', 'backlog', 'done', 'waiting'))}",
            "created: 2026-05-01T10:00:00+02:00", f"priority: {chance.choice(('low', 'medium', 'high'))}",
            f"tags: [{chance.choice(list(CATEGORIES))}, agents]", f"depends: [task-{chance.randrange(TASKS)}]",
            'next_action: "Write it down: then do it"', "---", f"# Task {number}", "", "What there is to do. " * 40,
        ]  # fmt: skip
        (project / "tasks" / f"task-{number}.md").write_text("\n".join(lines))
    config = project / "loop.toml"
    config.write_text(config.read_text().replace('command = ["./selector", "--json"]', "builtin = true"))
    subprocess.run((*LOOP, "-C", str(project), "pause", "--reason", "a bench"), check=True, capture_output=True)
    subprocess.run((*LOOP, "-C", str(project), "tick"), check=True, capture_output=True)
    return project
