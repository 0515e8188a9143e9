"""Free memory for one process, on its GPU and on its host.

A batch system or a container often allows less than the machine has. On Linux, the limits are in the control groups of
a process (`/proc/self/cgroup`), which are nested, and all of them count.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class FreeMemory:
    """Free memory, bytes."""

    gpu: int  # of the process's GPU
    host: int  # of the host, this process's part of it


def free_memory(device: torch.device) -> FreeMemory:
    """Free memory for a process on this CUDA device. The processes of a run share their host evenly."""
    return FreeMemory(free_gpu_memory(device), free_host_memory() // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def free_gpu_memory(device: torch.device) -> int:
    """Free memory of a CUDA device in bytes; less if the process may only use a fraction."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(min(free + torch.cuda.memory_reserved(device), allowed)) - torch.cuda.memory_allocated(device)


def free_host_memory() -> int:
    """Host memory available without swapping, in bytes; cached files count as free.

    0 if the system does not report it, as outside Linux.
    """
    try:
        meminfo = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines())
        groups = (PROC / "self" / "cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return 0
    available = int(meminfo.get("MemAvailable", "0 kB").split()[0]) * 1024
    return max(0, min([available, *_left_by_groups(groups)]))


def _left_by_groups(groups: list[str]) -> Iterator[int]:
    """The bytes left in each control group with a limit.

    Args:
        groups: lines "number:controllers:path"; version 2 has only one, without controllers.
    """
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            top, limit, used, files = CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"
        elif controllers == "":
            top, limit, used, files = CGROUPS, "memory.max", "memory.current", ""
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(top):
                break
            try:
                left = int((folder / limit).read_text()) - int((folder / used).read_text())
                stat = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
            except (OSError, ValueError):  # no such group as seen from inside a container, or its limit is "max"
                continue
            yield left + sum(int(stat.get(f"{files}{kind}_file", 0)) for kind in ("active", "inactive"))
