"""The tensors that training runs on: chunks of batches on the device, and a batch as the model sees it.

A batch is made in every step by the last part of augmentation: taken from its chunk, normalised, erased and mixed.

Shapes: S steps of a chunk, B batch (on several processes, the share of this one), C channels, H W pixels, K classes,
L blocks.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from pocketvit.augment.augment import normalise_and_erase
from pocketvit.augment.mix import mix, smooth_targets


class Chunk(NamedTuple):
    """Consecutive batches of a pass on the device, ready but for normalising, erasing and mixing."""

    images: Tensor
    """uint8, (S·B, H, W, C)."""
    labels: Tensor
    """int64, (S·B,)."""
    erase: Tensor
    """Boxes to erase, int64, (S·B, 4)."""
    mix: Tensor
    """How each batch is mixed, float32, (S, 7)."""
    drop_path: Tensor | None = None
    """Stochastic depth's factors, float32, (S, L, 2, B); None keeps every branch."""

    @property
    def num_steps(self) -> int:
        """S."""
        return len(self.mix)

    def take(self, position: Tensor) -> Self:
        """The batch at `position`, int64 (1,), as a chunk of one step."""
        batch_size = len(self.labels) // self.num_steps
        rows = position * batch_size + torch.arange(batch_size, device=position.device)  # (B,)
        drop_path = None if self.drop_path is None else self.drop_path[position]
        return type(self)(self.images[rows], self.labels[rows], self.erase[rows], self.mix[position], drop_path)


class Batch(NamedTuple):
    """What the model sees in a step, and what it should say: what an objective is given."""

    images: Tensor
    """Normalised, erased and mixed pixels, (B, C, H, W)."""
    targets: Tensor
    """Class probabilities, float32, (B, K)."""
    drop_path: Tensor | None
    """Stochastic depth's factors, float32, (L, 2, B); None keeps every branch."""


@dataclass(frozen=True)
class BatchMaker:
    """Makes what the model sees and what it should say.

    Args:
        mean: of the training pixels in [0, 1], (C,).
        std: likewise, (C,).
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
        drop_path = None if chunk.drop_path is None else chunk.drop_path.squeeze(0)  # (L, 2, B)
        return Batch(*mix(x, targets, chunk.mix.squeeze(0)), drop_path)

    def fused(self, chunk: Chunk, position: Tensor, dtype: torch.dtype) -> Batch:
        """The batch at `position` (1,) of a chunk by one kernel, on a GPU; its images in `dtype`."""
        from pocketvit.kernels.batch import fused_batch  # needs Triton

        x, targets = fused_batch(
            *chunk[:4],
            position,
            mean=self.mean,
            std=self.std,
            num_classes=self.num_classes,
            label_smoothing=self.label_smoothing,
            dtype=dtype,
        )
        drop_path = None if chunk.drop_path is None else chunk.drop_path[position].squeeze(0)  # (L, 2, B)
        return Batch(x, targets, drop_path)
