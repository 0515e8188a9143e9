"""Launch the kernels of a stack of transformer blocks, forward and backward, as one autograd function.

The tensors of all layers lie behind each other in one buffer each, so that the weights' gradients of all layers can be
had in one launch at the end. Letters are those of `blocks_triton`, and L is the number of layers.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from pocketvit.kernels.block_weights import BlockPlan, BlockWeights, chunk
from pocketvit.kernels.blocks_triton import (
    block_tail_kernel,
    mlp_backward_kernel,
    norm_linear_backward_kernel,
    norm_linear_kernel,
)
from pocketvit.kernels.launch import launch
from pocketvit.kernels.weight_gradients_triton import weight_gradients_kernel


class Sizes(NamedTuple):
    """The sizes of a call, by their letters."""

    B: int
    N: int
    D: int
    F: int
    H: int
    L: int


class Launch(NamedTuple):
    """How a kernel is launched."""

    rows: int  # tokens that a program takes
    columns: int  # columns of the wider side that it handles at a time, at most
    num_warps: int
    num_stages: int

    def options(self, size: int) -> dict[str, int]:
        """The launch's arguments, given the size of the wider side."""
        columns = next(columns for columns in (64, 32, 16) if columns <= self.columns and size % columns == 0)
        return {"ROWS": self.rows, "COLUMNS": columns, "num_warps": self.num_warps, "num_stages": self.num_stages}


class Launches(NamedTuple):
    """The launches of the four kernels."""

    norm_linear: Launch
    block_tail: Launch
    mlp_backward: Launch
    norm_linear_backward: Launch


MULTIPROCESSORS = 132  # of an H100 or H200


def launches(width: int, num_tokens: int) -> Launches:
    """What is fastest on an H100 at the paper's width; above it, what fits its registers and shared memory.

    So few tokens that tiles of 64 leave some of the GPU idle go in smaller tiles.
    """
    wide, few = width > 192, num_tokens <= 64 * MULTIPROCESSORS
    return Launches(
        norm_linear=Launch(rows=32 if few else 64, columns=64, num_warps=4, num_stages=3),
        block_tail=Launch(rows=64, columns=32 if wide else 64, num_warps=4, num_stages=2),
        mlp_backward=Launch(
            rows=64 if few else 128, columns=32, num_warps=4 if few else 8, num_stages=2 if wide else 3
        ),
        norm_linear_backward=Launch(rows=64, columns=64, num_warps=4, num_stages=3),
    )


WEIGHT_TILE = {"OUT": 64, "TOKENS": 64, "num_warps": 4, "num_stages": 3}


def sizes_of(x: Tensor, weights: BlockWeights) -> Sizes:
    """The sizes of a call, given tokens (B, N, D)."""
    B, N, D = x.shape
    return Sizes(B, N, D, weights.w_qkv.shape[1], weights.w_fc1.shape[1], weights.w_qkv.shape[0])


class FusedBlocks(torch.autograd.Function):
    """L blocks on tokens x (B, N, D), with stochastic depth keep (L, 2, B); (B, taken, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, plan: BlockPlan, save: bool, *weights: Tensor) -> Tensor:
        """`save` keeps what backward needs, for every layer; else one layer's memory serves all."""
        w = BlockWeights(*weights)
        s, x, keep = sizes_of(x, w), x.contiguous(), keep.contiguous()
        w = BlockWeights(*(t.to(x.dtype if t.ndim == 3 else torch.float32).contiguous() for t in w))
        layers = s.L if save else 1
        saved = Saved.new(x, s, plan, layers)
        for i in range(s.L):
            out = torch.empty_like(x) if i < s.L - 1 else x.new_empty(s.B, plan.taken, s.D)
            _forward_layer(x, keep[i], w, saved, s, plan, i, i % layers, out)
            x = out
        if save:
            ctx.plan, ctx.sizes = plan, s
            ctx.save_for_backward(keep, *w, *saved)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor | None, ...]:
        keep, *rest = ctx.saved_tensors
        w, saved, s, plan = BlockWeights(*rest[:8]), Saved(*rest[8:]), ctx.sizes, ctx.plan
        grads = Gradients.new(dout, s)
        grads.dout[s.L - 1].view(-1)[: dout.numel()].copy_(dout.reshape(-1))
        dx = torch.empty_like(grads.dout[0])
        for i in reversed(range(s.L)):
            _backward_layer(keep[i], w, saved, grads, s, plan, i, dx if i == 0 else grads.dout[i - 1])
        return dx, None, None, None, *_weight_gradients(keep, saved, grads, s, plan)


