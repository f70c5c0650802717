"""The machine measured: only what has a bound, and loudly where it cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from events.catalog import HostMeasured
from loop.config_file import load
from loop.host import measure

ALL = "max_load_per_cpu = 1.5\nmin_memory_available = 0.1\nmin_disk_free = '1GiB'"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    made = tmp_path / "proc"
    made.mkdir()
    (made / "loadavg").write_text(f"{3 * (os.cpu_count() or 1)}.00 1.00 0.50 1/200 4711\n")
    (made / "meminfo").write_text("MemTotal:  16000 kB\nMemFree: 1 kB\nMemAvailable:  4000 kB\nHugePages: 0\n")
    return made


def measured(directory: Path, host: str, proc: Path) -> HostMeasured | None:
    path = directory / "loop.toml"
    path.write_text(f'[selector]\nbuiltin = true\n[host]\n{host}\n[categories.code]\ncommand = ["true"]\n')
    return measure(load(path), proc)


def test_without_a_bound_nothing_is_measured(tmp_path: Path, proc: Path) -> None:
    assert measured(tmp_path, "", proc) is None


def test_every_figure_is_a_share_a_count_per_cpu_or_bytes(tmp_path: Path, proc: Path) -> None:
    found = measured(tmp_path, ALL, proc)
    assert found is not None
    assert (found.load_per_cpu, found.memory_available, found.text) == (3.0, 0.25, None)
    status = os.statvfs(tmp_path)
    assert found.disk_free == pytest.approx(status.f_bavail * status.f_frsize, rel=0.05)


def test_only_what_has_a_bound_is_measured(tmp_path: Path, proc: Path) -> None:
    found = measured(tmp_path, "min_memory_available = 0.1", proc)
    assert found == HostMeasured(memory_available=0.25)


@pytest.mark.parametrize("content", [None, "", "MemTotal: 0 kB\nMemAvailable: 0 kB", "MemTotal: 9 kB\n", "MemTotal: x"])
def test_a_figure_that_cannot_be_had_is_none_and_no_other(tmp_path: Path, proc: Path, content: str | None) -> None:
    if content is None:
        (proc / "meminfo").unlink()
    else:
        (proc / "meminfo").write_text(content)
    found = measured(tmp_path, ALL, proc)
    assert found is not None
    assert found.memory_available is None
    assert found.load_per_cpu == 3.0
    assert "memory_available cannot be measured" in (found.text or "")


def test_this_machine_can_be_measured(tmp_path: Path) -> None:
    found = measured(tmp_path, ALL, Path("/proc"))
    assert found is not None
    assert found.text is None
    assert 0 < (found.memory_available or 0) <= 1
    assert found.load_per_cpu is not None
