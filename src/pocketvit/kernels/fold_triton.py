"""The two kernels behind `pocketvit.kernels.fold`, where the formulas stand.

Each handles the same linear layer of all blocks; a layer's tensors lie `…_layer` numbers behind those of the layer
before it. Shapes: F outputs, D inputs in chunks of C.
"""

import triton
import triton.language as tl


@triton.jit
def fold_kernel(w, b, factor, offset, w_layer, b_layer, factor_layer, offset_layer, w_out, b_out,
                SHIFTED: tl.constexpr, F: tl.constexpr, D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """ROWS rows of W' (L, F, D) and b' (L, F) per program; without offsets if not SHIFTED."""
    layer = tl.program_id(1)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = row < F
    total = tl.load(b + layer * b_layer + row, mask=alive, other=0.0)
    for j in tl.static_range(0, D, C):
        column = j + tl.arange(0, C)
        at = row[:, None] * D + column[None, :]
        tile = tl.load(w + layer * w_layer + at, mask=alive[:, None], other=0.0)
        folded = tile * tl.load(factor + layer * factor_layer + column)[None, :]
        tl.store(w_out + layer * F * D + at, folded.to(w_out.dtype.element_ty), mask=alive[:, None])
        if SHIFTED:
            total += tl.sum(tile * tl.load(offset + layer * offset_layer + column)[None, :], 1)
    tl.store(b_out + layer * F + row, total, mask=alive)


@triton.jit
def unfold_kernel(w, factor, offset, w_layer, factor_layer, offset_layer, dfolded, db, dw, dfactor, doffset,
                  SHIFTED: tl.constexpr, F: tl.constexpr, D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """C columns of a layer per program: dW (L, F, D) from dfolded = dW', and dγ and dβ, (L, D) each."""
    layer = tl.program_id(1)
    column = tl.program_id(0) * C + tl.arange(0, C)
    gamma = tl.load(factor + layer * factor_layer + column)
    dgamma = tl.zeros([C], tl.float32)
    dbeta = tl.zeros([C], tl.float32)
    for start in range(0, F, ROWS):
        row = start + tl.arange(0, ROWS)
        live = (row < F)[:, None]
        at = row[:, None] * D + column[None, :]
        tile = tl.load(w + layer * w_layer + at, mask=live, other=0.0)
        grad = tl.load(dfolded + layer * F * D + at, mask=live, other=0.0)
        dgamma += tl.sum(tile * grad, 0)
        grad = grad * gamma[None, :]
        if SHIFTED:
            dbias = tl.load(db + layer * F + row, mask=row < F, other=0.0)[:, None]
            dbeta += tl.sum(tile * dbias, 0)
            grad += dbias * tl.load(offset + layer * offset_layer + column)[None, :]
        tl.store(dw + layer * F * D + at, grad, mask=live)
    tl.store(dfactor + layer * D + column, dgamma)
    if SHIFTED:
        tl.store(doffset + layer * D + column, dbeta)
