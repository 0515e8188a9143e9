"""Sparse attention on the grid of patches: half of the heads read the patches near by, half a coarse grid over the image.

The first heads are local: a patch reads the other patches of its window, w × w of them. The others are strided: it reads
the patches whose row and column differ from its own by multiples of s, with w · s patches to a side, so that every patch
reaches every other one in two blocks. CLS tokens and registers read all tokens and are read by all. With w near s, 1,024
patches have 64 partners each; the others' scores are never computed, since both kinds of head are ordinary attention within
groups of patches that have nothing to do with each other.

Shapes: B batch, N tokens, T special tokens, H × W patches in R × C windows of w × u, A query heads, A_kv key and value heads,
E head dim.

Source: Child et al. 2019, https://arxiv.org/abs/1904.10509, section 4: strided attention, with one pattern a head
Differs: no causal mask; neighborhoods and strides are of the grid, not of a sequence; local attention is within windows, as
in the paper's fixed pattern, not around each patch.
"""

import torch
from torch import Tensor

from pocketvit.errors import InputError
from pocketvit.kernels.attention import attention
from pocketvit.model.mixers.standard import Attention
from pocketvit.model.positions import OnGrid


class SparseAttention(Attention, OnGrid):
    """Every patch attends to its window or to a coarse grid, and to the special tokens."""

    KERNELS = None

    def arrange(self, grid: tuple[int, int], num_special: int) -> None:
        """See `OnGrid`.

        Raises:
            InputError: the grid's sides are prime numbers, or too short, so that every patch would read every other.
        """
        super().arrange(grid, num_special)
        self.window = (window(grid[0]), window(grid[1]))  # w, u
        self.count = (grid[0] // self.window[0], grid[1] // self.window[1])  # R, C
        if self.count == (1, 1):
            raise InputError(
                f"model.attention=sparse cannot divide {grid[0]} × {grid[1]} patches into windows; choose another "
                "model.patch_size, or a model.patch_stride"
            )

    def forward(self, x: Tensor, taken: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) -> (B, N, D), or only to the first of them."""
        if taken is not None and taken > self.num_special:
            return super().forward(x)[:, :taken]
        return super().forward(x, taken)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, A, N or T, E), keys and values (B, A_kv, N, E) -> (B, A, N or T, E)."""
        q, k = self.rotated(q, k)
        parts = []
        if self.num_special:
            parts.append(attention(q[:, :, : self.num_special], k, v, kernels=self.kernels))  # (B, A, T, E)
        if q.shape[2] <= self.num_special:
            return parts[0]
        shared = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(shared, dim=1) if shared > 1 else x for x in (k, v))
        patches = attention(*map(self.groups, (q, k, v)), kernels=self.kernels)
        return torch.cat([*parts, self.from_groups(patches)], dim=2)

    def groups(self, x: Tensor) -> Tensor:
        """Heads (B, A, N, E) as groups that attend within, special tokens in front: (B·R·C, A, T + w·u, E).

        The special tokens' own queries are there only because the kernels want as many queries as keys.
        """
        (R, C), (w, u), half = self.count, self.window, x.shape[1] // 2
        patches = x[:, :, self.num_special :].unflatten(2, self.grid)  # (B, A, H, W, E)
        local = patches[:, :half].unflatten(3, (C, u)).unflatten(2, (R, w))  # (B, A/2, R, w, C, u, E)
        strided = patches[:, half:].unflatten(3, (u, C)).unflatten(2, (w, R))  # (B, A/2, w, R, u, C, E)
        grouped = torch.cat([local.permute(0, 2, 4, 1, 3, 5, 6), strided.permute(0, 3, 5, 1, 2, 4, 6)], dim=3)
        special = x[:, None, None, :, : self.num_special].expand(-1, R, C, -1, -1, -1)  # (B, R, C, A, T, E)
        return torch.cat([special, grouped.flatten(4, 5)], dim=4).flatten(0, 2)

    def from_groups(self, x: Tensor) -> Tensor:
        """The patches of groups, (B·R·C, A, T + w·u, E) -> (B, A, H·W, E)."""
        half = x.shape[1] // 2
        x = (
            x[:, :, self.num_special :].unflatten(2, self.window).unflatten(0, (-1, *self.count))
        )  # (B, R, C, A, w, u, E)
        local, strided = x[:, :, :, :half], x[:, :, :, half:]
        parts = [local.permute(0, 3, 1, 4, 2, 5, 6), strided.permute(0, 3, 4, 1, 5, 2, 6)]
        return torch.cat([part.flatten(4, 5).flatten(2, 3).flatten(2, 3) for part in parts], dim=1)


def window(side: int) -> int:
    """The patches to a side of a window: the least divisor of the grid's side whose square is at least that side."""
    return next(w for w in range(1, side + 1) if side % w == 0 and w * w >= side)


MIXER = SparseAttention
