"""What a shim runs last, in a fresh interpreter: ingest its run directory, have it graded, then the session-end pass.

Run by path (`python -I …/end.py RUN_DIR`), so that it finds its own package wherever that is installed. Whatever fails
here is written to `end.log` and made good by the next pass or the controller's next look.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loop.home import Home
    from loop.journal import Journal
    from loop.sessions import rundir

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main(run_dir: str) -> int:
    """Ingest and decide; the exit code is for end.log's reader only."""
    from events.errors import LoopError
    from loop import home
    from loop.alarm import alarmed
    from loop.controller import Loop
    from loop.notices import announcing
    from loop.sessions import ingest, rundir
    from loop.sessions.faultpoint import faultpoint

    spec = rundir.read_spec(run_dir)
    if spec is None or spec["config"] is None:
        print(f"{run_dir}: no spec, nothing to do", file=sys.stderr)
        return 1
    try:
        project = home.at(Path(spec["config"]))
        with alarmed(project, os.environ), Loop(project, os.environ) as loop, announcing(loop):
            ingest.ingest(loop.journal, run_dir)
            faultpoint("end.ingested")
            _grade(loop.journal, project, spec, os.environ)
            loop.session_ended(spec["session"])
    except (LoopError, OSError, rundir.RunDirError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _grade(journal: Journal, project: Home, spec: rundir.Spec, environ: Mapping[str, str]) -> None:
    """Ask its grader, if it has one. A config that is invalid by now has no variables for it."""
    from events.errors import ConfigError
    from loop.sessions.faultpoint import faultpoint
    from loop.sessions.grading import grade

    if spec.get("grader") is None:
        return
    env: dict[str, str] = {}
    try:
        from loop.config_file import load, session_env

        env = session_env(load(project.config), spec["category"], spec["backend"])
    except (ConfigError, KeyError) as error:
        print(f"the grader runs without env: {error}", file=sys.stderr)
    if grade(journal, spec, environ, env):
        faultpoint("end.graded")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
