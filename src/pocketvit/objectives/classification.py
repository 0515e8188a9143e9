"""Classification: the model's logits against the targets."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.objective import Objective

ACCURACY = "train_accuracy"
"""Of the training images as the model sees them in a step, augmented and mixed, before the step's update."""


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy of the logits against class probabilities; logs the share of right images as well.

    Args:
        batch_size: images of a step over all processes.
        weights: of the classes in the loss, (K,); None weighs all alike.
    """

    batch_size: int
    weights: Tensor | None = None
    logged = (ACCURACY,)
    bf16_images = True

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the images' losses over the batch size; see `Objective`."""
        if (
            isinstance(model, ViT)
            and self.weights is None
            and batch.dropout is None
            and model.head_kernels(batch.images).name != "reference"
        ):
            loss, right = model.loss(batch.images, batch.targets, batch.drop_path, scale=1 / self.batch_size)
            return loss, {ACCURACY: right}
        logits = model(batch.images, batch.drop_path, batch.dropout)  # (B, K)
        right = count_right(logits, batch.targets) / self.batch_size
        return cross_entropy(logits, batch.targets, self.weights) / self.batch_size, {ACCURACY: right}

    def of_tokens(self, model: ViT, batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the images' losses and how many are right, 0-dim each, given the model's tokens of the batch."""
        logits = model.classify(tokens)
        return cross_entropy(logits, batch.targets, self.weights), count_right(logits, batch.targets)


def cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """The sum over images of the cross-entropy of logits (B, K) against class probabilities (B, K), 0-dim.

    With weights (K,), each class's part of a target counts by the class's weight, as in PyTorch: so an image mixed of two
    classes by both of theirs, and the share that smoothing gives to other classes by those.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # bf16 is too coarse for a sum
    targets = targets if weights is None else targets * weights
    return -(targets * torch.log_softmax(logits, dim=1)).sum()


def count_right(logits: Tensor, targets: Tensor) -> Tensor:
    """How many images have their greatest logit (B, K) where their greatest target (B, K) is, 0-dim.

    So a mixed image counts as its larger part, and smoothing changes nothing.
    """
    right = logits.argmax(dim=1) == targets.argmax(dim=1)
    return right.sum(dtype=torch.promote_types(logits.dtype, torch.float32))
