"""The task files of a workspace (`tasks/*.md`), and what of them a session could take up.

Pure but for `read`. A task's id is its file's name without `.md`. What a file says wrongly costs that file, never the
answer, and is said in a warning; where it cannot be known whether a task waits, it does. The format is that of gptme
workspaces, as their task tool has it:
https://github.com/gptme/gptme-contrib/blob/master/packages/gptodo/README.md
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
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
OVER = frozenset({"done", "cancelled", "completed"})  # what frees those that depend on it
ENDED = OVER | {"expired"}
ARCHIVE = "archive"  # the folder in which tasks that are over may lie
NO_TASKS = frozenset({"readme.md"})  # what else lies beside task files, in small letters
PRIORITIES = {"urgent": 4, "critical": 4, "high": 3, "medium": 2, "low": 1}
NEEDS = ("depends", "requires")  # what must be over first, by both its names
DATES = ("wait", "wait_until")  # until when a task is not to be taken up, by both its names
KEYS = ("state", "priority", "category", "tags", "waiting_for", *NEEDS, *DATES)


class Task(NamedTuple):
    """A task file: its state and priority (0: none) as written, its categories or tags in their order.

    It waits for a person or an event (`waiting`), for other tasks (`depends`) or for an instant (`until`, in
    microseconds since the epoch).
    """

    id: str
    state: str
    priority: int = 0
    tags: tuple[str, ...] = ()
    waiting: bool = False
    depends: tuple[str, ...] = ()
    until: int = 0


class Lane(NamedTuple):
    """What the task files hold for one category: the best active and backlog task on offer (None: none).

    `ready` counts what is on offer under the category's own name, `aliased` what came by an alias, `held` what is open
    and not on offer, `over` what is no longer open.
    """

    active: str | None = None
    backlog: str | None = None
    ready: int = 0
    aliased: int = 0
    held: int = 0
    over: int = 0


class Files(NamedTuple):
    """What was read: the tasks in the order of their ids, what was wrong with the files, and which ids that a task
    depends on lie in the archive and are over."""

    tasks: tuple[Task, ...] = ()
    warnings: tuple[str, ...] = ()
    archived: frozenset[str] = frozenset()


def read(directory: Path) -> Files:
    """Every `*.md` of the directory; one that is missing holds no tasks. Raises nothing for what is in them.

    Of the archive inside it only what an open task depends on is read: it grows without end.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if _is_task(name))
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
            task, notes = _read(os.path.join(directory, name))
            tasks.append(task)
        except (FrontMatter, OSError) as error:
            notes = [error.strerror or str(error) if isinstance(error, OSError) else str(error)]
        odd += [visible(f"{name}: {note}", 200) for note in notes]
    missing = {id for task in tasks if task.state not in ENDED for id in task.depends} - set(map(_id, names))
    return Files(tuple(tasks), tuple(_few(odd)), _archived(directory / ARCHIVE, missing) if missing else frozenset())


def _is_task(name: str) -> bool:
    return name.endswith(".md") and not name.startswith(".") and name.lower() not in NO_TASKS


def _archived(directory: Path, wanted: Collection[str]) -> frozenset[str]:
    """Which of the wanted ids are those of files somewhere in the archive that say that they are over."""
    found = set()
    for path in _files(directory):
        if _id(os.path.basename(path)) in wanted:
            try:
                task, _ = _read(path)
            except (FrontMatter, OSError):
                continue
            if task.state in OVER:
                found.add(task.id)
    return frozenset(found)


def _files(directory: Path) -> Iterator[str]:
    """The paths of the files in and below a directory, the first MOST_FILES of them."""
    seen = 0
    for parent, _, names in os.walk(directory):
        for name in names:
            seen += 1
            if seen > MOST_FILES:
                return
            yield os.path.join(parent, name)


