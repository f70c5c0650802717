"""Going on with a conversation that was cut off: which one, and in what words."""

from __future__ import annotations

from collections.abc import Mapping

from events.envelope import to_micros
from loop.command import render
from loop.config import Config
from projections.resumes import CutOff
from projections.state import State

GO_ON = "You were cut off before this was done. Go on where you stopped; this is what was asked:\n\n"


def to_resume(
    state: State, config: Config, category: str, task: str, backend: str, now: int, values: Mapping[str, str]
) -> CutOff | None:
    """The newest conversation of this category, task and backend that a session may go on with at `now`; None: anew.

    At most `resume.limit` sessions in a row go on with one, for `resume.max_age`; the next begins anew. An agent finds
    its conversations by the directory it works in, so there are none where each session has one of its own.
    """
    if config.resume_command_of(category, backend) is None:
        return None
    cwd = config.session_of(category).cwd
    if render(cwd, values) != render(cwd, {**values, "session": "another", "run_dir": "another"}):
        return None
    for item in reversed(state.resumes["cut_off"]):
        mine = (item["category"], item["task"], item["backend"]) == (category, task, backend)
        old = now - to_micros(item["at"]) > config.resume.max_age * 1_000_000
        if mine and not old and item["tries"] < config.resume.limit:
            return item
    return None
