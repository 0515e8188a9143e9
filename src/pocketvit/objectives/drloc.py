"""Classification, and how far apart two patches are, predicted from their tokens.

Shapes: B batch, P patches in a grid of rows × columns, N tokens, D width, m pairs.

Source: Liu et al. 2021, "Efficient Training of Visual Transformers with Small Datasets",
https://arxiv.org/abs/2106.03746
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.classification import ACCURACY, Classification
from pocketvit.objectives.distillation import Distillation
from pocketvit.objectives.objective import Objective, Stack

PAIRS = 64  # m, drawn for each image, with repetition
HIDDEN = 512  # channels of both hidden layers of the MLP


class RelativeLocalization(Objective):
    """The loss of the classes plus `weight` times the dense relative localization loss.

    An MLP with two hidden layers takes the last tokens of two patches at (i, j) and (p, h), and predicts the distances
    |i − p| / rows and |j − h| / columns. The loss is the L1 norm of its error, averaged over the pairs of an image.

    Args:
        classes: the loss of the classes.
        model: trained with it.
        weight: λ of the paper, where it is 0.1 to 0.5.
    """

    logged = (ACCURACY, "drloc")
    num_draws = 2 * PAIRS

    def __init__(self, classes: Classification | Distillation, model: ViT, weight: float) -> None:
        self.classes, self.weight, self.images_before = classes, weight, classes.images_before
        width = model.config.width
        self.mlp = nn.Sequential(
            nn.Linear(2 * width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 2)
        )

    @property
    def layers(self) -> nn.Module:
        """The MLP."""
        return self.mlp

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """See `Objective`."""
        self.classes.prepare(model, mean, std)

    def stacks(self, model: ViT) -> tuple[Stack]:
        """All tokens are needed."""
        return (Stack(model.tokens.num_tokens, model.tokens.num_tokens),)

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        assert batch.draws is not None
        tokens = model.features(batch.images, batch.drop_path, batch.dropout)  # (B, N, D)
        loss, right = self.classes.of_tokens(model, batch, tokens)
        distances = self.loss(tokens[:, model.tokens.num_special :], model.tokens.patches.grid, batch.draws)
        logged = {ACCURACY: right, "drloc": distances.detach()}
        batch_size = self.classes.batch_size
        return (loss + self.weight * distances) / batch_size, {name: x / batch_size for name, x in logged.items()}

    def loss(self, patches: Tensor, grid: tuple[int, int], draws: Tensor) -> Tensor:
        """The sum of the images' localization losses, 0-dim.

        Args:
            patches: the patches' tokens, row by row, (B, P, D).
            grid: rows and columns.
            draws: uniform numbers that choose the pairs, (B, 2·m).
        """
        rows, columns = grid
        chosen = (draws * (rows * columns)).long()  # (B, 2·m)
        pairs = patches.gather(1, chosen[:, :, None].expand(-1, -1, patches.shape[2]))  # (B, 2·m, D)
        found = self.mlp(pairs.unflatten(1, (PAIRS, 2)).flatten(2))  # (B, m, 2·D) -> (B, m, 2)
        place = torch.stack([chosen // columns / rows, chosen % columns / columns], dim=2)  # (B, 2·m, 2)
        first, second = place.unflatten(1, (PAIRS, 2)).unbind(2)  # (B, m, 2)
        wanted = (first - second).abs().to(torch.promote_types(found.dtype, torch.float32))
        return F.l1_loss(found.to(wanted.dtype), wanted, reduction="sum") / PAIRS
