"""The tensors of training: chunks of batches on the device, and batches as the model sees them.

In every step, the last part of augmentation takes a batch from its chunk, normalizes, erases and mixes it.

Shapes: S steps of a chunk, B batch (on several processes, the share of this one), C channels, H W pixels, K classes,
L layers, n numbers that the objective draws for an image.
"""

from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from pocketvit.augment.augment import normalise_and_erase
from pocketvit.augment.mix import mix, smooth_targets
from pocketvit.kernels.launch import launch, triton

BLOCK = 1024  # numbers of an image that a program of the kernel makes


class Chunk(NamedTuple):
    """Consecutive batches of a pass on the device, not yet normalized, erased and mixed."""

    images: Tensor  # uint8, (S·B, H, W, C)
    labels: Tensor  # class numbers, int64, (S·B,), or whether an image has each class, bool, (S·B, K)
    erase: Tensor  # boxes to erase, int64, (S·B, 4)
    mix: Tensor  # how each batch is mixed, float32, (S, 7)
    drop_path: Tensor | None = None  # stochastic depth's factors, float32, (S, L, 2, B); None keeps every branch
    draws: Tensor | None = None  # uniform numbers for the objective, float32, (S, B, n); None if it draws none
    dropout: Tensor | None = None  # keys of dropout's masks, int64, (S, 1 + 3·L, B); None drops nothing

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.mix)

    def take(self, position: Tensor) -> Self:
        """The batch at `position`, int64 (1,), as a chunk of one step."""
        batch_size = len(self.labels) // self.num_steps
        rows = position * batch_size + torch.arange(batch_size, device=position.device)  # (B,)
        drawn = (None if tensor is None else tensor[position] for tensor in self[4:])
        return type(self)(self.images[rows], self.labels[rows], self.erase[rows], self.mix[position], *drawn)


class Batch(NamedTuple):
    """The inputs and targets of a step, the argument of an objective."""

    images: Tensor  # normalized, erased and mixed pixels, (B, C, H, W)
    targets: Tensor  # class probabilities, float32, (B, K); of several classes an image, that of each
    drop_path: Tensor | None  # stochastic depth's factors, float32, (L, 2, B); None keeps every branch
    draws: Tensor | None = None  # uniform numbers for the objective, float32, (B, n); None if it draws none
    dropout: Tensor | None = None  # keys of dropout's masks, int64, (1 + 3·L, B); None drops nothing

    def split(self, size: int | None) -> "list[Batch]":
        """The batch in pieces of so many images, the last one perhaps smaller; None keeps it whole."""
        batch_size = len(self.images)
        if size is None or size >= batch_size:
            return [self]

        def piece(tensor: Tensor | None, dim: int, first: int) -> Any:
            return None if tensor is None else tensor.narrow(dim, first, min(size, batch_size - first)).contiguous()

        dims = (0, 0, -1, 0, -1)  # where B is
        return [Batch(*map(piece, self, dims, repeat(first))) for first in range(0, batch_size, size)]


@dataclass(frozen=True)
class BatchMaker:
    """Makes the inputs and targets of a step.

    Args:
        mean: of the training pixels in [0, 1], (C,).
        std: of the same pixels, (C,).
        num_classes: K.
        label_smoothing: probability spread over all classes.
    """

    mean: Tensor
    std: Tensor
    num_classes: int
    label_smoothing: float

    def finish(self, chunk: Chunk) -> Batch:
        """The batch of a chunk of one step, its images in float32."""
        x = normalise_and_erase(chunk.images, self.mean, self.std, chunk.erase)  # (B, C, H, W)
        targets = smooth_targets(chunk.labels, self.num_classes, self.label_smoothing)  # (B, K)
        drawn = (None if tensor is None else tensor.squeeze(0) for tensor in chunk[4:])
        return Batch(*mix(x, targets, chunk.mix.squeeze(0)), *drawn)

    def fused(self, chunk: Chunk, position: Tensor, dtype: torch.dtype) -> Batch:
        """The batch at `position` (1,) of a chunk by one kernel, on a GPU; its images in `dtype`, computed in float32.

        Without it, this takes a dozen small kernels, or compiling at every start.
        """
        if chunk.labels.ndim == 2:  # the kernel makes targets of one class each
            batch = self.finish(chunk.take(position))
            return batch._replace(images=batch.images.to(dtype))
        from pocketvit.kernels.batch_triton import batch_kernel  # needs Triton

        tensors = chunk[:4]
        count, height, width, channels = chunk.images.shape
        B, K = count // chunk.num_steps, self.num_classes
        x = chunk.images.new_empty(B, channels, height, width, dtype=dtype)
        targets = self.mean.new_empty(B, K)
        launch(
            batch_kernel, (B, triton.cdiv(channels * height * width, BLOCK)),
            *tensors, position, self.mean, self.std, x, targets, B,
            HEIGHT=height, WIDTH=width, CHANNELS=channels, CLASSES=K, CLASSES_PADDED=triton.next_power_of_2(K),
            SMOOTHING=self.label_smoothing, BLOCK=BLOCK,
        )  # fmt: skip
        drawn = (None if tensor is None else tensor[position].squeeze(0) for tensor in chunk[4:])
        return Batch(x, targets, *drawn)
