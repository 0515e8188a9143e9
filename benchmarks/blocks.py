"""Time a stack of blocks, forward and backward, with other tiles for one kernel at a time.

    python -m benchmarks.blocks [--kernels mlp_backward,weight_gradients] [--batch 256]

All times are microseconds for the paper's nine blocks: the median time of a CUDA graph, next to that of the tiles in
use, measured in the same run. The gradients are compared with those of the tiles in use.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from triton.testing import do_bench

from pocketvit.bench.clock import captured
from pocketvit.kernels import blocks_ops as ops
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights
from pocketvit.kernels.blocks import run_blocks
from pocketvit.kernels.launch import compiling
from pocketvit.model.folded import plan_of
from pocketvit.recipes import recipe
from pocketvit.training.compiling import shadow_blocks

LAYERS = 9
TILES = {
    "norm_linear": [(32, 64, 4, 3), (64, 64, 4, 2), (64, 64, 4, 4), (64, 32, 4, 3), (128, 64, 8, 3)],
    "block_tail": [(64, 32, 4, 2), (64, 32, 4, 3), (128, 64, 8, 2), (128, 32, 8, 3), (64, 64, 8, 2)],
    "mlp_backward": [(64, 32, 4, 2), (64, 32, 4, 3), (64, 64, 4, 1), (64, 64, 4, 2), (128, 64, 8, 2), (128, 32, 8, 2),
                     (64, 32, 8, 3)],
    "norm_linear_backward": [(64, 64, 4, 2), (64, 32, 4, 3), (128, 64, 8, 3), (32, 64, 4, 3)],
    "weight_gradients": [(64, 64, 4, 2), (64, 128, 4, 2), (64, 32, 4, 4), (128, 64, 8, 2), (128, 64, 8, 3),
                         (128, 32, 8, 4), (128, 128, 8, 2)],
}  # fmt: skip
"""Tiles to try: rows, columns, warps and stages; for the weight gradients, the gradient's rows and tokens at a time."""


@contextmanager
def tiles_of(kernel: str, tiles: tuple[int, int, int, int]) -> Iterator[None]:
    """Launch one kernel with other tiles inside this context."""
    usual, usual_weights = ops.launches, dict(ops.WEIGHT_TILE)
    if kernel == "weight_gradients":
        ops.WEIGHT_TILE.update(zip(usual_weights, tiles, strict=True))
    else:
        ops.launches = lambda *size: usual(*size)._replace(**{kernel: ops.Launch(*tiles)})
    try:
        yield
    finally:
        ops.launches = usual
        ops.WEIGHT_TILE.update(usual_weights)


def stack(plan: BlockPlan, batch_size: int, num_tokens: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Tokens and weights, stochastic depth, and the gradient of the output."""
    weights = [torch.randn(LAYERS, *shape, device="cuda") * shape[-1] ** -0.5 for shape in plan.shapes]
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    leaves = [torch.randn(batch_size, num_tokens, plan.width, **kind), *weights]
    keep = torch.full((LAYERS, 2, batch_size), 1.0, device="cuda")
    return [leaf.requires_grad_() for leaf in leaves], keep, torch.randn(batch_size, plan.taken, plan.width, **kind)


def step(leaves: list[Tensor], keep: Tensor, dout: Tensor, plan: BlockPlan) -> tuple[Tensor, ...]:
    """Forward and backward."""
    out = run_blocks(leaves[0], keep, BlockWeights(*leaves[1:]), plan, kernels="fused")
    return torch.autograd.grad(out, leaves, dout)


def stack_us(run: partial) -> float:
    """Median microseconds of a captured step."""
    return do_bench(captured(run), warmup=20, rep=100, return_mode="median") * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", default=",".join(TILES), help="kernels, separated by commas")
    parser.add_argument("--batch", type=int, default=256, help="images")
    options = parser.parse_args()
    model = recipe("paper").model
    num_tokens = 64 + model.num_cls_tokens
    plan = plan_of(model, num_tokens)
    tried = [(kernel, tiles) for kernel in options.kernels.split(",") for tiles in TILES[kernel]]
    with compiling():  # all of them side by side
        for kernel, tiles in tried:
            with tiles_of(kernel, tiles):
                shadow_blocks(plan, options.batch, num_tokens)
    run = partial(step, *stack(plan, options.batch, num_tokens), plan)
    usual, wanted = stack_us(run), run()
    print(f"{torch.cuda.get_device_name()}, {options.batch} images; tiles in use: {usual:.1f} us")
    for kernel, tiles in tried:
        with tiles_of(kernel, tiles):
            try:
                us, found = stack_us(run), run()
            except Exception as error:  # too much shared memory, most often
                why = str(error).splitlines()[0][:60]
                print(f"{kernel:>21} {tiles!s:>18} {type(error).__name__}: {why}", flush=True)
                continue
        pairs = zip(found, wanted, strict=True)
        worst = max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)
        print(f"{kernel:>21} {tiles!s:>18} {us - usual:+8.1f} us   difference {worst:.1e}", flush=True)
    print(f"tiles in use again: {stack_us(run):.1f} us")


if __name__ == "__main__":
    main()
