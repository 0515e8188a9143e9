"""Where the training images are stored during a run, and how they are moved to the device.

Results do not depend on it. For a GPU there are three places, and the first with enough memory is used:

- gpu: all of them in the GPU's memory, where the GPU collects a chunk.
- host: a page-locked copy in host memory, which is never swapped out. Each process of a host has its own.
- disk: the mapped files of the cache. The system keeps as much as possible in memory, for all processes together.

For the last two, other threads collect a chunk while the previous one is trained on (`TrainImages.collect`), and the
copy to the GPU overlaps with the steps (`TrainImages.bring`). A pass takes single images in random order, so they are
collected by the CPU even if the GPU could read the host's memory.

For a CPU, images are collected in place.

Shapes: N images, B of them, C channels, H W pixels.
"""

import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pocketvit.data.dataset import MappedRows, pieces
from pocketvit.device import to_device
from pocketvit.errors import InputError
from pocketvit.memory import FreeMemory, free_memory

Place = Literal["gpu", "host", "disk"]
Wanted = Literal["auto", "gpu", "host", "disk"]

GPU_FRAC = 0.5  # fraction of the GPU's free memory for images; activations, which grow with the batch, need the rest
HOST_FRAC = 0.5  # fraction of the host's free memory that may be locked, which all else cannot use
COLLECTORS = 16  # threads that collect images: a disk serves that many requests at once almost as fast as one
FEWEST = 256  # images that are worth a thread


def choose_place(wanted: Wanted, num_bytes: int, free: FreeMemory) -> Place:
    """Choose where to keep images for a GPU.

    Args:
        wanted: `data.keep`: a place, or auto.
        num_bytes: of all images.
        free: memory of the GPU and the host.
    Raises:
        InputError: the wanted place has less memory than the images need.
    """
    if wanted == "auto":
        if num_bytes <= GPU_FRAC * free.gpu:
            return "gpu"
        return "host" if num_bytes <= HOST_FRAC * free.host else "disk"
    available = {"gpu": free.gpu, "host": free.host, "disk": num_bytes}[wanted]
    if num_bytes > available:
        raise InputError(
            f"data.keep={wanted}, but the training images need {_gib(num_bytes)} and only {_gib(available)} are free there; "
            "use data.keep=auto"
        )
    return wanted


def describe_place(place: Place, wanted: Wanted, num_bytes: int, free: FreeMemory) -> str | None:
    """A note on where images are kept and why; None for the GPU, the usual place."""
    if place == "gpu":
        return None
    where = {"host": "in pinned host memory", "disk": "on disk"}[place]
    if wanted == "auto":
        why = f"they need more than half of the {_gib(free.gpu)} free on the GPU"
        if place == "disk":
            why += f" and of the {_gib(free.host)} available to this process on the host"
    else:
        why = f"data.keep={wanted} says so"
    return f"training images: {_gib(num_bytes)}, kept {where} and read ahead, because {why}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.1f} GiB"


class TrainImages:
    """The training images in their place.

    Args:
        images: uint8, (N, H, W, C), in memory or mapped from disk.
        wanted: `data.keep`.
        device: where they are used.
    Raises:
        InputError: they cannot be kept where `wanted` says.
    """

    def __init__(self, images: np.ndarray | MappedRows, *, wanted: Wanted, device: torch.device) -> None:
        self.images, self.device = images, device
        self.place: Place = "disk"
        self.note: str | None = None  # a note on the place, if any
        self.collectors = ThreadPoolExecutor(COLLECTORS)
        if device.type == "cuda":
            self.copying = torch.cuda.Stream(device)
            self._settle(wanted)
        elif wanted not in ("auto", "disk"):
            raise InputError(
                f"data.keep={wanted} is for runs on a GPU, and this one is on {device}; use data.keep=auto"
            )

    def _settle(self, wanted: Wanted) -> None:
        """Choose a place for a GPU's images and move them there."""
        num_bytes, free = self.images.size, free_memory(self.device)
        self.place = choose_place(wanted, num_bytes, free)
        self.note = describe_place(self.place, wanted, num_bytes, free)
        if self.place == "gpu":
            self.on_gpu = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
            for piece in pieces(self.images):  # because the host must pin what it sends
                self.on_gpu[piece].copy_(to_device(self.images[piece], self.device))
        elif self.place == "host":
            self.images = _pinned(self.images)

    def collect(self, indices: np.ndarray) -> np.ndarray | None:
        """Collect images on the host: pixels (B, H, W, C), or None if the GPU will do it.

        Does not use the device, so another thread may call it even while a CUDA graph is captured.
        """
        if self.place == "gpu":
            return None
        pixels = np.empty((len(indices), *self.images.shape[1:]), np.uint8)

        def fill(part: slice) -> None:
            pixels[part] = self.images[indices[part]]

        length = max(FEWEST, -(-len(indices) // COLLECTORS))
        list(self.collectors.map(fill, [slice(i, i + length) for i in range(0, len(indices), length)]))
        return pixels

    def bring(self, indices: np.ndarray, collected: np.ndarray | None) -> Tensor:
        """Images as a tensor, uint8 (B, H, W, C): on the GPU if the run uses one, else on the host.

        Args:
            indices: which, int64, (B,).
            collected: the result of `collect`.
        """
        if collected is None:
            return self.on_gpu[to_device(indices, self.device)]
        if self.device.type != "cuda":
            return torch.from_numpy(collected)
        main = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self.copying):  # on the main stream, the copy would wait for the steps already launched
            images = to_device(collected, self.device)
        main.wait_stream(self.copying)
        images.record_stream(main)  # else its memory could be reused for the next copy while this one is read
        return images


def _pinned(images: np.ndarray | MappedRows) -> np.ndarray:
    """A page-locked copy of all images, (N, H, W, C).

    Locked in place, because PyTorch's own pinned memory comes in powers of two: 65 GiB would take 128.

    Raises:
        InputError: the system refuses to lock so much.
    """
    copy = np.empty(images.shape, np.uint8)
    for piece in pieces(images):
        copy[piece] = images[piece]
    cuda: Any = torch.cuda.cudart()  # which knows its members only at run time
    address = copy.ctypes.data
    status = cuda.cudaHostRegister(address, copy.nbytes, 0)
    if status != cuda.cudaError.success:
        reason = cuda.cudaGetErrorString(status)
        raise InputError(f"cannot pin {_gib(copy.nbytes)} of host memory ({reason}); use data.keep=disk")
    weakref.finalize(copy, cuda.cudaHostUnregister, address)
    return copy
