"""Self-distillation without labels, to start from (`init_from`), while the classifier learns beside it.

A student is to answer for one random view of an image what its teacher, the moving average of its weights, answers for
another one. Two things keep all answers from becoming one: the teacher's are centered, and sharpened by a low temperature.

The classifier is trained as well, on tokens that it cannot change. So a run's accuracy says, from below, what a
linear classifier reads from the tokens (with `model.head=linear`), and no parameter is without gradient.

DINO or the masked autoencoder of `mae.py`? Where both are published, DINO's tokens are worth more to a linear classifier:
78.2 % of ImageNet with ViT-B, the autoencoder's 68.0 % (He et al. 2022). And DINO has raised a ViT of 2.8 M parameters on
CIFAR-10 by 2.8 points (Gani et al. 2022). But a step of the autoencoder is far cheaper, and in a tiny trial of equal seconds
it was ahead (dev/LOG.md). Whole runs decide.

Shapes: B batch, C channels, H W pixels, N tokens, D width, K prototypes. The views' batches are one behind the other: 2·B.

Sources: Caron et al. 2021, https://arxiv.org/abs/2104.14294; for small data sets Gani et al. 2022,
https://arxiv.org/abs/2210.07240; its random crops and colors: Chen et al. 2020 (SimCLR), https://arxiv.org/abs/2002.05709
Differs: two views, without small local ones; temperatures and the last layer are the same from the first step on; colors are
changed in the order brightness, contrast, saturation, without blur.
"""

import copy
from math import log, pi

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.augment.batch import Batch
from pocketvit.model import ViT
from pocketvit.objectives.classification import ACCURACY, count_right, cross_entropy
from pocketvit.objectives.objective import Objective

PROTOTYPES, HIDDEN, BOTTLENECK = 1024, 512, 128
TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
MOMENTUM = 0.996  # of the teacher at the start, rising to 1 by a cosine
CENTER_MOMENTUM = 0.9
LEAST_AREA, MOST_RATIO = 0.25, 4 / 3  # of a crop: share of the image's area, and width over height or its inverse
BRIGHTNESS, CONTRAST, SATURATION = 0.4, 0.4, 0.2  # greatest changes
COLORED_PROB, GRAY_PROB = 0.8, 0.2
DRAWS = 10  # numbers for a view


class Projection(nn.Module):
    """From pooled tokens to K cosines with prototypes, by an MLP."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(channels, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK)
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, BOTTLENECK))

    def forward(self, x: Tensor) -> Tensor:
        """Pooled tokens (B, channels) -> cosines (B, K)."""
        return F.linear(F.normalize(self.mlp(x), dim=1), F.normalize(self.prototypes, dim=1).to(x.dtype))


class Layers(nn.Module):
    """What DINO keeps beside the model: the student's projection, the teacher with its own, and the center (K,)."""

    center: Tensor

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.projection = Projection(model.config.width * max(1, model.tokens.num_cls))
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)
        self.teacher_projection = copy.deepcopy(self.projection).requires_grad_(False)
        self.register_buffer("center", torch.zeros(PROTOTYPES))


