"""The last part of augmentation, done in every step: a batch is taken from its chunk, normalised, erased and mixed.

Shapes: S steps of a chunk, B batch, C channels, H W pixels, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pocketvit.augment.augment import normalise_and_erase
from pocketvit.augment.mix import mix, smooth_targets


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

    def finish(self, images: Tensor, labels: Tensor, erase: Tensor, mix_row: Tensor) -> tuple[Tensor, Tensor]:
        """A batch from its augmented images.

        Args:
            images: uint8, (B, H, W, C).
            labels: int64, (B,).
            erase: boxes, (B, 4).
            mix_row: how the batch is mixed, (7,).
        Returns:
            normalised, erased and mixed images, float32 (B, C, H, W), and class probabilities (B, K).
        """
        x = normalise_and_erase(images, self.mean, self.std, erase)  # (B, C, H, W)
        targets = smooth_targets(labels, self.num_classes, self.label_smoothing)  # (B, K)
        return mix(x, targets, mix_row)

    def fused(
        self, images: Tensor, labels: Tensor, erase: Tensor, mix_rows: Tensor, position: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """The same for the batch at `position` (1,) of a chunk by one kernel, on a GPU; the images in `dtype`.

        Args:
            images: uint8, (S·B, H, W, C).
            labels: int64, (S·B,).
            erase: boxes, (S·B, 4).
            mix_rows: (S, 7).
            position: int64, (1,).
            dtype: of the images.
        """
        from pocketvit.kernels.batch import fused_batch  # needs Triton

        return fused_batch(
            images,
            labels,
            erase,
            mix_rows,
            position,
            mean=self.mean,
            std=self.std,
            num_classes=self.num_classes,
            label_smoothing=self.label_smoothing,
            dtype=dtype,
        )
