"""Folding a norm's factor γ and offset β into the linear layer behind it, and taking the gradients back.

    W (γ ∘ n + β) + b = (W diag γ) n + (W β + b)

so that the tokens only need n, the normalised stream. The gradients of W' = W diag γ and b' = W β + b give those of
the parts:

    dW = dW' diag γ + db' βᵀ    dγ = Σ over W's rows of W ∘ dW'    dβ = Wᵀ db'    db = db'

All of it is weight-sized: it costs what a few images do, whatever the batch. On a GPU one kernel does each direction
for all layers, where the formulas alone would launch two dozen.

Shapes: L layers, F outputs, D inputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pocketvit.kernels.block_weights import chunk
from pocketvit.kernels.launch import choose, is_compiling, launch, needs_gpu, triton

if triton is not None:
    from pocketvit.kernels.fold_triton import fold_kernel, unfold_kernel

FOLD_ROWS = 32
"""Rows of W that a program of the way there owns."""
UNFOLD_COLUMNS, UNFOLD_ROWS = 16, 128
"""Columns of W that a program of the way back owns, so few that there are about as many programs as an H100 has
multiprocessors; and rows that it takes at a time."""


def fold_norm(w: Tensor, b: Tensor, factor: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Linear layers with the norms in front of them merged in.

    Args:
        w: weights, (L, F, D).
        b: biases, (L, F).
        factor: of the norms, (L, D).
        offset: likewise; none for RMSNorm.
    Returns:
        W' (L, F, D) and b' (L, F).
    """
    if choose("folding", "auto", {"fused": lambda: supported(w)}).name == "fused":
        return FoldedNorm.apply(w, b, factor, offset)
    if offset is not None:
        b = torch.baddbmm(b[:, :, None], w, offset[:, :, None]).squeeze(2)  # (L, F)
    return w * factor[:, None], b


def supported(w: Tensor) -> str | None:
    """None where the two kernels cover weights (L, F, D); else one line that says why the formulas run."""
    if w.dtype != torch.float32 or w.shape[2] % 32:
        return f"the weights are {w.dtype} of {w.shape[2]} columns, not torch.float32 of a multiple of 32"
    return None if is_compiling() else needs_gpu(w.device)


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
