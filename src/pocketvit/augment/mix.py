"""CutMix and MixUp: a batch mixed with itself in reverse order, drawn per step, without a branch on the device.

Both are one formula: pixel = weight · own + (1 − weight) · partner, where `weight` has one value inside a box and another
outside. MixUp has λ in both, CutMix 0 inside and 1 outside, an unmixed batch 1 in both. So one CUDA graph of a step
serves all three, reading a row of numbers.

The partner of image j in a batch of B is image B − 1 − j, as in timm; the order of a pass is already random.

Sources: CutMix, Yun et al. 2019, https://arxiv.org/abs/1905.04899; MixUp, Zhang et al. 2017,
https://arxiv.org/abs/1710.09412
Differs: one λ and one box for the whole batch, as in the paper's code.
"""

import numpy as np
import torch
from torch import Tensor

from pocketvit.config import AugmentConfig
from pocketvit.randomness import Stream, uniform

MIX_COLUMNS = ("weight_inside", "weight_outside", "top", "bottom", "left", "right", "target_weight")
"""A row of the table: the two values of `weight`, the box in pixels (ends open), and the own label's share."""


def draw_mix(
    config: AugmentConfig, *, seed: int, pass_index: int, steps: int, image_size: tuple[int, int]
) -> np.ndarray:
    """Draw the mixing of each batch of a pass: float32 (steps, 7), columns as in `MIX_COLUMNS`.

    CutMix's share is corrected to the area of the clipped box.
    """
    height, width = image_size
    draws = uniform(seed, Stream.MIX, pass_index, steps, 4).astype(np.float64)
    cutmix = draws[:, 0] < config.cutmix_prob
    mixup = ~cutmix & (draws[:, 0] < config.cutmix_prob + config.mixup_prob)
    cut = np.sqrt(1 - beta_quantile(config.cutmix_alpha, draws[:, 1]))  # side of the box over the image's
    top, bottom = _clipped(height, cut, draws[:, 2])
    left, right = _clipped(width, cut, draws[:, 3])
    pasted = (bottom - top) * (right - left) / (height * width)
    share = beta_quantile(config.mixup_alpha, draws[:, 1])  # λ of MixUp
    table = np.empty((steps, len(MIX_COLUMNS)), dtype=np.float32)
    table[:, 0] = np.select([cutmix, mixup], [0, share], 1)
    table[:, 1] = np.select([cutmix, mixup], [1, share], 1)
    table[:, 2:6] = np.stack([top, bottom, left, right], axis=1)
    table[:, 6] = np.select([cutmix, mixup], [1 - pasted, share], 1)
    return table


def _clipped(side: int, cut: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of a box of `cut · side` pixels around a uniformly drawn pixel, clipped to the image."""
    half = np.floor(cut * side) // 2
    middle = np.floor(centre * side)
    return np.clip(middle - half, 0, side), np.clip(middle + half, 0, side)


def beta_quantile(alpha: float, u: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) by inversion of uniform numbers, so that one draw gives one λ."""
    if alpha == 1:
        return u
    from scipy.special import betaincinv

    return betaincinv(alpha, alpha, u)


def mix(images: Tensor, targets: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """Mix a batch with itself in reverse order.

    Args:
        images: normalized pixels, (B, C, H, W).
        targets: class probabilities, (B, K).
        row: a row of `draw_mix`'s table, (7,).
    Returns:
        mixed images (B, C, H, W) and targets (B, K).
    """
    weight_inside, weight_outside, top, bottom, left, right, target_weight = row.unbind()
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))  # (H, W)
    weight = torch.where(inside, weight_inside, weight_outside)
    images = weight * images + (1 - weight) * images.flip(0)
    targets = target_weight * targets + (1 - target_weight) * targets.flip(0)
    return images, targets


def smooth_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Labels (B,) as class probabilities (B, K), `smoothing` of each spread evenly over all classes.

    Where an image may have several classes, labels are (B, K), and `smoothing` of each is spread over yes and no.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567
    """
    if labels.ndim == 2:
        return labels.float() * (1 - smoothing) + smoothing / 2
    one_hot = torch.nn.functional.one_hot(labels, num_classes).float()  # (B, K)
    return one_hot * (1 - smoothing) + smoothing / num_classes