class Saved(NamedTuple):
    """What forward leaves for backward, for each layer."""

    n: Tensor  # what the projection reads, the block's normed input, (L, B, N, D)
    rstd: Tensor  # the norm's 1 / standard deviation, (L, B·N)
    qkv: Tensor  # (L, B, N, F)
    o: Tensor  # attention's output times keep₁, (L, B, N, D)
    lse: Tensor  # attention's log-sum-exp, (L, B, A, N)
    n1: Tensor  # what the MLP reads, the normed stream between the two branches, (L, B, N, D)
    rstd1: Tensor  # that norm's 1 / standard deviation, (L, B·N)

    @classmethod
    def new(cls, x: Tensor, s: Sizes, plan: BlockPlan, layers: int) -> "Saved":
        def empty(*shape: int, dtype: torch.dtype = x.dtype) -> Tensor:
            return x.new_empty(layers, s.B, *shape, dtype=dtype)

        return cls(
            n=empty(s.N, s.D),
            rstd=empty(s.N, dtype=torch.float32),
            qkv=empty(s.N, s.F),
            o=empty(s.N, s.D),
            lse=empty(plan.num_heads, s.N, dtype=torch.float32),
            n1=empty(s.N, s.D),
            rstd1=empty(s.N, dtype=torch.float32),
        )


class Gradients(NamedTuple):
    """What backward computes for each layer, kept until the weights' gradients are made."""

    dout: Tensor  # of the block's output, (L, B, N, D); of the last block's only the first B · taken rows are used
    dx1: Tensor  # of the stream between the branches, (L, B, N, D)
    dqkv: Tensor  # (L, B, N, F)
    a: Tensor  # the MLP's hidden layer times keep₂, (L, B, N, H)
    dh: Tensor  # the gradient of what the hidden layer's GELU reads, (L, B, N, H)

    @classmethod
    def new(cls, like: Tensor, s: Sizes) -> "Gradients":
        return cls(*(like.new_empty(s.L, s.B, s.N, width) for width in (s.D, s.D, s.F, s.H, s.H)))


