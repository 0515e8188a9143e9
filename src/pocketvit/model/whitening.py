"""Filters that whiten the training images' patches, to initialize the patch embedding.

Shapes: n patches, F = C·p·p values of a patch, D width.

Sources: the hlb-CIFAR10 repository (2023); Jordan 2024 (airbench), https://arxiv.org/abs/2404.00498; its use here
follows the code of Wu 2025, "Powerful Design of Small Vision Transformer on CIFAR10".
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketvit.model.stems import PatchEmbedding

WHITENING_EPS = 5e-4  # prevents directions without variance from being amplified


def whitening_filters(images: Tensor, patch_size: int) -> Tensor:
    """Filters whose outputs on the images' patches are uncorrelated and of equal size.

    The patches overlap, one pixel apart; their second moment is not centered. Its eigenvectors, by decreasing eigenvalue λ,
    are divided by √(λ + ε), so that the outputs' second moment is diag(λ / (λ + ε)), with ε = `WHITENING_EPS`.

    Args:
        images: normalized pixels, (n images, C, H, W).
        patch_size: p.
    Returns:
        float32 (F, C, p, p).
    """
    channels = images.shape[1]
    moment = torch.zeros(channels * patch_size**2, channels * patch_size**2, dtype=torch.float64)
    count = 0
    for batch in images.split(500):  # the patches of all images at once would take gigabytes
        patches = F.unfold(batch.double().cpu(), patch_size).transpose(1, 2).flatten(0, 1)  # (n, F)
        moment += patches.T @ patches  # (F, F)
        count += len(patches)
    values, vectors = torch.linalg.eigh(moment / count)  # rising
    filters = (vectors / (values.clamp(min=0) + WHITENING_EPS).sqrt()).T.flip(0)  # (F, F), a row a filter
    return filters.unflatten(1, (channels, patch_size, patch_size)).float()


@torch.no_grad()
def whiten(patches: PatchEmbedding, filters: Tensor, *, pairs: bool) -> None:
    """Overwrite the first filters of a patch embedding, as many as fit; all remain trainable.

    Args:
        patches: of the model.
        filters: as `whitening_filters` makes them, (F, C, p, p).
        pairs: add each filter's negative.
    """
    if pairs:
        filters = torch.stack([filters, -filters], dim=1).flatten(0, 1)  # (2·F, C, p, p)
    weight = patches.proj.weight
    count = min(len(filters), len(weight))
    weight[:count] = filters[:count].to(weight)
