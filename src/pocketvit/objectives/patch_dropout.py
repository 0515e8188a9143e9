"""Classification by a random part of each image's patches.

Shapes: B batch, P patches, T special tokens, k patches that are kept, K classes.

Source: Liu et al. 2022, "PatchDropout", https://arxiv.org/abs/2208.07220
"""

from torch import Tensor

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.classification import cross_entropy
from pocketvit.objectives.objective import Objective, Stack


class PatchDropout(Objective):
    """Cross-entropy of the logits, of which the blocks see only k patches of an image.

    Args:
        batch_size: images of a step over all processes.
        model: says how many patches it keeps.
    """

    def __init__(self, batch_size: int, model: ViT) -> None:
        self.batch_size, self.num_draws = batch_size, model.tokens.patches.num_patches

    def stacks(self, model: ViT) -> tuple[Stack]:
        """Of the kept patches."""
        num_tokens = model.tokens.num_special + model.tokens.num_kept
        return (Stack(num_tokens, model.tokens.num_cls or num_tokens),)

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        assert batch.draws is not None
        tokens = model.tokens.drop_patches(model.tokens(batch.images), batch.draws)  # (B, T + k, D)
        tokens = model.encode(tokens, batch.drop_path, taken=model.tokens.num_cls or None)
        return cross_entropy(model.classify(tokens), batch.targets) / self.batch_size, {}