def _read(path: str) -> tuple[Task, list[str]]:
    """Raises FrontMatter and OSError."""
    return understood(_id(os.path.basename(path)), _beginning(path).decode("utf-8", "replace"))


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
    # What a task waits for may be of any shape, conditions with types among them: that it waits is all that counts.
    odd = [f"{key} {keys.odd[key]}".strip() for key in ("", *KEYS) if key in keys.odd and key != "waiting_for"]
    state, priority = found.get("state"), found.get("priority")
    if not isinstance(state, str):
        raise FrontMatter("it has no state")
    if isinstance(priority, str) and priority.lower() not in (*PRIORITIES, "none"):
        odd.append(f"priority {priority} is none of {', '.join(PRIORITIES)}")
    unread = any(key in keys.odd and found.get(key) is None for key in ("waiting_for", *NEEDS, *DATES))
    until = 0
    for key in DATES:
        for date in words(found.get(key)):
            instant = _instant(date)
            if instant is None:
                odd.append(f"{key} {date} is no date: it waits")
            unread, until = unread or instant is None, max(until, instant or 0)
    task = Task(
        id=id,
        state=state.lower(),
        priority=PRIORITIES.get(priority.lower(), 0) if isinstance(priority, str) else 0,
        tags=(*words(found.get("category")), *words(found.get("tags"))),
        waiting=unread or bool(words(found.get("waiting_for"))),
        depends=tuple(_needed(each) for key in NEEDS for each in words(found.get(key))),
        until=until,
    )
    return task, odd


def lanes(
    tasks: Sequence[Task],
    categories: Collection[str],
    aliases: Mapping[str, str],
    withheld: Collection[str],
    default: str | None = None,
    *,
    archived: Collection[str] = (),
    now: int = 0,
) -> tuple[dict[str, Lane], list[str]]:
    """The lane of every category that has a task, and warnings.

    `withheld` are the tasks that live sessions hold or that were found blocked, `archived` those that are over and no
    longer among `tasks`; `now` is in microseconds since the epoch. A task waits while `waiting_for` says something, its
    date is to come or one of `depends` is not over; so do tasks that depend on each other, or on one that is not there.
    """
    over = {task.id for task in tasks if task.state in OVER}.union(archived)
    known = {task.id for task in tasks}.union(archived)
    found: dict[str, list[tuple[Task, bool, bool]]] = {}
    odd = []
    ended: dict[str, int] = {}
    for task in tasks:
        if task.state in ENDED:
            if (place := _place(task, categories, aliases)) is not None:
                ended[place[0]] = ended.get(place[0], 0) + 1
            continue
        if missing := [id for id in task.depends if id not in known]:
            odd.append(f"{task.id} depends on {missing[0]}, which is no task here: it waits")
        place = _place(task, categories, aliases) or (None if default is None else (default, False))
        if place is None:
            if task.state in ACTIVE | BACKLOG:
                odd.append(f"{task.id} has no category of loop.toml: name one as category, or map a tag in aliases")
            continue
        offered = (
            task.state in ACTIVE | BACKLOG
            and not task.waiting
            and task.until <= now
            and task.id not in withheld
            and all(id in over for id in task.depends)
        )
        found.setdefault(place[0], []).append((task, place[1], offered))
    odd += [f"{id} depends on itself, by way of others or not: it waits" for id in cycles(tasks)]
    named = sorted({*found, *ended})
    return {name: _lane(found.get(name, []), ended.get(name, 0)) for name in named}, _few(odd)


def cycles(tasks: Iterable[Task]) -> list[str]:
    """The ids of open tasks that wait for each other in a ring, or behind one; in order. Takes linear time."""
    open = {task.id: task for task in tasks if task.state not in ENDED}
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


def _needed(name: str) -> str:
    """The id of a task that another one names, also by its path; addresses are no paths."""
    return _id(name if "://" in name else name.rsplit("/", 1)[-1])


def _instant(text: str) -> int | None:
    """A date (its beginning) or a time as microseconds since the epoch, local where no zone is told; None: neither."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000_000)
    except (ValueError, OverflowError, OSError):
        return None


def _place(task: Task, categories: Collection[str], aliases: Mapping[str, str]) -> tuple[str, bool] | None:
    """The first of its tags that is a category, or an alias of one, and whether it was an alias."""
    for tag in task.tags:
        name = aliases.get(tag, tag)
        if name in categories:
            return name, name != tag
    return None


def _lane(members: list[tuple[Task, bool, bool]], over: int) -> Lane:
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
        over=over,
    )


def _few(odd: list[str]) -> list[str]:
    if len(odd) <= MOST_WARNINGS:
        return odd
    return [*odd[:MOST_WARNINGS], f"and {len(odd) - MOST_WARNINGS} more of the task files"]
