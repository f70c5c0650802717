"""The machine measured, for the bounds of `[host]`: load, memory, disk. Starts nothing, so every pass can afford it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from events.catalog import HostMeasured
from loop.config import Config

PROC = Path("/proc")


def measure(config: Config, proc: Path = PROC) -> HostMeasured | None:
    """The figures that `[host]` bounds, and no others; None where it bounds none.

    One that cannot be had is None in the event, which is no figure within any bound, and `text` says why.
    """
    wanted: dict[str, tuple[object, Callable[[], float | int]]] = {
        "load_per_cpu": (config.host.max_load_per_cpu, lambda: _load_per_cpu(proc)),
        "memory_available": (config.host.min_memory_available, lambda: _memory_available(proc)),
        "disk_free": (config.host.min_disk_free, lambda: _disk_free(config.state)),
    }
    found: dict[str, float | int] = {}
    troubles: list[str] = []
    for name, (bound, figure) in wanted.items():
        if bound is None:
            continue
        try:
            found[name] = figure()
        except (OSError, ValueError, LookupError, ZeroDivisionError) as error:
            troubles.append(f"{name} cannot be measured: {type(error).__name__} {error}")
    if not found and not troubles:
        return None
    return HostMeasured.model_validate({**found, "text": "; ".join(troubles)[:2000] or None})


def _load_per_cpu(proc: Path) -> float:
    """The mean of the last minute's runnable tasks, for each CPU."""
    return round(float((proc / "loadavg").read_text().split()[0]) / (os.cpu_count() or 1), 3)


def _memory_available(proc: Path) -> float:
    """The share of all memory that could be had without swapping (`MemAvailable`, proc(5))."""
    lines = (line.partition(":") for line in (proc / "meminfo").read_text().splitlines())
    kilobytes = {name: int(value.split()[0]) for name, _, value in lines if value.split()}
    return round(kilobytes["MemAvailable"] / kilobytes["MemTotal"], 3)


def _disk_free(state: Path) -> int:
    """Bytes that are free for us where the state directory is, or will be."""
    place = next(path for path in (state, *state.parents) if path.exists())
    status = os.statvfs(place)
    return status.f_bavail * status.f_frsize
