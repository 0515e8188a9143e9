"""Classification: the model's logits against the targets."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketvit.augment.batch import Batch
from pocketvit.objectives.objective import Objective


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy of the logits against class probabilities.

    Args:
        batch_size: images of a step over all processes.
    """

    batch_size: int

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the images' losses over the batch size; see `Objective`."""
        return cross_entropy(model(batch.images, batch.drop_path), batch.targets) / self.batch_size, {}


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum over images of the cross-entropy of logits (B, K) against class probabilities (B, K), 0-dim."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse for a sum
    return -(targets * torch.log_softmax(logits, dim=1)).sum()
