"""Task files on disk and what of them is on offer: nothing that waits, and one bad file is no loss."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.envelope import to_micros
from loop.cascade.tasks import LARGEST, MOST_WARNINGS, Files, Lane, Task, cycles, lanes, read, understood

CATEGORIES = ("code", "docs")


@pytest.fixture
def stockholm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def task(id: str, state: str = "backlog", **changes: object) -> Task:
    return Task(id, state, **{"tags": ("code",), **changes})  # type: ignore[arg-type]


def lane(*tasks: Task, withheld: tuple[str, ...] = ()) -> Lane:
    return lanes(tasks, CATEGORIES, {"dev": "code"}, withheld)[0].get("code", Lane())


def write(directory: Path, name: str, *lines: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text("\n".join(("---", *lines, "---", "# Title", "state: done")))


def test_a_file_is_read_as_gptme_workspaces_write_it(tmp_path: Path) -> None:
    write(
        tmp_path, "fix-login.md", "state: active", "created: 2026-05-01T10:00:00+02:00", "priority: high",
        "tags: [code, auth]", "depends:", "- schema", "- keys.md", "waiting_for: ", 'next_action: "Write: a test"',
    )  # fmt: skip
    found = read(tmp_path)
    assert found.warnings == ()
    assert found.tasks == (Task("fix-login", "active", 3, ("code", "auth"), False, ("schema", "keys")),)


@pytest.mark.usefixtures("stockholm")
def test_a_file_is_read_as_their_task_tool_writes_it(tmp_path: Path) -> None:
    """One that it has made and claimed, and one that YAML's own writer has sorted and folded."""
    write(
        tmp_path, "set-up-ci.md", "state: active", "created: 2026-01-01T12:00:00.000000+00:00", "priority: high",
        "task_type: action", "assigned_to: agent", 'tags: ["code", "ci"]', "requires:", "  - write-readme",
        "success_criterion: 'CI green: 3 times'", "tracking: [https://github.com/who/what/issues/42]",
    )  # fmt: skip
    write(
        tmp_path, "write-readme.md", "created: '2026-02-11T08:39:26'", "depends: []", "next_action: Draft it, and then",
        "  send it: to all", "priority: null", "state: waiting", "tags:", "- docs", "waiting_for: the review of a",
        "  long text", "waiting_since: 2026-05-01", "wait: 2026-05-02",
    )  # fmt: skip
    files = read(tmp_path)
    assert files.warnings == ()
    assert files.tasks == (
        Task("set-up-ci", "active", 3, ("code", "ci"), False, ("write-readme",)),
        Task("write-readme", "waiting", 0, ("docs",), True, (), to_micros("2026-05-01T22:00:00Z")),
    )


def test_category_comes_before_tags_and_requires_is_depends(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "state: Backlog", "tags: docs", "category: code", "requires: [b]")
    assert read(tmp_path).tasks == (Task("a", "backlog", 0, ("code", "docs"), False, ("b",)),)


def test_one_broken_file_costs_itself_and_is_named(tmp_path: Path) -> None:
    write(tmp_path, "good.md", "state: active", "tags: [code]")
    write(tmp_path, "stateless.md", "tags: [code]")
    write(tmp_path, "odd.md", "state: active", "priority: asap")
    (tmp_path / "prose.md").write_text("# Only prose")
    (tmp_path / "binary.md").write_bytes(b"---\xff\xfe\x00")
    (tmp_path / "endless.md").write_text("---\nstate: active\n" + "x: y\n" * LARGEST + "---\n")
    (tmp_path / "directory.md").mkdir()
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / os.fsdecode(b"name-\xff.md")).write_text("---\nstate: active\n---\n")
    (tmp_path / ".hidden.md").write_text("no task")
    (tmp_path / "README.md").write_text("no task")
    (tmp_path / "notes.txt").write_text("no task")
    found = read(tmp_path)
    assert [each.id for each in found.tasks] == ["good", "name-\ufffd", "odd"]
    said = dict(warning.split(": ", 1) for warning in found.warnings)
    assert set(said) == {
        *("stateless.md", "odd.md", "prose.md", "binary.md", "endless.md", "directory.md", "gone.md", "pipe.md")
    }
    assert said["stateless.md"] == "it has no state"
    assert said["odd.md"] == "priority asap is none of urgent, critical, high, medium, low"
    assert said["endless.md"] == "its front matter is not closed with ---"
    assert said["gone.md"] == "No such file or directory"


