"""Launch the attention kernels.

Nothing is tuned at run time; the tiles follow from the shape alone. The constants are for an H100, chosen so that
nothing spills from the registers.

Shapes: B batch, N tokens, A query heads, A_kv key and value heads, E head dim.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pocketvit.kernels.launch import launch


class Tiles(NamedTuple):
    """How a launch cuts up a head: the kernels' constants of the same names, and Triton's own two."""

    COLUMNS: int  # the head dim, padded to a power of two
    MAIN: int  # keys in the first tile
    TAIL: int  # keys in the second tile
    ROWS: int  # queries taken at a time
    REST: int  # queries in the last tile if fewer than ROWS, else 0
    num_warps: int
    num_stages: int


def cut(num_tokens: int, columns: int, rows: int, num_warps: int, num_stages: int = 1) -> Tiles:
    """The tiles of a sequence, given the head's width as a power of two and how many query rows to take at a time."""
    columns = max(16, columns)  # the least that the matrix units take
    main = max(16, triton.next_power_of_2(num_tokens) // 2)
    tail = max(16, triton.next_power_of_2(max(1, num_tokens - main)))
    rest = max(16, triton.next_power_of_2(num_tokens % rows)) if num_tokens % rows else rows
    return Tiles(columns, main, tail, rows, rest if rest < rows else 0, num_warps, num_stages)


def forward_tiles(num_tokens: int, head_dim: int) -> Tiles:
    """The forward kernel's tiles: with one warp nothing ever waits at a barrier; two where it would spill."""
    tiles = cut(num_tokens, triton.next_power_of_2(head_dim), rows=16, num_warps=1)
    return tiles if (tiles.MAIN + tiles.TAIL) * tiles.COLUMNS <= 16384 else tiles._replace(num_warps=2)


def backward_tiles(num_tokens: int, head_dim: int) -> Tiles:
    """The backward kernel's tiles: as few warps as hold keys, values and their gradients without spilling.

    Several warps share a score tile by its keys. Triton does so only where every product is wider than tall;
    otherwise each warp computes the whole tile. Hence at least 32 columns then, and no tail of 32 keys beside them.
    """
    tiles = cut(num_tokens, triton.next_power_of_2(head_dim), rows=16, num_warps=1)
    if (tiles.MAIN + tiles.TAIL) * tiles.COLUMNS <= 1536:
        return tiles._replace(num_stages=3)  # the next rows load while these are worked on
    if tiles.MAIN == tiles.COLUMNS == 64 and tiles.TAIL == 16:
        return cut(num_tokens, 64, rows=64, num_warps=4)
    tiles = tiles._replace(COLUMNS=max(32, tiles.COLUMNS))
    if tiles.MAIN > tiles.TAIL == tiles.COLUMNS:
        tiles = tiles._replace(TAIL=64)
    size = (tiles.MAIN + tiles.TAIL) * tiles.COLUMNS
    return tiles._replace(num_warps=2 if size <= 2048 else 4 if size <= 6144 else 8)


def launch_forward(
    kernel: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    tiles: Tiles | None = None,
    out: Tensor | None = None,
    lse: Tensor | None = None,
    keep: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Attention of q (B, A, N, E) to k and v (B, A_kv, N, E) by `attention_kernel`, wrapped or not.

    Returns:
        the heads' outputs (B, N, A, E) and the rows' log-sum-exp in float32, (B, A, N), in `out` and `lse` where these
        are given. With `keep` (B,), each image's outputs are multiplied by its factor.
    """
    B, (A, N, E) = q.shape[0], map(int, q.shape[1:])  # of a traced size only B stays open
    out = q.new_empty(B, N, A, E) if out is None else out
    lse = q.new_empty(B, A, N, dtype=torch.float32) if lse is None else lse
    constants = {"KEPT": keep is not None, "SCALE": scale, "A": A, "GROUP": A // int(k.shape[1]), "N": N, "E": E}
    tiles = tiles or forward_tiles(N, E)
    inputs = (*_with_strides(q, k, v), out, lse, lse if keep is None else keep)
    launch(kernel, (B * A,), *inputs, **constants, **tiles._asdict())
    return out, lse


def launch_backward(
    kernel: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    lse: Tensor,
    scale: float,
    tiles: Tiles | None = None,
    grad: Tensor | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """The gradients of q, k and v for that of the outputs, dout (B, N, A, E).

    Args as those of `launch_forward`; the kernel is `attention_backward_kernel`, wrapped or not.

    Returns:
        the three of them side by side in one tensor, (B, N, A + 2 A_kv, E): in `grad` where it is given.
    """
    B, (A, N, E), A_kv = q.shape[0], map(int, q.shape[1:]), int(k.shape[1])
    grad = q.new_empty(B, N, A + 2 * A_kv, E) if grad is None else grad
    inputs = _with_strides(q, k, v, dout.transpose(1, 2))  # the last as the others, (B, A, N, E)
    constants = {"KEPT": keep is not None, "SCALE": scale, "A": A, "GROUP": A // A_kv, "N": N, "E": E}
    tiles = tiles or backward_tiles(N, E)
    inputs += [lse, grad, lse if keep is None else keep]
    launch(kernel, (B * A_kv,), *inputs, **constants, **tiles._asdict())
    return grad


def _with_strides(*tensors: Tensor) -> list[Any]:
    """Each (B, A, N, E) tensor, followed by its strides but the last, which is 1."""
    return [item for x in tensors for item in (x, *x.stride()[:3])]
