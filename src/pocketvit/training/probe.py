"""A linear probe, `train.freeze=encoder`: the classifier alone is trained, on tokens that do not change.

Their channels hardly differ between images, compared with what is common to all of them, least of all those of a masked
autoencoder. Gradient descent then takes very many steps to learn what they hold. So the classifier learns on standardized tokens,
and afterwards the same function is written as a classifier of the tokens as they are.

Source: He et al. 2022, https://arxiv.org/abs/2111.06377, appendix A.1, whose probes have a batch normalization without weights
Differs: the statistics are those of clean training images, computed once, since the tokens do not change.

Shapes: F features that the head reads; with `model.pool=cls_per_class` K × D.
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from pocketvit.data.dataset import MappedRows
from pocketvit.inference.logits import in_batches
from pocketvit.model import ViT


class Standardized(nn.Module):
    """A pooling whose output has mean 0 and deviation 1 in each feature, over some images.

    Args:
        pool: of the tokens.
        shift: mean of the features, (F,).
        scale: their standard deviation, (F,).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, pool: nn.Module, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.pool = pool
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("scale", scale, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, D) -> features (B, F)."""
        return (self.pool(x) - self.shift) / self.scale


def standardize(model: ViT, images: np.ndarray | MappedRows, mean: Tensor, std: Tensor) -> None:
    """Let the head read standardized features from now on.

    Args:
        model: with its frozen weights, on its device.
        images: to train on, uint8, (N, H, W, C).
        mean: of the training pixels in [0, 1], (C,), on the model's device.
        std: of the same pixels, (C,).
    """
    kernels, taken = model.kernels, model.tokens.num_read
    model.use_kernels("reference")
    found = in_batches(model, images, mean, std, lambda x: model.pool(model.features(x, taken=taken)))  # (N, F)
    model.use_kernels(kernels)
    scale, shift = torch.std_mean(found.double(), dim=0, correction=0)
    scale = torch.where(scale < 1e-6, 1, scale)  # the same in all images
    model.pool = Standardized(model.pool, shift.float(), scale.float()).to(mean.device)


@torch.no_grad()
def folded(model: ViT) -> ViT:
    """A copy of a model of which the head reads the features as they are, and computes the same."""
    model = copy.deepcopy(model)
    head = model.head[0] if isinstance(model.head, nn.Sequential) else model.head
    if isinstance(model.pool, Standardized) and isinstance(head, nn.Linear):
        head.weight.div_(model.pool.scale)
        head.bias.sub_((head.weight * model.pool.shift).sum(dim=1))
        model.pool = model.pool.pool
    return model
