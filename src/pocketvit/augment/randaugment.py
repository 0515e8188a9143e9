"""RandAugment and TrivialAugment: policies without search, with the same operations as AutoAugment.

Both draw from fourteen operations with equal probability. RandAugment applies a few of them, all at one strength;
TrivialAugment applies one, at a random strength per image.

Sources: Cubuk et al. 2019, https://arxiv.org/abs/1909.13719; Müller and Hutter 2021, https://arxiv.org/abs/2103.10158
Differs: strengths are AutoAugment's ten levels, so that all policies share one set of operations; TrivialAugment is
the paper's "RA" space, not "Wide".
"""

from collections.abc import Collection

import numpy as np

from pocketvit.augment.autoaugment import OPS, OpTable, arguments

SPACE = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "color", "contrast", "brightness",
    "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
"""The fourteen operations, in the order that draws choose from: part of every result, so it never changes."""
TRIVIAL_DRAWS = 3  # columns that TrivialAugment draws for an image: operation, level, sign


def randaugment(draws: np.ndarray, *, level: int, image_size: tuple[int, int], skip: Collection[str] = ()) -> OpTable:
    """Turn each image's uniform numbers into a few operations of one strength.

    Args:
        draws: numbers in [0, 1), (N, 2·S): for each of S stages the operation and the sign.
        level: strength, 0 … 9.
        image_size: (H, W), pixels.
        skip: operations that leave the image as it is.
    """
    operation, sign = draws[:, 0::2], draws[:, 1::2]  # each (N, S)
    return _look_up(operation, np.full(operation.shape, level), sign, image_size, skip)


def trivialaugment(draws: np.ndarray, *, image_size: tuple[int, int], skip: Collection[str] = ()) -> OpTable:
    """Turn each image's uniform numbers into one operation of random strength; otherwise as `randaugment`.

    Args:
        draws: numbers in [0, 1), (N, 3): the operation, the level, the sign.
    """
    level = (draws[:, 1:2].astype(np.float64) * 10).astype(np.intp)
    return _look_up(draws[:, 0:1], level, draws[:, 2:3], image_size, skip)


def _look_up(
    operation: np.ndarray, level: np.ndarray, sign: np.ndarray, image_size: tuple[int, int], skip: Collection[str]
) -> OpTable:
    """The table for drawn operations and signs, numbers in [0, 1), and levels; each (N, S)."""
    codes = np.array([0 if op in skip else OPS.index(op) for op in SPACE], dtype=np.int8)  # (14,)
    values = np.stack([arguments(op, image_size) for op in SPACE])  # (14, 2 signs, 10 levels)
    values[SPACE.index("rotate"), 0] *= -1  # both papers rotate both ways
    chosen = (operation.astype(np.float64) * len(SPACE)).astype(np.intp)
    op = codes[chosen]
    value = values[chosen, (sign >= 0.5).astype(np.intp), level]
    return OpTable(op, np.where(op == 0, 0.0, value))