def test_no_directory_holds_no_tasks(tmp_path: Path) -> None:
    assert read(tmp_path / "tasks") == Files()


def test_a_directory_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text("a file")
    (warning,) = read(tmp_path / "tasks").warnings
    assert warning.endswith("tasks cannot be read: Not a directory")


@pytest.mark.parametrize(
    "line", ["waiting_for: {who: me}", "depends: [a,\n  b", "waiting_for: |\n  the review", "wait: soon"]
)
def test_a_task_that_may_wait_waits(line: str) -> None:
    assert understood("a", f"---\nstate: active\n{line}\n---\n")[0].waiting


def test_the_first_of_its_words_that_is_a_category_is_its_lane() -> None:
    found, odd = lanes([task("a", tags=("ai", "dev", "docs"))], CATEGORIES, {"dev": "code"}, ())
    assert (found, odd) == ({"code": Lane(backlog="a", aliased=1)}, [])


def test_a_task_without_a_category_is_said_or_goes_where_the_config_says() -> None:
    found, odd = lanes([task("a", tags=("ai",))], CATEGORIES, {}, ())
    assert found == {}
    assert odd == ["a has no category of loop.toml: name one as category, or map a tag in aliases"]
    assert lanes([task("a", tags=("ai",))], CATEGORIES, {}, (), "docs")[0] == {"docs": Lane(backlog="a", ready=1)}


def test_the_best_of_each_kind_comes_first() -> None:
    many = [task("b", priority=2), task("a", priority=1), task("d", "active"), task("c", "in_progress", priority=1)]
    assert lane(*many) == Lane(active="c", backlog="b", ready=4)


def test_one_that_came_by_an_alias_comes_after_one_that_did_not() -> None:
    assert lane(task("a", priority=4, tags=("dev",)), task("b")) == Lane(backlog="b", ready=1, aliased=1)


@pytest.mark.parametrize(
    "waits",
    [
        task("a", "active", waiting=True),
        task("a", "waiting"),
        task("a", "someday"),
        task("a", "active", depends=("b",)),
        task("a", "active", depends=("nobody",)),
    ],
)
def test_what_waits_is_held_and_not_offered(waits: Task) -> None:
    assert lane(waits, task("b", tags=("docs",))) == Lane(held=1)


def test_what_it_depends_on_being_over_frees_it() -> None:
    assert lane(task("a", depends=("b",)), task("b", "done")) == Lane(backlog="a", ready=1, over=1)


def test_one_that_expired_is_no_longer_open_and_frees_nobody() -> None:
    assert lane(task("a", depends=("b",)), task("b", "expired")) == Lane(held=1, over=1)


def test_what_lies_in_the_archive_frees_who_depends_on_it_once_it_is_over(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "state: todo", "tags: [code]", "requires: [old]")
    write(tmp_path, "b.md", "state: todo", "tags: [docs]", "requires: [tasks/stopped.md]")
    write(tmp_path, "c.md", "state: todo", "tags: [docs]", "requires: [d]")
    write(tmp_path, "d.md", "state: todo", "tags: [docs]", "requires: [https://github.com/who/what/issues/4]")
    write(tmp_path / "archive", "stopped.md", "state: active")
    write(tmp_path / "archive", "d.md", "state: done")
    (tmp_path / "archive" / "junk.md").write_bytes(b"\xff")
    (tmp_path / "archive" / "2026").mkdir()
    write(tmp_path / "archive" / "2026", "old.md", "state: done", "tags: [code]")
    files = read(tmp_path)
    assert files.archived == {"old"}
    found, odd = lanes(files.tasks, CATEGORIES, {}, (), archived=files.archived)
    assert found == {"code": Lane(backlog="a", ready=1), "docs": Lane(held=3)}
    assert odd == [
        "b depends on stopped, which is no task here: it waits",
        "d depends on https://github.com/who/what/issues/4, which is no task here: it waits",
    ]


