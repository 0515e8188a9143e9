"""Timing: repeats after a warm-up, the median with its spread, device time where there is a device clock.

On a GPU small work is timed as a CUDA graph, in which no launch waits for the host.
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
    """How long the same work took, several times."""

    seconds: tuple[float, ...]
    """Of each repeat."""

    @property
    def median_s(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)


def time_repeats(work: Callable[[], object], device: torch.device, repeats: int) -> Timing:
    """Do the work once to warm up, then `repeats` times on the clock.

    On CUDA the clock is the device's own (events before and after the work), elsewhere the host's.
    """
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
    """The same work as one CUDA graph; done once before, which compiles."""
    with graphs.beside():
        work()
    return graphs.captured(work).replay
