"""The interface of objectives."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT


class Stack(NamedTuple):
    """The size of what a stack of blocks computes for an image."""

    num_tokens: int
    taken: int  # tokens that are needed after the last block, from the first


class Objective(Protocol):
    """From a model and a batch to the loss.

    It runs in every step, under bf16 autocast where the run uses it, and may be compiled and captured in a CUDA graph. So
    it never waits for the device: no `.item()`, no branch on a tensor's value.
    """

    logged: tuple[str, ...] = ()
    """Names of other logged values; each becomes a field of metrics.jsonl, its mean over a pass."""
    shared: tuple[str, ...] = ()
    """Names of further values, of any shape and summed over the processes as the loss is, that `update` needs."""
    num_draws: int = 0
    """How many uniform numbers it needs for each image of a step, as `batch.draws`."""
    bf16_images: bool = False
    """Whether images may come in bf16 where the run uses it: if nothing but the model's patch embedding reads them."""
    images_before: int | None = 0
    """Training images that models it learns from have seen; None if unknown."""

    @property
    def layers(self) -> nn.Module:
        """Its own layers, trained with the model and saved in checkpoints, but no part of the trained model."""
        return nn.Module()

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """Get ready for the first step.

        Args:
            model: with its initial weights.
            mean: of the training pixels in [0, 1], (C,).
            std: of the same pixels, (C,).
        """

    def update(self, model: ViT, shared: dict[str, Tensor], progress: Tensor) -> None:
        """Change what the optimizers do not, after they have updated the weights; captured like the rest of the step.

        Args:
            shared: the values of this step.
            progress: the part of the run that is done before this step, (1,).
        """

    def stacks(self, model: ViT) -> Sequence[Stack]:
        """The stacks of blocks that a step runs, the model's first."""
        num_tokens = model.tokens.num_tokens
        return (Stack(num_tokens, model.tokens.num_read or num_tokens),)

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        On several processes, each has a share of the batch, perhaps in pieces (`train.micro_batch`), and all results are
        summed. So both are sums over the given images, divided by the batch size of the run.

        Returns:
            the loss, 0-dim, and the values of `logged`, 0-dim, and of `shared` by name, detached.
        """
        ...
