"""Compiling a run's kernels in other threads while the rest of it is set up.

Which kernels these are follows from the model and the size of a batch. So tensors without memory are taken through
the fused part of a step, forward and backward, where every launch only compiles (`pocketvit.kernels.launch`).
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

from pocketvit.kernels.block_weights import BlockPlan
from pocketvit.kernels.fold import fold_norm
from pocketvit.kernels.launch import compiling
from pocketvit.model import ViT
from pocketvit.model.folded import plan_of


@contextmanager
def kernels_compiled(model: ViT, batch_size: int) -> Iterator[None]:
    """Inside, the kernels of the model's blocks are being compiled; when it ends, they are ready.

    Args:
        model: on its GPU; its blocks run as fused kernels.
        batch_size: images of a step on this process.
    """
    device, num_tokens = next(model.parameters()).device, model.tokens.num_tokens
    plan = plan_of(model.config, num_tokens)

    def compile_all() -> None:
        with torch.cuda.device(device), compiling():
            shadow_step(plan, batch_size, num_tokens, model.config.depth)

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(compile_all)
        yield
        done.result()


def shadow_step(
    plan: BlockPlan, batch_size: int, num_tokens: int, num_layers: int, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Launch what a step launches for its blocks, on tensors without memory; to be done inside `compiling`.

    Weights are made as the folded ones will be rather than folded: most of PyTorch's operations on such tensors are
    written in Python and load its compiler.
    """
    from pocketvit.kernels.blocks_ops import FusedBlocks  # needs Triton

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="meta", requires_grad=True)

    x = empty(batch_size, num_tokens, plan.width, dtype=dtype)
    weights = [empty(num_layers, *shape) for shape in plan.shapes]
    out = FusedBlocks.apply(x, empty(num_layers, 2, batch_size).detach(), plan, True, *weights)
    out.backward(torch.empty_like(out))
    for rows in (weights[0].shape[1], weights[4].shape[1]):  # the layers behind a norm
        factor, offset = empty(num_layers, plan.width), empty(num_layers, plan.width) if plan.centred else None
        w, b = fold_norm(empty(num_layers, rows, plan.width), empty(num_layers, rows), factor, offset)
        torch.autograd.backward([w, b], [torch.empty_like(w), torch.empty_like(b)])
