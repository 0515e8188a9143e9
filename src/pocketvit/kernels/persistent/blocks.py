"""A stack of blocks by two launches, forward and backward, as one autograd function with the face of `FusedBlocks`.

The weights' gradients are made by the same kernel as there, from the same tensors. Letters are those of `blocks_ops`.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pocketvit.kernels import launch as triton_launch
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights
from pocketvit.kernels.blocks_ops import Sizes, _Gradients, _Saved, _weight_gradients, sizes_of
from pocketvit.kernels.persistent import build, layout
from pocketvit.kernels.persistent.driver import Box, Params, launch
from pocketvit.kernels.persistent.pack_triton import pack_kernel


def supported(device: torch.device, dtype: torch.dtype, num_tokens: int, plan: BlockPlan) -> str | None:
    """None where these kernels cover such tokens; else one line that says why not."""
    if reason := layout.uncovered(num_tokens, plan):
        return reason
    if device.type != "cuda":
        return "the tensors are not on an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) != (9, 0):
        return "they are made for GPUs of compute capability 9.0"
    if dtype != torch.bfloat16:
        return "they want bfloat16 tokens (train.precision=bf16)"
    return build.missing()


class PersistentBlocks(torch.autograd.Function):
    """L blocks on tokens x (B, N, D), with stochastic depth keep (L, 2, B); (B, taken, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, plan: BlockPlan, save: bool, *weights: Tensor) -> Tensor:
        """`save` keeps what backward needs."""
        w = BlockWeights(*weights)
        s, x, keep = sizes_of(x, w), x.contiguous(), keep.contiguous()
        out, tiles = x.new_empty(s.B, plan.taken, s.D), pack(w)
        saved = _Saved.new(x, s, plan, s.L if save else 0)
        _forward(x, out, tiles, keep, saved if save else None, s, plan)
        if save:
            ctx.plan, ctx.sizes = plan, s
            ctx.save_for_backward(keep, tiles, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        keep, tiles, *rest = ctx.saved_tensors
        saved, s, plan = _Saved(*rest), ctx.sizes, ctx.plan
        grads = _Gradients.new(dout, s)
        grads.dout[s.L - 1].view(-1)[: dout.numel()].copy_(dout.reshape(-1))
        dx = torch.empty_like(grads.dout[0])
        _backward(dx, tiles, keep, saved, grads, s, plan)
        return dx, None, None, None, *_weight_gradients(keep, saved, grads, s, plan)


def pack(w: BlockWeights) -> Tensor:
    """The weights as tiles in bf16, (L, tiles, bytes of one)."""
    L, D, H = len(w.w_qkv), w.w_proj.shape[1], w.w_fc1.shape[1]
    tiles = torch.empty(L, len(layout.TILES), layout.TILE_BYTES, dtype=torch.uint8, device=w.w_qkv.device)
    table = _table(tiles.device)
    triton_launch.launch(
        pack_kernel, (len(layout.TILES), L),
        *(t.contiguous() for t in w), table, tiles.view(torch.bfloat16), tiles.view(torch.float32),
        D=D, F=w.w_qkv.shape[1], H=H,
    )  # fmt: skip
    return tiles


@cache
def _table(device: torch.device) -> Tensor:
    """`Tile.entry` of every tile."""
    return torch.tensor([tile.entry() for tile in layout.TILES], dtype=torch.int32, device=device)


def _run(kernel: layout.Kernel, params: Params, s: Sizes, plan: BlockPlan, pairs: int) -> None:
    instance = build.Instance(kernel, s.N, plan.tanh, params.size())
    if triton_launch.is_compiling():
        build.ahead(instance)
    else:
        launch(instance, params, s.B - pairs)


def _pairs(x: Tensor, s: Sizes) -> int:
    if not x.is_cuda:  # only compiled for
        return 0
    return layout.pairs_of(s.B, torch.cuda.get_device_properties(x.device).multi_processor_count)


def _forward(
    x: Tensor, out: Tensor, tiles: Tensor, keep: Tensor, saved: _Saved | None, s: Sizes, plan: BlockPlan
) -> None:
    """From x (B, N, D) to `out` (B, taken, D), leaving what backward needs in `saved`, if that is given."""
    boxes = [None] * 4 if saved is None else [Box(t, s.N) for t in (saved.n, saved.qkv, saved.o, saved.n1)]
    more = [None] * 3 if saved is None else [saved.rstd, saved.lse, saved.rstd1]
    pairs = _pairs(x, s)
    integers = [s.B, s.L, pairs, plan.taken, int(saved is not None)]
    _run(layout.FORWARD_KERNEL, Params(boxes, [x, out, tiles, keep, *more], integers, [plan.eps]), s, plan, pairs)


def _backward(
    dx: Tensor, tiles: Tensor, keep: Tensor, saved: _Saved, grads: _Gradients, s: Sizes, plan: BlockPlan
) -> None:
    """From the gradient of the last block's output, in `grads`, to that of the first one's input, dx (B, N, D)."""
    boxes = [
        Box(t, s.N) for t in (saved.n, saved.n1, saved.qkv, grads.dout, grads.a, grads.dh, grads.dx1, grads.dqkv, dx)
    ]
    for t in (grads.dout, grads.a, grads.dh):
        last = t[s.L - 1].view(-1, t.shape[-1])[: s.B * plan.taken]
        boxes.append(Box(last, plan.taken))
    pairs = _pairs(dx, s)
    pointers = [saved.rstd, saved.rstd1, saved.lse, keep, tiles[:, layout.BACKWARD :]]
    _run(layout.BACKWARD_KERNEL, Params(boxes, pointers, [s.B, s.L, pairs, plan.taken], []), s, plan, pairs)
