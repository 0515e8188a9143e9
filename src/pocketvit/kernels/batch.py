"""A training batch in one launch: taken from the chunk that lies on the GPU, normalised, erased, mixed.

Alone these are a dozen small kernels, or a compiler's work at every start. The plain twin is
`pocketvit.augment.batch.BatchMaker.finish` on a batch taken before.

Shapes: S steps of a chunk, B batch, C channels, H W pixels, K classes.
"""

import torch
import triton
from torch import Tensor

from pocketvit.kernels.batch_triton import batch_kernel
from pocketvit.kernels.launch import launch

BLOCK = 1024
"""Numbers of an image that a program makes."""


def fused_batch(
    images: Tensor,
    labels: Tensor,
    erase: Tensor,
    mix: Tensor,
    position: Tensor,
    *,
    mean: Tensor,
    std: Tensor,
    num_classes: int,
    label_smoothing: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """What the model sees of a step, (B, C, H, W), and what it should say, float32 (B, K).

    Args:
        images: of the chunk, uint8, (S·B, H, W, C).
        labels: int64, (S·B,).
        erase: boxes, int64, (S·B, 4).
        mix: how each batch is mixed, float32, (S, 7).
        position: which step, int64, (1,).
        mean: of the training pixels in [0, 1], (C,).
        std: likewise.
        num_classes: K.
        label_smoothing: probability spread over all classes.
        dtype: of the pixels; everything is computed in float32.
    """
    count, height, width, channels = images.shape
    B = count // len(mix)
    out = images.new_empty(B, channels, height, width, dtype=dtype)
    targets = mean.new_empty(B, num_classes)
    launch(
        batch_kernel, (B, triton.cdiv(out[0].numel(), BLOCK)),
        images, labels, erase, mix, position, mean, std, out, targets, B,
        HEIGHT=height, WIDTH=width, CHANNELS=channels, CLASSES=num_classes,
        CLASSES_PADDED=triton.next_power_of_2(num_classes), SMOOTHING=label_smoothing, BLOCK=BLOCK,
    )  # fmt: skip
    return out, targets
