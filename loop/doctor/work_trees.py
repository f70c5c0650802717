"""Git work trees: what sessions that run at once, or an agent that cleans up, may do to each other's files."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from loop.command import PLACEHOLDERS, render
from loop.commands.init import work_tree
from loop.config import Config
from loop.config_report import state_in_work_tree
from loop.doctor.check import Check, listed

APART = 'give each a work tree of its own: cwd = "work/{session}" and before = ["./make-worktree", "{session}"]'


def examine(config: Config) -> list[Check]:
    return [_state(config), _shared(config)]


def _state(config: Config) -> Check:
    """A session that cleans or resets its work tree must not find the log in it."""
    if found := list(state_in_work_tree(config)):
        return Check("state_place", "warn", "\n".join(found), "end what runs before you move it")
    return Check("state_place", "ok", "the state directory is in no session's work tree")


def _shared(config: Config) -> Check:
    """Sessions of two categories, or of two lanes of one, that may run at once in one work tree."""
    found = trees(config)
    pairs = [
        f"{one} and {other} in {found[one]}"
        for one, other in combinations(found, 2)
        if found[one] == found[other] and _together(config, one, other)
    ]
    pairs += [f"the lanes of {name} in {tree}" for name, tree in found.items() if config.categories[name].lanes > 1]
    if config.loop.slots < 2 or not pairs:
        return Check("work_trees", "ok", "no two sessions share a work tree at one time")
    detail = f"they may run at once in one git work tree, and see each other's half-done changes: {listed(pairs, '; ')}"
    return Check("work_trees", "warn", detail, f'{APART}; or give them a common lock: locks = ["tree"]')


def trees(config: Config) -> dict[str, Path]:
    """Category -> the work tree that all its sessions run in; without those whose `cwd` differs by session."""
    found: dict[str, Path] = {}
    for name in config.categories:
        cwd = config.session_of(name).cwd
        one, other = (
            render(cwd, {**dict.fromkeys(PLACEHOLDERS, letter), "category": name}) for letter in ("a", "b")
        )
        if one == other and (tree := work_tree(Path(one))) is not None:
            found[name] = tree
    return found


def _together(config: Config, one: str, other: str) -> bool:
    """Whether sessions of two categories may live at the same time; by hand, any that is not `alone` may."""
    first, second = config.categories[one], config.categories[other]
    return "alone" not in (first.parallel, second.parallel) and not set(first.locks) & set(second.locks)
