"""Classification by a random part of each image's patches.

Shapes: B batch, P patches, T special tokens, k patches that are kept, K classes.

Source: Liu et al. 2022, "PatchDropout", https://arxiv.org/abs/2208.07220
"""

from torch import Tensor

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.classification import ACCURACY, Classification
from pocketvit.objectives.distillation import Distillation
from pocketvit.objectives.objective import Objective, Stack


class PatchDropout(Objective):
    """The loss of the classes, of which the blocks see only k patches of an image.

    Args:
        classes: the loss of the classes.
        model: says how many patches it keeps.
    """

    logged = (ACCURACY,)

    def __init__(self, classes: Classification | Distillation, model: ViT) -> None:
        self.classes, self.images_before = classes, classes.images_before
        self.num_draws = model.tokens.patches.num_patches

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """See `Objective`."""
        self.classes.prepare(model, mean, std)

    def stacks(self, model: ViT) -> tuple[Stack]:
        """Of the kept patches."""
        num_tokens = model.tokens.num_special + model.tokens.num_kept
        return (Stack(num_tokens, model.tokens.num_read or num_tokens),)

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        assert batch.draws is not None
        tokens = model.tokens.drop_patches(model.tokens(batch.images), batch.draws)  # (B, T + k, D)
        tokens = model.encode(tokens, batch.drop_path, batch.dropout, taken=model.tokens.num_read)
        loss, right = self.classes.of_tokens(model, batch, tokens)
        return loss / self.classes.batch_size, {ACCURACY: right / self.classes.batch_size}
