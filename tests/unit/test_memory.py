"""Free host memory as a machine and its control groups tell it."""

from pathlib import Path

import pytest
import torch

from pocketvit import memory

GIB = 2**30


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Makes a host's files: `free` GiB of memory, the lines of /proc/self/cgroup, and its control groups."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")

    def make(free: int, lines: str, **groups: tuple) -> None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable:   {free * 2**20} kB\n")
        (tmp_path / "proc" / "self" / "cgroup").write_text(lines)
        for path, (limit, used, cached) in groups.items():
            write_group(tmp_path / "cgroup" / path.replace("__", "/"), limit, used, cached)

    return make


def write_group(folder: Path, limit, used, cached) -> None:
    old = "memory" in folder.parts
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value if isinstance(value, str) else value * GIB}\n")
    prefix = "total_" if old else ""
    stat = f"anon 5\n{prefix}inactive_file {cached * GIB - 10}\n{prefix}active_file 10\n"
    (folder / "memory.stat").write_text(stat)


def test_a_machine_without_limits(host):
    host(100, "0::/user\n", user=("max", 10, 0))
    assert memory.free_host_memory() == 100 * GIB


def test_the_tightest_group_on_the_way_up_counts(host):
    host(100, "0::/job/step\n", job=(40, 15, 5), job__step=("max", 15, 5))
    assert memory.free_host_memory() == 30 * GIB


def test_version_1(host):
    host(100, "9:cpu:/\n4:memory:/job\n0::/\n", memory__job=(20, 19, 7))
    assert memory.free_host_memory() == 8 * GIB


def test_a_group_seen_from_inside_its_container(host):
    """The path is the host's, the files are where the container's top is."""
    host(100, "0::/kubepods/pod-1\n", **{"": (64, 4, 0)})
    assert memory.free_host_memory() == 60 * GIB


def test_a_full_group_leaves_nothing(host):
    host(100, "0::/job\n", job=(4, 5, 0))
    assert memory.free_host_memory() == 0


def test_a_system_that_does_not_say_has_no_room(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROC", tmp_path / "none")
    assert memory.free_host_memory() == 0


def test_processes_share_their_host(monkeypatch):
    monkeypatch.setattr(memory, "free_gpu_memory", lambda device: 7)
    monkeypatch.setattr(memory, "free_host_memory", lambda: 800)
    assert memory.free_memory(torch.device("cuda", 0)) == memory.FreeMemory(gpu=7, host=800)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert memory.free_memory(torch.device("cuda", 0)) == memory.FreeMemory(gpu=7, host=100)
