"""A stack of blocks in two launches forward and three backward, an autograd function with the interface of `FusedBlocks`.

The first one packs the weights and the last one takes their gradients back; the norms in front of linear layers are
merged into these on the way, so no merged weight is ever in memory but in the tiles. Gradients are written where an
optimizer wants them (`gradient_memory`), those of the merged weights too, and become the parameters' there.

The tensors between the launches are those of `blocks_ops`, and so are the letters; of the last layer, what lies behind its
attention is kept for the `taken` tokens of each image only, at the beginning of the layer's place.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pocketvit.kernels import launch as triton_launch
from pocketvit.kernels.block_weights import BlockNorms, BlockPlan, BlockWeights
from pocketvit.kernels.blocks_ops import Gradients, Saved, Sizes, sizes_of
from pocketvit.kernels.gradient_memory import room_for
from pocketvit.kernels.persistent import build, layout
from pocketvit.kernels.persistent.driver import Box, Params, launch
from pocketvit.kernels.persistent.pack_triton import pack_kernel, unfold_kernel

NUM_WEIGHTS = len(BlockWeights._fields)
UNFOLD_COLUMNS, UNFOLD_ROWS = 16, 128
"""Columns of a linear layer that a program of `unfold_kernel` owns, and rows that it takes at a time."""


def supported(device: torch.device, dtype: torch.dtype, num_tokens: int, plan: BlockPlan) -> str | None:
    """None if these kernels support such tokens; else the reason why not."""
    if reason := layout.uncovered(num_tokens, plan):
        return reason
    if device.type != "cuda":
        return "the tensors are not on an NVIDIA GPU"
    if torch.cuda.get_device_capability(device) != (9, 0):
        return "the persistent kernels are made for GPUs of compute capability 9.0"
    if dtype != torch.bfloat16:
        return "the persistent kernels want bfloat16 tokens (train.precision=bf16)"
    return build.missing()


class PersistentBlocks(torch.autograd.Function):
    """L blocks on tokens x (B, N, D), with stochastic depth keep (L, 2, B); (B, taken, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, plan: BlockPlan, save: bool, *tensors: Tensor) -> Tensor:
        """`save` keeps what backward needs; `tensors` are those of `BlockWeights`, and of `BlockNorms` if not yet merged."""
        w, norms = BlockWeights(*tensors[:NUM_WEIGHTS]), _norms(tensors[NUM_WEIGHTS:])
        s, x, keep = sizes_of(x, w), x.contiguous(), keep.contiguous()
        out, tiles = x.new_empty(s.B, plan.taken, s.D), pack(w, norms)
        saved = Saved.new(x, s, plan, s.L if save else 0)
        _forward(x, out, tiles, keep, saved if save else None, s, plan)
        if save:
            ctx.plan, ctx.sizes, ctx.weights, ctx.norms = plan, s, w, norms
            ctx.save_for_backward(keep, tiles, *saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        keep, tiles, *rest = ctx.saved_tensors
        dw = BlockWeights(*map(room_for, ctx.weights))
        dx = _backward(dout, tiles, keep, Saved(*rest), dw, ctx.sizes, ctx.plan)
        dnorms = () if ctx.norms is None else unfold(ctx.weights, ctx.norms, dw)
        return dx, None, None, None, *dw, *dnorms


def _norms(tensors: Sequence[Tensor]) -> BlockNorms | None:
    return BlockNorms(*tensors) if tensors else None


def pack(w: BlockWeights, norms: BlockNorms | None = None) -> Tensor:
    """The weights as tiles in bf16, (L, tiles, bytes of one), the norms in front of them merged in."""
    L = len(w.w_qkv)
    parts = _layers((*w, *(norms or [w.b_proj] * 4)))
    tiles = torch.empty(L, len(layout.TILES), layout.TILE_BYTES, dtype=torch.uint8, device=w.w_qkv.device)
    table = _table(tiles.device)
    triton_launch.launch(
        pack_kernel, (len(layout.TILES), L),
        *parts, *(t.stride(0) for t in parts), table, tiles.view(torch.bfloat16), tiles.view(torch.float32),
        NORMS=norms is not None,
    )  # fmt: skip
    return tiles


def unfold(w: BlockWeights, norms: BlockNorms, dw: BlockWeights) -> BlockNorms:
    """From the gradients of the merged weights, in `dw`, to those of the weights, there, and of the norms."""
    dnorms = BlockNorms(*(room_for(t) for t in norms if t is not None))
    (_, F_QKV, D), F_FC1 = w.w_qkv.shape, w.w_fc1.shape[1]
    qkv = w.w_qkv, dw.w_qkv, dw.b_qkv, norms.factor1, norms.offset1, dnorms.factor1, dnorms.offset1
    fc1 = w.w_fc1, dw.w_fc1, dw.b_fc1, norms.factor2, norms.offset2, dnorms.factor2, dnorms.offset2
    parts = _layers((*qkv, *fc1))
    triton_launch.launch(
        unfold_kernel, (D // UNFOLD_COLUMNS, 2 * len(w.w_qkv)), *parts, *(t.stride(0) for t in parts),
        F_QKV=F_QKV, F_FC1=F_FC1, D=D, C=UNFOLD_COLUMNS, ROWS=UNFOLD_ROWS,
    )  # fmt: skip
    return dnorms


def _layers(tensors: Sequence[Any]) -> list[Tensor]:
    """Tensors (L, ...) whose layers are contiguous each, copied where they are not."""
    return [t if t[0].is_contiguous() else t.contiguous() for t in tensors]


@cache
def _table(device: torch.device) -> Tensor:
    """`Tile.entry` of every tile."""
    return torch.tensor([tile.entry() for tile in layout.TILES], dtype=torch.int32, device=device)


def _run(kernel: layout.Kernel, params: Params, s: Sizes, plan: BlockPlan, num_blocks: int) -> None:
    instance = build.Instance(kernel, s.N, plan.tanh, params.size())
    if triton_launch.is_compiling():
        build.ahead(instance)
    else:
        launch(instance, params, num_blocks)


@cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _taken(t: Tensor, s: Sizes, plan: BlockPlan) -> Tensor:
    """The last layer's rows of a tensor (L, B, N, channels): of its taken tokens only, (B · taken, channels)."""
    return t[-1].view(-1, t.shape[-1])[: s.B * plan.taken]


def _forward(
    x: Tensor, out: Tensor, tiles: Tensor, keep: Tensor, saved: Saved | None, s: Sizes, plan: BlockPlan
) -> None:
    """From x (B, N, D) to `out` (B, taken, D), leaving what backward needs in `saved`, if that is given."""
    boxes, more = [None] * 6, [None] * 3
    if saved is not None:
        boxes = [Box(t.flatten(0, 2), s.N) for t in (saved.n, saved.qkv, saved.o, saved.n1)]
        boxes += [Box(_taken(t, s, plan), plan.taken) for t in (saved.o, saved.n1)]
        more = [saved.rstd, saved.lse, saved.rstd1]
    pairs = layout.pairs_of(s.B, _multiprocessors(x.device))
    integers = [s.B, s.L, pairs, plan.taken, int(saved is not None)]
    params = Params(boxes, [x, out, tiles, keep, *more], integers, [plan.eps])
    _run(layout.FORWARD_KERNEL, params, s, plan, s.B - pairs)


def _backward(
    dout: Tensor, tiles: Tensor, keep: Tensor, saved: Saved, dw: BlockWeights, s: Sizes, plan: BlockPlan
) -> Tensor:
    """From the gradient of the last block's output, (B, taken, D), to that of the first one's input; `dw` gets the weights'."""
    grads, dx = Gradients.new(dout, s), dout.new_empty(s.B, s.N, s.D)
    dout = dout.reshape(-1, s.D)
    boxes = [saved.n, saved.n1, saved.qkv, grads.dout, grads.a, grads.dh, grads.dx1, grads.dqkv, dx[None]]
    lasts = [dout, *(_taken(t, s, plan) for t in (grads.a, grads.dh, grads.dx1, saved.n1))]
    maps = [*(Box(t.flatten(0, 2), s.N) for t in boxes), *(Box(t, plan.taken) for t in lasts)]
    num_blocks = min(_multiprocessors(dx.device), layout.steps_of(s.B, s.N, plan.taken, s.L))
    parts = keep.new_empty(num_blocks, (layout.WIDTH + 1) * layout.WIDTH)
    ready = keep.new_empty(num_blocks, dtype=torch.int32)
    pairs = layout.pairs_of(s.B, _multiprocessors(dx.device))
    pointers = [saved.rstd, saved.rstd1, saved.lse, keep, tiles[:, layout.BACKWARD :], ready]
    params = Params(maps, pointers, [s.B, s.L, pairs, plan.taken, num_blocks], [])
    _run(layout.BACKWARD_KERNEL, params, s, plan, s.B - pairs)

    whole = [
        t.flatten(1, 2) for t in (grads.dqkv, grads.dx1, grads.dh, grads.dout, saved.n, saved.o, saved.n1, grads.a)
    ]
    lasts = [*(_taken(t, s, plan) for t in (grads.dx1, grads.dh)), dout]
    lasts += [_taken(t, s, plan) for t in (saved.o, saved.n1, grads.a)]
    maps = [Box(t, layout.BOX_TOKENS) for t in (*whole, *(t[None] for t in lasts))]
    pointers, strides = [*dw[::2], *dw[1::2]], [t.stride(0) for t in (*dw[::2], *dw[1::2])]
    params = Params(maps, [*pointers, keep, parts, ready], [s.B, s.L, plan.taken, *strides], [])
    _run(layout.WEIGHTS_KERNEL, params, s, plan, num_blocks)
    return dx
