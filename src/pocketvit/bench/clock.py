"""Timing: repeats after a warm-up, their median and spread, by the device's clock if it has one.

On a GPU, small work is timed as a CUDA graph, in which no launch waits for the host.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pocketvit.device import synchronize
from pocketvit.training import graphs


@dataclass(frozen=True)
class Timing:
    """The times of repeats of the same work."""

    seconds: tuple[float, ...]  # of each repeat

    @property
    def median_s(self) -> float:
        """The median time."""
        return statistics.median(self.seconds)


def time_repeats(work: Callable[[], object], device: torch.device, repeats: int) -> Timing:
    """Do the work once to warm up, then time it `repeats` times, by CUDA events on a GPU and the host's clock elsewhere."""
    work()
    synchronize(device)
    once = _device_seconds if device.type == "cuda" else _host_seconds
    return Timing(tuple(once(work, device) for _ in range(repeats)))


def _device_seconds(work: Callable[[], object], device: torch.device) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.cuda.device(device):
        start.record()
        work()
        end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _host_seconds(work: Callable[[], object], device: torch.device) -> float:
    began = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - began


def captured(work: Callable[[], object]) -> Callable[[], object]:
    """The work as one CUDA graph, after doing it once, which compiles.

    Peak memory counts from the capture on, because Inductor's first compilation times kernels, with a buffer as large as
    the L2 cache.
    """
    with graphs.beside():
        work()
    torch.cuda.reset_peak_memory_stats()
    return graphs.captured(work).replay
