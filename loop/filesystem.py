"""The file system under a path. SQLite's write-ahead log and flock hold only on one of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from events.errors import StoreError

Kind = Literal["local", "network", "unsure", "forgetful", "unknown"]

# Shared with other machines or a virtual machine's host: locks, and memory mapped by two, may not hold.
NETWORK = re.compile(
    r"nfs\d?|cifs|smb.*|9p|afs|ceph|lustre|glusterfs|gpfs|beegfs|vboxsf|virtiofs"
    r"|fuse\.(sshfs|s3fs|rclone|gcsfuse|glusterfs|ceph.*|davfs.*|juicefs|goofys|blobfuse.*|vmhgfs.*|portal)"
)
FUSE = re.compile(r"fuse(?!blk|ctl|\.fuse-overlayfs|\.bindfs).*")  # somebody's program: it may be one or the other
FORGETFUL = ("tmpfs", "ramfs")

NETWORK_MEND = 'name a local directory in loop.state, as in state = "~/.local/state/loop/NAME"'


def refuse_network(place: Path) -> None:
    """Raise StoreError where a store in the directory `place`, which need not exist, would be on a network."""
    name, point = mount_of(existing(place).resolve())
    if kind_of(name) == "network":
        raise StoreError(f"{place} is on {name} ({point}): locks and the log do not hold there", NETWORK_MEND)


def kind_of(name: str | None) -> Kind:
    """What a type of file system is good for; None, as of a path whose mount is not listed, is unknown."""
    if name is None:
        return "unknown"
    if NETWORK.fullmatch(name):
        return "network"
    if FUSE.fullmatch(name):
        return "unsure"
    return "forgetful" if name in FORGETFUL else "local"


def mount_of(place: Path) -> tuple[str | None, str]:
    """(type, mount point) of the file system of a path without links, from mountinfo; (None, "") where unknown."""
    found: tuple[str | None, str] = (None, "")
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split()[4])
        # Of two on one point the later covers the earlier.
        if place.is_relative_to(point) and len(point) >= len(found[1]):
            found = (after.split()[0], point)
    return found


def existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), Path("/"))