def _heads(qkv: Tensor, plan: BlockPlan) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, A, N, E), k and v (B, A_kv, N, E) as views of a packed projection (B, N, F)."""
    heads = qkv.unflatten(2, (-1, plan.head_dim)).transpose(1, 2)  # (B, A + 2 A_kv, N, E)
    q, k, v = heads.split((plan.num_heads, plan.num_kv_heads, plan.num_kv_heads), dim=1)
    return q, k, v


def _norm_constants(s: Sizes, plan: BlockPlan) -> dict[str, Any]:
    return {"CENTRED": plan.centred, "D": s.D, "C": chunk(s.D)}


def _forward_layer(x: Tensor, keep: Tensor, w: BlockWeights, saved: Saved,
                   s: Sizes, plan: BlockPlan, i: int, slot: int, out: Tensor) -> None:  # fmt: skip
    """Layer i from its input x (B, N, D) to `out`, leaving what backward needs in place `slot` of `saved`."""
    here, common = Saved(*(t[slot] for t in saved)), _norm_constants(s, plan)
    norm_linear, block_tail, *_ = launches(s.D, s.B * s.N)
    launch(
        norm_linear_kernel, (triton.cdiv(s.B * s.N, norm_linear.rows),),
        x, w.w_qkv[i], w.b_qkv[i], here.n, here.rstd, here.qkv, s.B * s.N,
        EPS=plan.eps, F=s.F, **common, **norm_linear.options(s.F),
    )  # fmt: skip
    q, k, v = _heads(here.qkv, plan)
    plan.mixer.forward(q, k, v, plan.head_dim**-0.5, out=here.o, lse=here.lse, keep=keep[0])
    taken = plan.taken if i == s.L - 1 else s.N
    launch(
        block_tail_kernel, (triton.cdiv(s.B * taken, block_tail.rows),),
        x, here.o, keep, w.w_proj[i], w.b_proj[i], w.w_fc1[i], w.b_fc1[i], w.w_fc2[i], w.b_fc2[i],
        here.n1, here.rstd1, out, s.B * taken, s.B, s.N, taken,
        EPS=plan.eps, TANH=plan.tanh, H=s.H, **common, **block_tail.options(s.H),
    )  # fmt: skip


def _backward_layer(keep: Tensor, w: BlockWeights, saved: Saved, grads: Gradients,
                    s: Sizes, plan: BlockPlan, i: int, dx: Tensor) -> None:  # fmt: skip
    """Layer i from the gradient of its output, in `grads`, to that of its input, dx (B, N, D)."""
    here, grad, common = Saved(*(t[i] for t in saved)), Gradients(*(t[i] for t in grads)), _norm_constants(s, plan)
    taken = plan.taken if i == s.L - 1 else s.N
    do = torch.empty_like(dx)
    *_, mlp_backward, norm_linear_backward = launches(s.D, s.B * s.N)
    if taken < s.N:  # the other tokens were read by attention only
        grad.dx1.zero_()
        do.zero_()
    launch(
        mlp_backward_kernel, (triton.cdiv(s.B * taken, mlp_backward.rows),),
        here.n1, here.rstd1, grad.dout, keep, w.w_proj[i], w.w_fc1[i], w.b_fc1[i], w.w_fc2[i],
        grad.a, grad.dh, grad.dx1, do, s.B * taken, s.B, s.N, taken,
        TANH=plan.tanh, H=s.H, **common, **mlp_backward.options(s.H),
    )  # fmt: skip
    q, k, v = _heads(here.qkv, plan)
    do = do.unflatten(2, (-1, plan.head_dim))  # (B, N, A, E)
    plan.mixer.backward(q, k, v, do, here.lse, plan.head_dim**-0.5, grad=grad.dqkv, keep=keep[0])
    launch(
        norm_linear_backward_kernel, (triton.cdiv(s.B * s.N, norm_linear_backward.rows),),
        grad.dqkv, w.w_qkv[i], here.n, here.rstd, grad.dx1, dx, s.B * s.N,
        F=s.F, **common, **norm_linear_backward.options(s.F),
    )  # fmt: skip


def _weight_gradients(keep: Tensor, saved: Saved, grads: Gradients, s: Sizes, plan: BlockPlan) -> BlockWeights:
    """The gradients of all layers' weights, float32."""
    dw = BlockWeights(*(keep.new_empty(s.L, *shape) for shape in plan.shapes))
    tiles = sum(triton.cdiv(n, WEIGHT_TILE["OUT"]) for n in (s.F, s.D, s.H))
    tiles += triton.cdiv(s.D, WEIGHT_TILE["OUT"]) * (s.H // s.D)
    launch(
        weight_gradients_kernel, (tiles * s.L,),
        saved.n, grads.dqkv, saved.o, grads.dx1, saved.n1, grads.dh, grads.a, grads.dout, keep, *dw,
        s.B, s.L, D=s.D, C=chunk(s.D), F=s.F, H=s.H, N=s.N, TAKEN=plan.taken, **WEIGHT_TILE,
    )  # fmt: skip
    return dw
