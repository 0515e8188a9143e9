"""Choose between implementations, and run a Triton kernel or only compile it ahead of its first run.

Triton compiles a kernel when it is first launched, and a training step launches a dozen of them, which takes 20 s one
after the other. Much of that happens outside Python, so that several at a time take less. Code that launches kernels
need not know: inside `compiling` the same calls, on tensors without memory (PyTorch's device "meta"), have other
threads compile what they would have run.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

from pocketvit.config.training import Kernels
from pocketvit.errors import InputError

try:
    import triton.knobs
except ImportError:  # Triton comes with PyTorch on Linux only
    triton = None

INTERPRETED = triton is not None and triton.knobs.runtime.interpret
"""Whether Triton interprets its kernels on the CPU, in NumPy (TRITON_INTERPRET=1): slow, but testable anywhere."""

MAX_THREADS = 8
_compiling: ContextVar[bool] = ContextVar("compiling", default=False)


class Choice(NamedTuple):
    """The implementation that runs, and the reason why the preferred one does not, if so."""

    name: str
    reason: str | None


def choose(
    kind: str, kernels: Kernels, implementations: Mapping[str, Callable[[], str | None]], *, fall_back: bool = False
) -> Choice:
    """Choose an implementation: with "auto" the first that is supported, else the named one.

    Args:
        kind: what is computed, for messages, such as "this attention".
        kernels: "auto", a name, or "reference", PyTorch, which is always supported.
        implementations: the fastest first; each name with what tells, in a line, why it does not cover the inputs, or
            None where it does.
        fall_back: run the reference if the named one is not supported.
    Raises:
        InputError: an unknown name, or one that is not supported.
    """
    if kernels not in ("auto", *implementations, "reference"):
        raise InputError(f"kernels={kernels!r}: must be one of auto, {', '.join(implementations)}, reference")
    reasons = ["train.kernels=reference"] if kernels == "reference" else []
    for name, why_not in implementations.items():
        if kernels in ("auto", name):
            reason = why_not()
            if reason is None:
                return Choice(name, reasons[0] if reasons else None)
            reasons.append(reason)
    if kernels not in ("auto", "reference") and not fall_back:
        raise InputError(f"kernels={kernels!r} is not supported for {kind}: {reasons[0]}; use auto")
    return Choice("reference", reasons[0])


def needs_gpu(device: torch.device) -> str | None:
    """Why no Triton kernel runs on tensors of this device; None if they do."""
    if triton is None:
        return "Triton is not installed"
    return None if device.type == "cuda" or INTERPRETED else "the tensors are not on an NVIDIA GPU"


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run `kernel[grid](*arguments, **constants)`; inside `compiling`, only compile it."""
    if is_compiling():
        kernel.warmup(*arguments, grid=grid, **constants)
    else:
        kernel[grid](*arguments, **constants)


def is_compiling() -> bool:
    """Whether this thread is inside `compiling`."""
    return _compiling.get()


@contextmanager
def compiling() -> Iterator[None]:
    """Inside, `launch` in this thread only compiles, in other threads; at the end the kernels are ready."""
    from triton import AsyncCompileMode

    threads = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1))
    with threads, AsyncCompileMode(threads):
        before = _compiling.set(True)
        try:
            yield
        finally:
            _compiling.reset(before)
