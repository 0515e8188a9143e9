"""User-defined augmentation instead of AutoAugment: after flip and crop, before normalizing and mixing.

What happens to an image must depend only on its pixels and its numbers, because batches are divided differently on
other devices and with other numbers of processes (docs/own-idea.md).

Shapes: B images, C channels, H W pixels.
"""

import numpy as np
import torch
from torch import Tensor

from pocketvit.augment.augment import PIECE, POLICY_DRAWS
from pocketvit.device import to_device
from pocketvit.errors import InputError
from pocketvit.usercode import Code

PROBE_IMAGES = 4
OTHERWISE = [3, 2, 0]  # a subset of the images in another order, in which none keeps its place or its neighbors


def apply_custom_policy(code: Code, images: Tensor, draws: np.ndarray) -> Tensor:
    """Augment images by the user's function.

    Args:
        images: uint8, (B, H, W, C).
        draws: numbers in [0, 1), float32, (B, POLICY_DRAWS).
    Returns:
        uint8 (B, H, W, C).
    """
    numbers = to_device(draws, images.device)
    pieces = zip(images.split(PIECE), numbers.split(PIECE), strict=True)
    return torch.cat([code.call(images=x, draws=u) for x, u in pieces])


def check_policy(code: Code, image_size: tuple[int, int]) -> None:
    """Try the user's function on a few images, and on some of them in another order.

    Raises:
        InputError: it fails, does not return uint8 of the same shape, or an image's result depends on its place or on others.
    """
    count = PROBE_IMAGES * image_size[0] * image_size[1] * 3
    images = (torch.arange(count) * 37 % 251).to(torch.uint8).reshape(PROBE_IMAGES, *image_size, 3)
    # Their brightness differs so much that the mean of some is not that of all.
    images //= torch.arange(1, PROBE_IMAGES + 1, dtype=torch.uint8).square()[:, None, None, None]
    draws = (np.arange(PROBE_IMAGES * POLICY_DRAWS, dtype=np.float32) * 0.618 % 1).reshape(PROBE_IMAGES, POLICY_DRAWS)
    found = code.call(images=images.clone(), draws=torch.from_numpy(draws))
    if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.shape != images.shape:
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise InputError(f"{code} returns {got}; it must return torch.uint8 {tuple(images.shape)}, like its input")
    others = code.call(images=images[OTHERWISE], draws=torch.from_numpy(draws[OTHERWISE]))
    if not torch.equal(found[OTHERWISE], others):
        raise InputError(
            f"{code} treats an image differently in another place of the batch, or among other images; use only the "
            "image's pixels and its row of draws, and no random numbers of your own"
        )
