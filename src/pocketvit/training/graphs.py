"""Capture work in CUDA graphs, on one stream per process besides the main one.

cuBLAS keeps a workspace, 33 MiB on an H100, for every stream that it has worked on. Streams come from a ring of
32, so a new one for every capture would take up to a gigabyte, and the measured memory of a run would depend on the
runs before it in the same process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache

import torch


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def beside() -> Iterator[None]:
    """Inside, work goes to the current GPU's stream for captures, in order with the work on the main stream."""
    side = _side_stream(torch.cuda.current_device())
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def captured(work: Callable[[], object], *, mode: str = "global") -> torch.cuda.CUDAGraph:
    """The work as a graph to `replay`; it must have run once `beside`, which compiles it.

    Args:
        work: launches work on the current GPU without waiting for it.
        mode: which CUDA calls other threads may make meanwhile, `capture_error_mode` of `torch.cuda.graph`.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_side_stream(torch.cuda.current_device()), capture_error_mode=mode):
        work()
    return graph


def take_workspaces() -> None:
    """Let cuBLAS, and cuBLASLt for layers with a bias, allocate their workspaces on the current GPU, for both streams."""
    a = torch.ones(16, 16, device="cuda", requires_grad=True)
    for stream in (nullcontext(), beside()):
        with stream:
            (torch.nn.functional.linear(a, a, a[0]) @ a).sum().backward()
