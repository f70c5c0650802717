"""The task files of a workspace (`tasks/*.md`), and what of them a session could take up.

Pure but for `read`. A task's id is its file's name without `.md`. What a file says wrongly costs that file, never the
answer, and is said in a warning; where it cannot be known whether a task waits, it does.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from loop.cascade.front_matter import FrontMatter, parse, words
from loop.text import visible

MOST_FILES = 20_000
LARGEST = 32_768  # bytes of a file in which its front matter must end
LONGEST_ID = 200  # characters, as of any selector's tasks
MOST_WARNINGS = 20

ACTIVE = frozenset({"active", "in_progress"})
BACKLOG = frozenset({"backlog", "new", "todo", "ready"})
OVER = frozenset({"done", "cancelled", "completed"})
PRIORITIES = {"urgent": 4, "critical": 4, "high": 3, "medium": 2, "low": 1}
NEEDS = ("depends", "requires")  # what must be over first, by both its names
KEYS = ("state", "priority", "category", "tags", "waiting_for", *NEEDS)


class Task(NamedTuple):
    """A task file: its state and priority (0: none) as written, its categories or tags in their order."""

    id: str
    state: str
    priority: int = 0
    tags: tuple[str, ...] = ()
    waiting: bool = False
    depends: tuple[str, ...] = ()


class Lane(NamedTuple):
    """What the task files hold for one category: the best active and backlog task on offer (None: none).

    `ready` counts what is on offer under the category's own name, `aliased` what came by an alias, `held` what is open
    and not on offer.
    """

    active: str | None = None
    backlog: str | None = None
    ready: int = 0
    aliased: int = 0
    held: int = 0


class Files(NamedTuple):
    """What was read: the tasks in the order of their ids, and what was wrong with the files."""

    tasks: tuple[Task, ...] = ()
    warnings: tuple[str, ...] = ()


def read(directory: Path) -> Files:
    """Every `*.md` of the directory; one that is missing holds no tasks. Raises nothing for what is in them."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".md") and not name.startswith("."))
    except FileNotFoundError:
        return Files()
    except OSError as error:
        return Files((), (f"{visible(str(directory), 200)} cannot be read: {error.strerror}",))
    odd: list[str] = []
    if len(names) > MOST_FILES:
        odd.append(f"{len(names)} task files; the first {MOST_FILES} are read")
    tasks = []
    for name in names[:MOST_FILES]:
        try:
            task, notes = understood(_id(name), _beginning(os.path.join(directory, name)).decode("utf-8", "replace"))
            tasks.append(task)
        except (FrontMatter, OSError) as error:
            notes = [error.strerror or str(error) if isinstance(error, OSError) else str(error)]
        odd += [visible(f"{name}: {note}", 200) for note in notes]
    return Files(tuple(tasks), tuple(_few(odd)))


def _beginning(path: str) -> bytes:
    """The first LARGEST bytes of a file; of a FIFO nobody writes to, none. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, LARGEST)
    finally:
        os.close(descriptor)


def understood(id: str, text: str) -> tuple[Task, list[str]]:
    """A task file's text as a task, and what in it was left out. Raises FrontMatter."""
    keys = parse(text, KEYS)
    found = keys.values
    odd = [f"{key} {keys.odd[key]}".strip() for key in ("", *KEYS) if key in keys.odd]
    state, priority = found.get("state"), found.get("priority")
    if not isinstance(state, str):
        raise FrontMatter("it has no state")
    if isinstance(priority, str) and priority.lower() not in (*PRIORITIES, "none"):
        odd.append(f"priority {priority} is none of {', '.join(PRIORITIES)}")
    unread = any(key in keys.odd and found.get(key) is None for key in ("waiting_for", *NEEDS))
    task = Task(
        id=id,
        state=state.lower(),
        priority=PRIORITIES.get(priority.lower(), 0) if isinstance(priority, str) else 0,
        tags=(*words(found.get("category")), *words(found.get("tags"))),
        waiting=unread or bool(words(found.get("waiting_for"))),
        depends=tuple(_id(each) for key in NEEDS for each in words(found.get(key))),
    )
    return task, odd


def lanes(
    tasks: Sequence[Task],
    categories: Collection[str],
    aliases: Mapping[str, str],
    withheld: Collection[str],
    default: str | None = None,
) -> tuple[dict[str, Lane], list[str]]:
    """The lane of every category that has an open task, and warnings.

    `withheld` are the tasks that live sessions hold or that were found blocked. A task waits while `waiting_for` says
    something or one of `depends` is not over; so do tasks that depend on each other, or on one that is not there.
    """
    over = {task.id for task in tasks if task.state in OVER}
    known = {task.id for task in tasks}
    found: dict[str, list[tuple[Task, bool, bool]]] = {}
    odd = []
    for task in tasks:
        if task.state in OVER:
            continue
        if missing := [id for id in task.depends if id not in known]:
            odd.append(f"{task.id} depends on {missing[0]}, which is no task: it waits")
        place = _place(task, categories, aliases) or (None if default is None else (default, False))
        if place is None:
            if task.state in ACTIVE | BACKLOG:
                odd.append(f"{task.id} has no category of loop.toml: name one as category, or map a tag in aliases")
            continue
        offered = (
            task.state in ACTIVE | BACKLOG
            and not task.waiting
            and task.id not in withheld
            and all(id in over for id in task.depends)
        )
        found.setdefault(place[0], []).append((task, place[1], offered))
    odd += [f"{id} depends on itself, by way of others or not: it waits" for id in cycles(tasks)]
    return {name: _lane(members) for name, members in sorted(found.items())}, _few(odd)


def cycles(tasks: Iterable[Task]) -> list[str]:
    """The ids of open tasks that wait for each other in a ring, or behind one; in order. Takes linear time."""
    open = {task.id: task for task in tasks if task.state not in OVER}
    needs = {id: {each for each in task.depends if each in open} for id, task in open.items()}
    behind: dict[str, list[str]] = {}
    for id, wanted in needs.items():
        for each in wanted:
            behind.setdefault(each, []).append(id)
    free = [id for id, wanted in needs.items() if not wanted]
    while free:
        id = free.pop()
        del needs[id]
        for each in behind.get(id, ()):
            needs[each].discard(id)
            if not needs[each]:
                free.append(each)
    return sorted(needs)


def _id(name: str) -> str:
    """A task's id, by the name of its file or as another file calls it."""
    return visible(name.removesuffix(".md"), LONGEST_ID)


def _place(task: Task, categories: Collection[str], aliases: Mapping[str, str]) -> tuple[str, bool] | None:
    """The first of its tags that is a category, or an alias of one, and whether it was an alias."""
    for tag in task.tags:
        name = aliases.get(tag, tag)
        if name in categories:
            return name, name != tag
    return None


def _lane(members: list[tuple[Task, bool, bool]]) -> Lane:
    offered = sorted(
        ((task, aliased) for task, aliased, offered in members if offered),
        key=lambda pair: (pair[1], -pair[0].priority, pair[0].id),
    )
    return Lane(
        active=next((task.id for task, _ in offered if task.state in ACTIVE), None),
        backlog=next((task.id for task, _ in offered if task.state in BACKLOG), None),
        ready=sum(not aliased for _, aliased in offered),
        aliased=sum(aliased for _, aliased in offered),
        held=len(members) - len(offered),
    )


def _few(odd: list[str]) -> list[str]:
    if len(odd) <= MOST_WARNINGS:
        return odd
    return [*odd[:MOST_WARNINGS], f"and {len(odd) - MOST_WARNINGS} more of the task files"]
