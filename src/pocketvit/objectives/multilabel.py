"""Classification where an image may have several classes, or none: each class is a question of its own.

Shapes: B batch, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.augment.batch import Batch
from pocketvit.objectives.objective import Objective


@dataclass(frozen=True)
class Multilabel(Objective):
    """The binary cross-entropy of each class's logit, in the mean over the classes.

    Args:
        batch_size: images of a step over all processes.
    """

    batch_size: int
    bf16_images = True

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the images' losses over the batch size; see `Objective`."""
        logits = model(batch.images, batch.drop_path, batch.dropout)  # (B, K)
        return binary_cross_entropy(logits, batch.targets) / self.batch_size, {}


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over images of the classes' mean cross-entropy of logits (B, K) against probabilities (B, K), 0-dim."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse for a sum
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction="sum") / logits.shape[1]
