"""The interface of objectives."""

from typing import Protocol

from torch import Tensor

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT


class Objective(Protocol):
    """From a model and a batch to the loss.

    It runs in every step, under bf16 autocast where the run uses it, and may be compiled and captured in a CUDA graph. So
    it never waits for the device: no `.item()`, no branch on a tensor's value.
    """

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of other logged values; each becomes a field of metrics.jsonl, its mean over a pass."""
        ...

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        On several processes, each has a share of the batch, and their results are summed. So both are sums over
        the local images, divided by the batch size of the run.

        Returns:
            the loss, 0-dim, and the values of `logged` by name, 0-dim and detached.
        """
        ...