class Dino(Objective):
    """The cross-entropy between the teacher's and the student's answers, and the classifier's own, which is separate.

    Args:
        batch_size: images of a step over all processes.
        model: trained with it.
    """

    logged = (ACCURACY, "dino")
    shared = ("center",)
    num_draws = 2 * DRAWS

    def __init__(self, batch_size: int, model: ViT) -> None:
        self.batch_size, self.own = batch_size, Layers(model)

    @property
    def layers(self) -> Layers:
        """The teacher's are not trained, but saved."""
        return self.own

    def prepare(self, model: ViT, mean: Tensor, std: Tensor) -> None:
        """Start the teacher as the student starts; see `Objective`."""
        self.own.teacher.load_state_dict(model.state_dict())
        self.own.teacher.use_kernels(model.kernels)
        self.mean, self.std = mean[:, None, None], std[:, None, None]

    def __call__(self, model: ViT, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """See `Objective`."""
        assert batch.draws is not None
        views = torch.cat(
            [self.view(batch.images, draws) for draws in batch.draws.split(DRAWS, dim=1)]
        )  # (2·B, C, H, W)
        both = (None if x is None else torch.cat([x] * 2, dim=-1) for x in (batch.drop_path, batch.dropout))
        tokens = model.features(views, *both, taken=model.tokens.num_read)  # (2·B, N, D)
        found = self.own.projection(model.pool(tokens).flatten(1))  # (2·B, K)
        with torch.no_grad():
            teacher = self.own.teacher
            wanted = teacher.pool(teacher.features(views, taken=model.tokens.num_read)).flatten(1)
            wanted = self.own.teacher_projection(wanted)  # (2·B, K)
        loss = dino_loss(found, wanted, self.own.center)
        logits, targets = model.classify(tokens.detach()), torch.cat([batch.targets] * 2)
        classes, right = cross_entropy(logits, targets) / 2, count_right(logits, targets) / 2
        values = {ACCURACY: right, "dino": loss.detach(), "center": wanted.to(self.own.center.dtype).sum(dim=0) / 2}
        return (loss + classes) / self.batch_size, {name: value / self.batch_size for name, value in values.items()}

    def view(self, images: Tensor, draws: Tensor) -> Tensor:
        """A random view of each image: a part of it, enlarged, perhaps mirrored, and in other colors.

        Args:
            images: normalized pixels, (B, C, H, W).
            draws: uniform numbers, (B, `DRAWS`).
        Returns:
            of the same shape and type.
        """
        with torch.autocast(images.device.type, enabled=False):  # in bf16, places would be off by pixels
            return self._view(images.to(self.mean.dtype), draws.to(self.mean.dtype)).to(images.dtype)

    def _view(self, images: Tensor, draws: Tensor) -> Tensor:
        area, ratio, x, y, mirrored, bright, contrast, saturated, colored, gray = draws.unbind(1)
        side = (LEAST_AREA + (1 - LEAST_AREA) * area).sqrt()
        stretch = (log(MOST_RATIO) / 2 * (2 * ratio - 1)).exp()
        width, height = (side * stretch).clamp(max=1), (side / stretch).clamp(max=1)  # relative to the image's
        zero = torch.zeros_like(x)
        rows = (
            torch.stack([torch.where(mirrored < 0.5, -width, width), zero, (1 - width) * (2 * x - 1)], dim=1),
            torch.stack([zero, height, (1 - height) * (2 * y - 1)], dim=1),
        )
        grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)  # (B, H, W, 2)
        cropped = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

        def around_one(draw: Tensor, most: float) -> Tensor:
            return (1 + most * (2 * draw - 1))[:, None, None, None]

        pixels = cropped * self.std + self.mean
        changed = pixels * around_one(bright, BRIGHTNESS)
        changed = torch.lerp(changed.mean(dim=(1, 2, 3), keepdim=True), changed, around_one(contrast, CONTRAST))
        amount = around_one(saturated, SATURATION) * (gray >= GRAY_PROB)[:, None, None, None]
        changed = torch.lerp(changed.mean(dim=1, keepdim=True), changed, amount).clamp(0, 1)
        pixels = torch.where((colored < COLORED_PROB)[:, None, None, None], changed, pixels)
        return (pixels - self.mean) / self.std

    @torch.no_grad()
    def update(self, model: ViT, shared: dict[str, Tensor], progress: Tensor) -> None:
        """Move the teacher towards the student, and the center towards the teacher's mean answer; see `Objective`."""
        self.own.center.lerp_(shared["center"], 1 - CENTER_MOMENTUM)
        kept: list[Tensor] = [*self.own.teacher.parameters(), *self.own.teacher_projection.parameters()]
        student: list[Tensor] = [*model.parameters(), *self.own.projection.parameters()]
        moves = torch._foreach_sub(student, kept)
        torch._foreach_mul_(moves, (1 - MOMENTUM) * (torch.cos(pi * progress.squeeze(0)) + 1) / 2)
        torch._foreach_add_(kept, moves)


def dino_loss(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    """The cross-entropy of the student's answers with the teacher's for the other view, summed over images, 0-dim.

    Args:
        student: outputs of the projection, (2·B, K).
        teacher: the same of the teacher.
        center: of the teacher's outputs, (K,).
    """
    dtype = torch.promote_types(student.dtype, torch.float32)
    wanted = ((teacher.to(dtype) - center.to(dtype)) / TEACHER_TEMPERATURE).softmax(dim=1)
    found = (student.to(dtype) / TEMPERATURE).log_softmax(dim=1)
    return -(wanted.roll(len(wanted) // 2, dims=0) * found).sum() / 2
