"""Resizing with antialiasing, of images and of a grid of positions, for training at a growing resolution.

Sources: Keys 1981 (the cubic kernel); Pillow's resampling, which torch's `interpolate(antialias=True)` follows: the kernel is
widened by the factor of reduction, and a = -0.5 (without antialiasing torch has -0.75). timm resizes learned positions so,
bicubic, CLS tokens apart (`resample_abs_pos_embed`). Progressive resolution: Jordan 2024, https://arxiv.org/abs/2404.00498;
Touvron et al. 2019, https://arxiv.org/abs/1906.06423, on why test and training resolution must fit.
"""

import numpy as np


def cubic(x: float, a: float = -0.5) -> float:
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def linear(x: float) -> float:
    return max(0.0, 1 - abs(x))


KERNELS = {"bicubic": (cubic, 2), "bilinear": (linear, 1)}
"""The kernel and how far it reaches."""


def resize_matrix(before: int, after: int, kernel: str = "bicubic") -> np.ndarray:
    """What each new pixel takes of each old one along an axis, (after, before); rows sum to 1."""
    function, reach = KERNELS[kernel]
    step = before / after
    widened = max(step, 1.0)
    matrix = np.zeros((after, before))
    for new in range(after):
        center = (new + 0.5) * step
        for old in range(before):
            distance = (old + 0.5 - center) / widened
            if abs(distance) < reach:
                matrix[new, old] = function(distance)
    return matrix / matrix.sum(axis=1, keepdims=True)


def resize(images: np.ndarray, height: int, width: int, kernel: str = "bicubic") -> np.ndarray:
    """Images (..., H, W) at another size, not clipped."""
    rows = resize_matrix(images.shape[-2], height, kernel)
    columns = resize_matrix(images.shape[-1], width, kernel)
    return np.einsum("ab,...bc,dc->...ad", rows, images, columns)


def resized_positions(table: np.ndarray, old: tuple[int, int], new: tuple[int, int], num_front: int) -> np.ndarray:
    """Learned positions (front + patches, D) for another grid: the grid's bicubic, the front's unchanged."""
    grid = table[num_front:].T.reshape(-1, *old)
    return np.concatenate([table[:num_front], resize(grid, *new).reshape(table.shape[1], -1).T])
