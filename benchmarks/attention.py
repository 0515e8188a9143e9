"""Time attention's forward and backward pass, ours against PyTorch's, and other tile sizes.

    python -m benchmarks.attention [--candidates] [--all-shapes]

All times are microseconds per layer: a CUDA graph runs eight layers on eight sets of inputs, which do not fit into the
cache together, and its median time is divided by eight. The lower bound is the bytes that must be moved at 3.0 TB/s.
PyTorch's backward pass includes packing the gradients of a packed projection. A star marks the tiles in use.
"""

import argparse
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from triton.testing import do_bench

from pocketvit.bench.clock import captured
from pocketvit.kernels import attention_ops as ops
from pocketvit.kernels.attention import attention_qkv
from pocketvit.kernels.attention_operators import split_qkv
from pocketvit.kernels.attention_triton import attention_backward_kernel, attention_kernel

LAYERS = 8
BYTES_PER_US = 3.0e6
HOT_SHAPES = [(256, 12, 65, 16), (256, 3, 65, 64)]
OTHER_SHAPES = [(1024, 12, 65, 16), (1024, 3, 65, 64), (256, 6, 65, 32), (256, 12, 64, 16), (256, 12, 66, 16),
                (256, 12, 50, 16), (256, 12, 257, 16), (256, 3, 257, 64)]  # fmt: skip
"""Batch, heads, tokens, head dim."""


def layer_us(layer: Callable[[Tensor, Tensor], object], inputs: list[tuple[Tensor, Tensor]]) -> float:
    """Median microseconds per layer, from a graph with one layer for each pair of inputs."""

    def layers() -> None:
        for pair in inputs:
            layer(*pair)

    return do_bench(captured(layers), warmup=5, rep=30, return_mode="median") * 1e3 / len(inputs)


def pytorch(qkv: Tensor) -> Tensor:
    """The reference implementation, on a packed projection (B, N, 3, A, E)."""
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)  # (B, N, A·E)


def forward_and_backward(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], object]:
    return lambda qkv, dout: torch.autograd.grad(f(qkv), qkv, dout)


def random_inputs(B: int, A: int, N: int, E: int) -> list[tuple[Tensor, Tensor]]:
    """For each layer, a packed projection (B, N, 3, A, E) and the gradient of its heads (B, N, A·E)."""
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    return [
        (torch.randn(B, N, 3, A, E, **kind, requires_grad=True), torch.randn(B, N, A * E, **kind))
        for _ in range(LAYERS)
    ]


def compare(shape: tuple[int, int, int, int]) -> None:
    """Print a row of the table: ours, PyTorch's and the lower bound."""
    B, A, N, E = shape
    inputs = random_inputs(*shape)
    row = []
    for f in (attention_qkv, pytorch):
        forward = layer_us(lambda qkv, _, f=f: f(qkv.detach()), inputs)
        row += [forward, layer_us(forward_and_backward(f), inputs) - forward]
    head_bytes = 2 * B * A * N * E  # of q, or k, or v, or the output
    floors = [4 * head_bytes / BYTES_PER_US, 7 * head_bytes / BYTES_PER_US]
    print(f"{shape!s:>20}" + "".join(f"{us:12.1f}" for us in (*row, *floors)), flush=True)


def candidates(direction: str, num_tokens: int, head_dim: int) -> list[ops.Tiles]:
    """The tiles to time, those in use first."""
    columns = max(16, head_dim)
    tries = [(16, 1, 2), (16, 1, 3), (16, 2, 1), (64, 4, 1)]
    if direction == "forward":
        used = ops.forward_tiles(num_tokens, head_dim)
        tries += [(32, 1, 1)] if head_dim < 64 else [(16, 4, 1)]
    else:
        used = ops.backward_tiles(num_tokens, head_dim)
        if head_dim == 64:
            tries = [(16, 4, 2), (16, 8, 1), (16, 2, 1), (32, 4, 1), (64, 4, 1)]
    cuts = [ops.cut(num_tokens, columns, rows, warps, stages) for rows, warps, stages in tries]
    if direction == "backward" and head_dim == 16:
        cuts += [ops.cut(num_tokens, 32, rows, 4) for rows in (16, 64)]
    return [used, *cuts]


def kernel_alone(direction: str, tiles: ops.Tiles, lse: Tensor) -> Callable[[Tensor, Tensor], object]:
    """A layer that only launches one of the two kernels."""

    def layer(qkv: Tensor, dout: Tensor) -> object:
        q, k, v = split_qkv(qkv.detach())
        scale = q.shape[3] ** -0.5
        if direction == "forward":
            return ops.launch_forward(attention_kernel, q, k, v, scale, tiles)
        dout = dout.unflatten(2, (q.shape[1], q.shape[3]))  # (B, N, A, E)
        return ops.launch_backward(attention_backward_kernel, q, k, v, dout, lse, scale, tiles)

    return layer


def try_candidates(shape: tuple[int, int, int, int]) -> None:
    """Time the two kernels alone, with each tile size."""
    B, A, N, E = shape
    inputs = random_inputs(*shape)
    lse = torch.full((B, A, N), 8.0, device="cuda")  # speed does not depend on it
    for direction in ("forward", "backward"):
        for i, tiles in enumerate(candidates(direction, N, E)):
            us = layer_us(kernel_alone(direction, tiles, lse), inputs)
            print(
                f"{shape!s:>20} {direction:>8} {us:8.1f} us{'*' if i == 0 else ' '} rows {tiles.ROWS}+{tiles.REST:<2} "
                f"columns {tiles.COLUMNS} warps {tiles.num_warps} stages {tiles.num_stages}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", action="store_true", help="also time other tiles, for the hot shapes")
    parser.add_argument("--all-shapes", action="store_true", help="compare on more than the two hot shapes")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, bfloat16, microseconds per layer")
    titles = ("forward", "backward", "PyTorch fwd", "PyTorch bwd", "bound fwd", "bound bwd")
    print(f"{'B, A, N, E':>20}" + "".join(f"{title:>12}" for title in titles))
    for shape in HOT_SHAPES + (OTHER_SHAPES if options.all_shapes else []):
        compare(shape)
    for shape in HOT_SHAPES if options.candidates else []:
        try_candidates(shape)


if __name__ == "__main__":
    main()
