"""Resizing as a product with a matrix: the same on every device, differentiable, and free of atomic additions.

Source: Keys 1981 for the cubic kernel; widened where there are fewer pixels after than before (antialiasing), as in Pillow
and in `torch.nn.functional.interpolate(antialias=True)`.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def _linear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - x)


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"bilinear": _linear, "bicubic": _cubic}
"""How much a pixel counts at a distance of at least 0."""


def resize_matrix(before: int, after: int, kernel: str) -> Tensor:
    """The share that each new pixel of an axis takes of each old one, float32, (after, before)."""
    step = before / after
    centers = (np.arange(after)[:, None] + 0.5) * step
    shares = KERNELS[kernel](abs(np.arange(before) + 0.5 - centers) / max(step, 1.0))
    return torch.from_numpy(shares / shares.sum(axis=1, keepdims=True)).float()


def grid_matrix(before: tuple[int, int], after: tuple[int, int], kernel: str) -> Tensor:
    """The same for the places of a grid, row by row, float32, (P after, P before)."""
    rows, columns = (resize_matrix(*sides, kernel) for sides in zip(before, after, strict=True))
    return torch.kron(rows, columns)
