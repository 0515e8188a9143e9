"""A depth-wise convolution beside a whole transformer block.

Source: Zhang et al. 2024, https://arxiv.org/abs/2407.19394: patch tokens are laid out on their grid, pass batch normalization,
GELU and a 3 x 3 depth-wise convolution, and are added to what the block makes of the tokens: y = block(x) + DWConv(x). What goes
ahead of the convolution is `before` here.
"""

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


def depthwise_convolution(grid: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Each channel with its own kernel; zeros outside, so that the size stays.

    Args:
        grid: float64, (D, rows, columns).
        weight: (D, k, k) with an odd k, or (D, 1, k, k) as torch has it.
        bias: (D,).
    """
    channels, rows, columns = grid.shape
    weight = weight.reshape(channels, weight.shape[-2], weight.shape[-1])
    reach = weight.shape[-1] // 2
    out = np.zeros(grid.shape)
    for channel in range(channels):
        for row in range(rows):
            for column in range(columns):
                for down in range(-reach, reach + 1):
                    for right in range(-reach, reach + 1):
                        if 0 <= row + down < rows and 0 <= column + right < columns:
                            tap = weight[channel, down + reach, right + reach]
                            out[channel, row, column] += tap * grid[channel, row + down, column + right]
    return out if bias is None else out + np.reshape(bias, (channels, 1, 1))


def depthwise_beside_block(
    x: np.ndarray,
    block: Function,
    weight: np.ndarray,
    bias: np.ndarray | None,
    rows: int,
    columns: int,
    before: Function = lambda grid: grid,
) -> np.ndarray:
    """block(x), with the convolution of x's patches added to the patches; the tokens in front have no place on the grid.

    Args:
        x: float64, (tokens, D): CLS tokens and registers in front, then rows * columns patches, row by row.
        block: the whole block with its own residual connections, (tokens, D) to (tokens, D).
        before: applied to the grid (D, rows, columns) ahead of the convolution.
    """
    front = len(x) - rows * columns
    grid = x[front:].T.reshape(-1, rows, columns)
    beside = depthwise_convolution(before(grid), weight, bias).reshape(x.shape[1], -1).T
    out = np.array(block(x))
    out[front:] += beside
    return out


def num_params(width: int, depth: int, kernel: int = 3, bias: bool = True) -> int:
    """What convolutions beside all blocks add to the parameters."""
    return depth * width * (kernel**2 + bias)
