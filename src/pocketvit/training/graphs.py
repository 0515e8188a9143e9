"""Capturing work in a CUDA graph, all of a process on one stream beside the main one.

cuBLAS keeps a workspace, 33 MiB on an H100, for every stream that it was asked for work on. Streams come from a ring of
32, so that a new one for every capture would take up to a gigabyte, and what a run seems to need would depend on the
runs before it in the same process.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch


@cache
def _side_stream(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


@contextmanager
def beside() -> Iterator[None]:
    """Inside, work goes to the current GPU's stream for captures, between what was asked of the main one before and after."""
    side = _side_stream(torch.cuda.current_device())
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        yield
    torch.cuda.current_stream().wait_stream(side)


def captured(work: Callable[[], object], *, mode: str = "global") -> torch.cuda.CUDAGraph:
    """The work as a graph to `replay`; it has to have run before, `beside`, which compiles it.

    Args:
        work: asks things of the current GPU, and waits for none of them.
        mode: which calls of CUDA other threads may make meanwhile, `capture_error_mode` of `torch.cuda.graph`.
    """
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=_side_stream(torch.cuda.current_device()), capture_error_mode=mode):
        work()
    return graph


def take_workspaces() -> None:
    """Have cuBLAS take, on the current GPU, what it keeps for the main stream and that of captures."""
    a = torch.ones(16, 16, device="cuda", requires_grad=True)
    (a @ a).sum().backward()
    with beside():
        (a @ a).sum().backward()
