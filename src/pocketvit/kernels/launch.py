"""Running a Triton kernel, or only compiling it ahead of its first run.

Triton compiles a kernel when it is first launched, and a training step launches a dozen of them, which takes 20 s one
after the other. Much of that happens outside Python, so that several at a time take less. Code that launches kernels
need not know: inside `compiling` the same calls, on tensors without memory (PyTorch's device "meta"), have other
threads compile what they would have run.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

MAX_THREADS = 8
_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run `kernel[grid](*arguments, **constants)`; inside `compiling`, only compile what that would run."""
    if is_compiling():
        kernel.warmup(*arguments, grid=grid, **constants)
    else:
        kernel[grid](*arguments, **constants)


def is_compiling() -> bool:
    """Whether this thread is inside `compiling`."""
    return _compiling.get()


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, and in this thread, `launch` only compiles, in other threads; at the end the kernels are ready."""
    from triton import AsyncCompileMode

    threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    with threads, AsyncCompileMode(threads):
        before = _compiling.set(True)
        try:
            yield
        finally:
            _compiling.reset(before)
