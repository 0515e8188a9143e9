"""Classification: the model's logits against the targets."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketvit.augment.batch import Batch


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of the logits against class probabilities.

    Args:
        batch_size: images of a step over all processes.
    """

    batch_size: int
    logged: tuple[str, ...] = ()

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the images' losses over the batch size; see `Objective`."""
        logits = model(batch.images, batch.drop_path)  # (B, K)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse for a sum
        return -(batch.targets * torch.log_softmax(logits, dim=1)).sum() / self.batch_size, {}
