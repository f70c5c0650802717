"""A control group for the processes of each session, where this user may make one (cgroup v2); elsewhere nothing.

A process is born into its parent's group and leaves it by no accident: a sweep finds it there although it closed the
inherited lock, cleared its environment and outlived its shim. The shim stays outside, one level up, so that it shares
the fate of whoever started it and not that of its worker.

`<run directory>/cgroup` links to the group for as long as that is there. Its name says session and directory, so that
the copy of a run directory names nobody. Groups do not survive a reboot. Standard library only, as the shim has it.
"""

from __future__ import annotations

import contextlib
import os

LINK = "cgroup"
PROCS = "cgroup.procs"


def create(run_dir: str) -> str | None:
    """Make the group of a session below this process's own; returns its path, or None where that cannot be."""
    try:
        path = os.path.join(_own(), _name(run_dir))
        os.symlink(path, os.path.join(run_dir, LINK))  # first: a group that nobody knows would stay for ever
    except (OSError, ValueError):
        return None
    try:
        os.mkdir(path)
    except OSError:
        os.unlink(os.path.join(run_dir, LINK))
        return None
    return path


def try_enter(path: str) -> None:
    """Move this process into a group; where it must not, it stays where it is."""
    with contextlib.suppress(OSError), open(os.path.join(path, PROCS), "wb", buffering=0) as file:
        file.write(b"0")


def members(run_dir: str) -> list[int]:
    """Every process in the group of a session and in groups below it; none where it has no group."""
    found: list[int] = []
    for place in _places(run_dir):
        with contextlib.suppress(OSError), open(os.path.join(place, PROCS), "rb") as file:
            found += [int(pid) for pid in file.read().split() if pid != b"0"]  # 0: of another pid namespace
    return found


def remove(run_dir: str) -> None:
    """Take the group away, with its link, once nobody is in it. Raises nothing."""
    with contextlib.suppress(OSError):
        for place in reversed(_places(run_dir)):
            os.rmdir(place)
        os.unlink(os.path.join(run_dir, LINK))


def _places(run_dir: str) -> list[str]:
    """The group and all below it, each after the one that it is in."""
    link = os.path.join(run_dir, LINK)
    try:
        path = os.readlink(link)
        if os.path.basename(path) != _name(run_dir):
            return []
    except OSError:
        return []
    return [place for place, _, files in os.walk(path) if PROCS in files]


def _name(run_dir: str) -> str:
    return f"loop-{os.path.basename(run_dir)}.{os.stat(run_dir).st_ino:x}"


def _own() -> str:
    """The directory of this process's group. Raises OSError, ValueError where there is no cgroup v2 to be seen."""
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        (mine,) = [line.rstrip("\n")[len("0::") :] for line in file if line.startswith("0::")]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            root, point = before.split()[3:5]
            if after.startswith("cgroup2 ") and os.path.commonpath([root, mine]) == root:
                return os.path.normpath(os.path.join(point, os.path.relpath(mine, root)))
    raise ValueError("no cgroup v2 is mounted")