@pytest.mark.usefixtures("stockholm")
@pytest.mark.parametrize("key", ["wait", "wait_until"])
def test_a_task_with_a_date_waits_until_then(key: str) -> None:
    for date, comes in (("2026-05-02T10:00:00+02:00", "2026-05-02T08:00:00Z"), ("2026-05-02", "2026-05-01T22:00:00Z")):
        found, odd = understood("a", f"---\nstate: todo\ntags: [code]\n{key}: {date}\n---\n")
        instant = to_micros(comes)
        assert (found.until, odd) == (instant, [])
        assert lanes([found], CATEGORIES, {}, (), now=instant - 1)[0] == {"code": Lane(held=1)}
        assert lanes([found], CATEGORIES, {}, (), now=instant)[0] == {"code": Lane(backlog="a", ready=1)}
    assert understood("a", f"---\nstate: todo\n{key}: soon\n---\n")[1] == [f"{key} soon is no date: it waits"]


def test_conditions_with_types_are_waited_for_and_are_no_fault() -> None:
    for lines in ("  type: pr_merged\n  ref: a/b#1", "- type: comment\n  ref: a/b#1\n  pattern: LGTM"):
        found, odd = understood("a", f"---\nstate: active\nwaiting_for:\n{lines}\n---\n")
        assert (found.waiting, odd) == (True, [])


def test_a_task_that_a_session_holds_or_found_blocked_is_not_offered() -> None:
    assert lane(task("a", "active"), task("b"), withheld=("a",)) == Lane(backlog="b", ready=1, held=1)


def test_what_waits_for_itself_is_found() -> None:
    ring = [task("a", depends=("b",)), task("b", depends=("c",)), task("c", depends=("a",)), task("d", depends=("a",))]
    free = [task("e"), task("f", depends=("e",)), task("g", "done", depends=("g",))]
    assert cycles([*ring, *free]) == ["a", "b", "c", "d"]
    found, odd = lanes([*ring, *free], CATEGORIES, {}, ())
    assert found["code"] == Lane(backlog="e", ready=1, held=5, over=1)
    assert odd == [f"{id} depends on itself, by way of others or not: it waits" for id in "abcd"]


def test_ten_thousand_tasks_are_read_and_placed(tmp_path: Path) -> None:
    chance, begun = random.Random(1), time.monotonic()
    for number in range(10_000):
        needs = f"task-{chance.randrange(10_000)}"  # so that thousands wait for each other in rings
        write(tmp_path, f"task-{number}.md", "state: backlog", "tags: [code]", f"depends: [{needs}]")
    write(tmp_path, "a.md", "state: active", "tags: [code]")
    files = read(tmp_path)
    found, odd = lanes(files.tasks, CATEGORIES, {}, ())
    assert found == {"code": Lane(active="a", ready=1, held=10_000)}
    assert len(odd) == MOST_WARNINGS + 1
    assert odd[-1].startswith("and ")
    assert time.monotonic() - begun < 60


IDS = st.sampled_from([f"t{number}" for number in range(8)])
TASKS = st.lists(
    st.builds(
        Task, IDS, st.sampled_from(["active", "backlog", "done", "waiting", "strange"]), st.integers(0, 4),
        st.lists(st.sampled_from(["code", "docs", "dev", "else"]), max_size=2).map(tuple), st.booleans(),
        st.lists(IDS, max_size=3).map(tuple),
    ),
    max_size=8,
)  # fmt: skip


@given(TASKS, st.sets(IDS))
def test_only_what_is_free_is_ever_offered(tasks: list[Task], withheld: set[str]) -> None:
    found, _ = lanes(tasks, CATEGORIES, {"dev": "code"}, withheld)
    over = {each.id for each in tasks if each.state == "done"}
    for each in found.values():
        for offered in (each.active, each.backlog):
            if offered is not None:
                assert offered not in withheld
                assert any(it.id == offered and not it.waiting and set(it.depends) <= over for it in tasks)
    assert sum(each.ready + each.aliased + each.held for each in found.values()) <= len(tasks)
