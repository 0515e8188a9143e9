"""Positions on the grid of patches: fixed sines and cosines, or a rotation of queries and keys.

Shapes: P patches, T special tokens in front (CLS, registers), N = T + P tokens, D width, A heads, E head dim.
"""

import torch
from torch import Tensor, nn

SINCOS_TEMPERATURE = 10_000.0
ROPE_BASE = 100.0


def grid_coordinates(grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Row and column of each patch, float64, (P,) each."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    return rows.flatten(), columns.flatten()


class OnGrid(nn.Module):
    """A layer that needs to know where its tokens lie: T special ones, then all patches row by row."""

    def arrange(self, grid: tuple[int, int], num_special: int) -> None:
        """Take a grid of patches, (rows, columns), behind T special tokens."""
        self.grid, self.num_special = grid, num_special


def arranged(block: nn.Module, grid: tuple[int, int], num_special: int) -> nn.Module:
    """The block, whose layers now know where their tokens lie."""
    for layer in block.modules():
        if isinstance(layer, OnGrid):
            layer.arrange(grid, num_special)
    return block


def sincos_table(grid: tuple[int, int], num_special: int, width: int) -> Tensor:
    """Fixed 2-D positions: half of the channels for the row and half for the column, zero for special tokens.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, in two dimensions as by He et al. 2021 (MAE),
    https://arxiv.org/abs/2111.06377

    Args:
        grid: rows and columns of patches.
        num_special: T.
        width: D, divisible by 4.
    Returns:
        float32 (1, N, D).
    """
    frequencies = SINCOS_TEMPERATURE ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))  # (D/4,)
    parts = []
    for coordinate in grid_coordinates(grid):
        angles = coordinate[:, None] * frequencies  # (P, D/4)
        parts += [angles.sin(), angles.cos()]
    table = torch.cat(parts, dim=1)  # (P, D)
    return torch.cat([torch.zeros(num_special, width, dtype=table.dtype), table])[None].float()


class RotaryPositions(nn.Module):
    """Rotate each pair of channels of a query or key by an angle proportional to its patch's row or column.

    The product of a query and a key then depends on the relative position of their patches. The first half of
    a head's channels rotates with the row, the second with the column; special tokens are not rotated.

    Source: Su et al. 2021, https://arxiv.org/abs/2104.09864; axial, with base 100, by Heo et al. 2024,
    https://arxiv.org/abs/2403.13298

    Args:
        grid: rows and columns of patches.
        num_special: T.
        head_dim: E, divisible by 4.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int], num_special: int, head_dim: int) -> None:
        super().__init__()
        frequencies = ROPE_BASE ** -(torch.arange(head_dim // 4, dtype=torch.float64) / (head_dim // 4))  # (E/4,)
        angles = torch.cat([x[:, None] * frequencies for x in grid_coordinates(grid)], dim=1)  # (P, E/2)
        angles = torch.cat([torch.zeros(num_special, head_dim // 2, dtype=torch.float64), angles])  # (N, E/2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rotate queries or keys of the first N tokens, (B, A, N, E) -> (B, A, N, E), in fp32 and back to their type."""
        even, odd = x.float().unflatten(3, (-1, 2)).unbind(4)  # (B, A, N, E/2) each
        cos, sin = self.cos[: x.shape[2]], self.sin[: x.shape[2]]
        turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=4)
        return turned.flatten(3).to(x.dtype)  # (B, A, N, E)
