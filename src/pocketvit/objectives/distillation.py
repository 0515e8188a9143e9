"""Classification, half by the labels and half by a trained model's answers.

Shapes: B batch, C channels, H W pixels, N tokens, D width, K classes.

Source: Touvron et al. 2021, https://arxiv.org/abs/2012.12877 (hard distillation)
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.classification import ACCURACY, count_right, cross_entropy
from pocketvit.objectives.objective import Objective


class Distillation(Objective):
    """Half the cross-entropy of the CLS tokens' logits, and half that of the distillation token's with the teacher's answers.

    The teacher's answer is the most probable class of the same augmented, erased and mixed image, not smoothed.

    Args:
        batch_size: images of a step over all processes.
        teacher: in evaluation mode, on the device of the images.
        mean: of the teacher's training pixels in [0, 1], one number per channel.
        std: of the same pixels.
        images: that the teacher has seen in training; None if unknown.
        weights: of the classes in the half by the labels, (K,); None weighs all alike.
    """

    logged = (ACCURACY,)

    def __init__(
        self,
        batch_size: int,
        teacher: ViT,
        mean: Sequence[float],
        std: Sequence[float],
        images: int | None,
        weights: Tensor | None = None,
    ) -> None:
        self.weights = weights
        self.batch_size, self.teacher, self.stats, self.images_before = batch_size, teacher, (mean, std), images

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """Make the factor and the offset that normalize pixels for the teacher instead of the student, (C, 1, 1) each."""
        own_mean, own_std = (mean.new_tensor(values) for values in self.stats)
        self.factor, self.offset = (std / own_std)[:, None, None], ((mean - own_mean) / own_std)[:, None, None]

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        tokens = model.features(batch.images, batch.drop_path, batch.dropout, taken=model.tokens.num_read)  # (B, N, D)
        loss, right = self.of_tokens(model, batch, tokens)
        return loss / self.batch_size, {ACCURACY: right / self.batch_size}

    def of_tokens(self, model: ViT, batch: Batch, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the images' losses and how many are right, 0-dim each, given the model's tokens of the batch."""
        own, distilled = model.heads(tokens)  # (B, K) each
        distilled = distilled.to(torch.promote_types(distilled.dtype, torch.float32))
        by_answers = F.cross_entropy(distilled, self.answers(batch.images), reduction="sum")
        right = count_right(model.classify(tokens), batch.targets)
        return (cross_entropy(own, batch.targets, self.weights) + by_answers) / 2, right

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """The teacher's classes, int64 (B,), of images normalized for the student, (B, C, H, W)."""
        images = (images * self.factor + self.offset).to(images.dtype)
        return self.teacher(images).argmax(dim=1)
