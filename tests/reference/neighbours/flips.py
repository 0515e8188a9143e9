"""Alternating flips in training, and the average over both flips at test.

Source: Jordan 2024, https://arxiv.org/abs/2404.00498, section 3.6: in the first epoch half of the images are flipped at
random; in epochs 2, 4, 6, ... exactly those that were not flipped in the first, in epochs 3, 5, 7, ... exactly those that
were. So any two epochs in a row show each image both ways.
"""

from collections.abc import Callable

import numpy as np


def alternating_flip(first: np.ndarray, number: int) -> np.ndarray:
    """Which images are flipped in a pass.

    Args:
        first: bool, which images the first pass flips, (N,).
        number: the pass, counted from 0: the paper's epoch is number + 1.
    """
    epoch = number + 1
    if epoch == 1:
        return np.array(first)
    return ~first if epoch % 2 == 0 else np.array(first)


def assert_alternates(flips: np.ndarray) -> None:
    """`flips`, bool (passes, N), are one random pass and its alternation, and about half of the images start flipped."""
    for number, flipped in enumerate(flips):
        np.testing.assert_array_equal(flipped, alternating_flip(flips[0], number))
    share, allowed = flips[0].mean(), 5 * 0.5 / np.sqrt(flips.shape[1])  # five standard errors
    assert abs(share - 0.5) < allowed, share


def flip_average(model: Callable[[np.ndarray], np.ndarray], images: np.ndarray) -> np.ndarray:
    """The mean of the model's outputs for images (B, C, H, W) and their mirror images; airbench averages logits."""
    return (model(images) + model(images[:, :, :, ::-1])) / 2
