"""Stack layers, and fold a norm's factor γ and offset β into the linear layer after it.

    W (γ ∘ n + β) + b = (W diag γ) n + (W β + b)

so that the tokens only need n, the normalized stream. The gradients of W' = W diag γ and b' = W β + b give those of
the parts:

    dW = dW' diag γ + db' βᵀ    dγ = Σ over W's rows of W ∘ dW'    dβ = Wᵀ db'    db = db'

All of it is weight-sized: it costs what a few images do, whatever the batch. On a GPU one kernel does each direction
for all layers, where the formulas alone would launch two dozen.

Shapes: L layers, F outputs, D inputs.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from pocketvit.kernels.block_weights import chunk
from pocketvit.kernels.gradient_memory import offer_stacked
from pocketvit.kernels.launch import is_compiling, launch, needs_gpu, triton

if TYPE_CHECKING or triton is not None:
    from pocketvit.kernels.fold_triton import fold_kernel, unfold_kernel

FOLD_ROWS = 32  # rows of W that a program of the way there owns
UNFOLD_COLUMNS, UNFOLD_ROWS = 16, 128
"""Columns of W that a program of the way back owns, so few that there are about as many programs as an H100 has
multiprocessors; and rows that it takes at a time."""


def fold_norm(w: Tensor, b: Tensor, factor: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Linear layers with the norms in front of them merged in.

    Args:
        w: weights, (L, F, D).
        b: biases, (L, F).
        factor: of the norms, (L, D).
        offset: of each norm, like the factor; None for RMSNorm.
    Returns:
        W' (L, F, D) and b' (L, F).
    """
    covered = w.dtype == torch.float32 and w.shape[2] % 32 == 0
    if covered and (is_compiling() or needs_gpu(w.device) is None):
        return FoldedNorm.apply(w, b, factor, offset)
    if offset is not None:
        b = torch.baddbmm(b[:, :, None], w, offset[:, :, None]).squeeze(2)  # (L, F)
    return w * factor[:, None], b


class FoldedNorm(torch.autograd.Function):
    """`fold_norm` by the two kernels."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, b: Tensor, factor: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
        L, F, D = w.shape
        w_out, b_out = w.new_empty(L, F, D), w.new_empty(L, F)
        shift = factor if offset is None else offset
        launch(
            fold_kernel, (triton.cdiv(F, FOLD_ROWS), L),
            w, b, factor, shift, w.stride(0), b.stride(0), factor.stride(0), shift.stride(0), w_out, b_out,
            SHIFTED=offset is not None, F=F, D=D, C=chunk(D), ROWS=FOLD_ROWS,
        )  # fmt: skip
        ctx.save_for_backward(w, factor, offset)
        return w_out, b_out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dfolded: Tensor, db: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        w, factor, offset = ctx.saved_tensors
        L, F, D = w.shape
        dfolded, db = dfolded.contiguous(), db.contiguous()
        dw, dfactor, doffset = w.new_empty(L, F, D), w.new_empty(L, D), w.new_empty(L, D)
        shift = factor if offset is None else offset
        launch(
            unfold_kernel, (D // UNFOLD_COLUMNS, L),
            w, factor, shift, w.stride(0), factor.stride(0), shift.stride(0), dfolded, db, dw, dfactor, doffset,
            SHIFTED=offset is not None, F=F, D=D, C=UNFOLD_COLUMNS, ROWS=UNFOLD_ROWS,
        )  # fmt: skip
        return dw, db, dfactor, None if offset is None else doffset


class _EvenlySpaced(torch.autograd.Function):
    """`torch.stack` of tensors that lie at even distances in one piece of memory, as a view of it."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        first, second = tensors[:2]
        distance = (second.data_ptr() - first.data_ptr()) // first.element_size()
        return first.detach().as_strided((len(tensors), *first.shape), (distance, *first.stride()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.unbind(0)


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, without copying where an optimizer has laid the layers' parameters out evenly."""
    places = [tensor.data_ptr() for tensor in tensors]
    shared = len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    distances = {after - before for before, after in pairwise(places)}
    if shared and len(distances) == 1 and distances.pop() > 0:
        stacked = _EvenlySpaced.apply(*tensors)
        offer_stacked(stacked, tensors)
        return stacked
    return torch.stack(list(tensors))


def linear(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights (L, out, in) and biases (L, out)."""
    return stack([layer.weight for layer in layers]), stack([layer.bias for layer in layers])
