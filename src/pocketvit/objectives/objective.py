"""What an objective has to offer the training step."""

from typing import Protocol

from torch import Tensor

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT


class Objective(Protocol):
    """From a model and a batch to what is minimised.

    It runs in every step, under bf16 autocast where the run uses it, and may be compiled and captured in a CUDA graph. So
    it never waits for the device: no `.item()`, no branch on a tensor's value.
    """

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of what it reports beside the loss; each becomes a field of metrics.jsonl, its mean over a pass."""
        ...

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        On several processes each has a share of the batch, and what they return is added up. So both are sums over
        the images at hand, divided by the batch size of the run.

        Returns:
            the loss, 0-dim, and by name what `logged` lists, 0-dim and detached.
        """
        ...
