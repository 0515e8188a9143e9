"""The device of a run: its choice, name, memory, batch sizes that fit, and deterministic results."""

import gc
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pocketvit.errors import InputError
from pocketvit.memory import free_gpu_memory

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable that cuBLAS reads when it starts; results are reproducible only with one of two values."""
REPEATING = (":4096:8", ":16:8")


def choose_device(wanted: str) -> torch.device:
    """The device for `train.device`: auto takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        InputError: no such device, or not on this machine.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted not in ("auto", *present):
        raise InputError(f"device={wanted!r}: must be one of auto, {', '.join(present)}")
    if wanted == "auto":
        wanted = next(name for name, here in present.items() if here)
    if not present[wanted]:
        raise InputError(f"train.device={wanted}, but this machine has no {wanted} device; use train.device=auto")
    return torch.device("cuda", torch.cuda.current_device()) if wanted == "cuda" else torch.device(wanted)


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A NumPy array as a tensor on the device; on CUDA, without waiting for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def device_name(device: torch.device) -> str:
    """The hardware's name, such as "NVIDIA H100 80GB HBM3" or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        try:
            with open("/proc/cpuinfo") as lines:
                name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        except (OSError, StopIteration):
            name = platform.processor() or platform.machine()
        num_threads = torch.get_num_threads()
        return f"{name} ({num_threads} thread{'s' if num_threads > 1 else ''})"
    return f"{platform.processor() or platform.machine()} ({device.type})"


NUMBERS_PER_THREAD = 40_000
"""Numbers in an activation per thread. At 20 thousand, two threads are a tenth faster than one on a
idle machine, and several times slower if a core is busy, because each waits for the other; at 70 thousand
they are 1.5 times as fast (two cores of a Xeon)."""


@contextmanager
def fitting_threads(device: torch.device, numbers: int) -> Iterator[None]:
    """On a CPU, use no more threads than suit the size of a model; OMP_NUM_THREADS overrides this.

    Args:
        numbers: elements of one of its activations, B · N · D.
    """
    usual = torch.get_num_threads()
    if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, min(usual, -(-numbers // NUMBERS_PER_THREAD))))
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether `train.precision` means bf16 autocast on this device."""
    return {"auto": device.type == "cuda", "bf16": True, "fp32": False}[precision]


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type of a model's tokens on this device, by `train.precision`."""
    return torch.bfloat16 if uses_bf16(precision, device) else torch.float32


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def watch_memory(device: torch.device) -> int:
    """Free unused GPU memory, and reset `peak_memory_gib`.

    Returns:
        bytes on the GPU that are still in use: after compiled code, a model with its images.
    """
    if device.type != "cuda" or not torch.cuda.is_initialized():  # before CUDA starts, nothing is in use
        return 0
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_memory_gib(device: torch.device, held: int = 0) -> float | None:
    """Peak device memory of tensors since `watch_memory`, in GiB; None if the device does not report it.

    Args:
        held: bytes to leave out, from `watch_memory`.
    """
    return (torch.cuda.max_memory_allocated(device) - held) / 2**30 if device.type == "cuda" else None


SMALL_BATCHES = (32, 4)  # batch sizes to measure memory at: the first one of which twice the size fits


def largest_batch(run: Callable[[int], None], device: torch.device) -> int:
    """The batch size that would fit in the free memory of a GPU, by running a small one and twice that.

    Args:
        run: one training step at a batch size.
    Returns:
        an estimate rounded down to a multiple of the small one's quarter; 0 if not even the smallest ones fit.
    """
    for small in SMALL_BATCHES:
        try:
            first, second = (_peak_memory(run, size, device) for size in (small, 2 * small))
        except torch.cuda.OutOfMemoryError:
            continue
        per_image = max(1, (second - first) / small)
        available = free_gpu_memory(device) + torch.cuda.memory_allocated(device)
        fixed, step = first - small * per_image, small // 4
        return max(0, int((0.95 * available - fixed) / per_image) // step * step)
    return 0


def _peak_memory(run: Callable[[int], None], batch_size: int, device: torch.device) -> int:
    """Peak memory of tensors during a step, in bytes."""
    watch_memory(device)
    run(batch_size)
    return torch.cuda.max_memory_allocated(device)


@contextmanager
def repeating(wanted: bool, device: str) -> Iterator[None]:
    """Let PyTorch use only operations that give the same bits every time; restore its modes afterwards.

    The setting that cuBLAS reads when it starts is kept for later runs in this process.

    Args:
        wanted: `train.deterministic`; if False, nothing changes.
    Raises:
        InputError: CUDA has started in this process without the setting that cuBLAS needs.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    if device != "cpu" and os.environ.get(WORKSPACE) not in REPEATING:
        if torch.cuda.is_initialized():
            raise InputError(
                f"train.deterministic needs {WORKSPACE}={REPEATING[0]} before CUDA starts, and CUDA has started in this "
                "process; set it in the environment"
            )
        os.environ[WORKSPACE] = REPEATING[0]
    modes = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    choices = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(modes[0], warn_only=modes[1])
        cudnn.deterministic, cudnn.benchmark = choices
