"""Two kernels for the weights: to tiles for the blocks' kernels, and from their gradients to the parameters'.

The norms' factors γ and offsets β are merged into the linear layers behind them, W' = W diag γ and b' = b + W β, on the way
into the tiles; the formulas back are those of `pocketvit.kernels.fold`. A layer's tensors lie `…_layer` numbers behind
those of the layer before it.
"""

import triton
import triton.language as tl

LAYERS = [f"{part}_{layer}_layer" for layer in ("qkv", "proj", "fc1", "fc2") for part in "wb"]
LAYERS += [f"{part}{norm}_layer" for norm in "12" for part in ("factor", "offset")]
UNFOLD = ("w", "dw", "db", "factor", "offset", "dfactor", "doffset")
UNFOLD_LAYERS = [f"{part}_{layer}_layer" for layer in ("qkv", "fc1") for part in UNFOLD]


@triton.jit(do_not_specialize=LAYERS)
def pack_kernel(w_qkv, b_qkv, w_proj, b_proj, w_fc1, b_fc1, w_fc2, b_fc2, factor1, offset1, factor2, offset2,
                w_qkv_layer, b_qkv_layer, w_proj_layer, b_proj_layer, w_fc1_layer, b_fc1_layer, w_fc2_layer, b_fc2_layer,
                factor1_layer, offset1_layer, factor2_layer, offset2_layer,
                table, numbers, biases, NORMS: tl.constexpr):  # fmt: skip
    """A tile per program: program (i, l) writes the i-th of layer l. Without factors and offsets if not NORMS.

    table (tiles, 6) holds `Tile.entry`; numbers (L, tiles, ·) and biases (L, tiles, ·) are the same memory, as bf16 and as
    float32. Within a sub-tile, the eight numbers of piece c of row r lie at piece c ^ (r % 8).
    """
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    layer = tl.program_id(1)
    entry = table + tl.program_id(0) * 6
    weight, transposed, width = tl.load(entry), tl.load(entry + 1), tl.load(entry + 2)
    start, step, first = tl.load(entry + 3), tl.load(entry + 4), tl.load(entry + 5)
    w, own, branch = w_qkv + layer * w_qkv_layer, b_qkv + layer * b_qkv_layer, b_proj + layer * b_proj_layer
    factor, offset = factor1 + layer * factor1_layer, offset1 + layer * offset1_layer
    if weight == 1:
        w = w_proj + layer * w_proj_layer
    elif weight == 2:
        w, own, branch = w_fc1 + layer * w_fc1_layer, b_fc1 + layer * b_fc1_layer, b_fc2 + layer * b_fc2_layer
        factor, offset = factor2 + layer * factor2_layer, offset2 + layer * offset2_layer
    elif weight == 3:
        w = w_fc2 + layer * w_fc2_layer
    normed = (weight == 0) | (weight == 2)
    down = tl.arange(0, 64)[:, None]
    right = tl.arange(0, 64)[None, :]
    of_offsets = tl.zeros([64], tl.float32)
    for i in tl.static_range(3):
        x = tl.load(w + start + i * step + down * width + right)
        if NORMS:  # the three pieces of these weights lie behind each other by column, transposed or not
            of_offsets += tl.sum(x * tl.load(offset + i * 64 + right, mask=normed, other=0.0), 1)
            x *= tl.load(factor + i * 64 + right, mask=normed, other=1.0)
        if transposed != 0:
            x = tl.trans(x)
        to = tile * 12800 + i * 4096 + down * 64 + ((right // 8) ^ (down % 8)) * 8 + right % 8
        tl.store(numbers + to, x.to(numbers.dtype.element_ty))
    if normed & (transposed == 0):
        mine = biases + tile * 6400 + 6144
        row = tl.arange(0, 64)
        tl.store(mine + row, tl.load(own + first + row) + of_offsets)
        at = tl.arange(0, 256)
        tl.store(mine + 64 + at, tl.load(branch + at, mask=at < 192), mask=at < 192)


@triton.jit(do_not_specialize=UNFOLD_LAYERS)
def unfold_kernel(w_qkv, dw_qkv, db_qkv, factor_qkv, offset_qkv, dfactor_qkv, doffset_qkv,
                  w_fc1, dw_fc1, db_fc1, factor_fc1, offset_fc1, dfactor_fc1, doffset_fc1,
                  w_qkv_layer, dw_qkv_layer, db_qkv_layer, factor_qkv_layer, offset_qkv_layer, dfactor_qkv_layer,
                  doffset_qkv_layer, w_fc1_layer, dw_fc1_layer, db_fc1_layer, factor_fc1_layer, offset_fc1_layer,
                  dfactor_fc1_layer, doffset_fc1_layer,
                  F_QKV: tl.constexpr, F_FC1: tl.constexpr, D: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """C columns of a layer's qkv (program (·, 2 l)) or fc1 (2 l + 1): dW' becomes dW in place, and dγ and dβ, (D,) each."""
    layer = tl.program_id(1) // 2
    w, dw, db = w_qkv + layer * w_qkv_layer, dw_qkv + layer * dw_qkv_layer, db_qkv + layer * db_qkv_layer
    factor, offset = factor_qkv + layer * factor_qkv_layer, offset_qkv + layer * offset_qkv_layer
    dfactor, doffset = dfactor_qkv + layer * dfactor_qkv_layer, doffset_qkv + layer * doffset_qkv_layer
    num_rows = F_QKV
    if tl.program_id(1) % 2 == 1:
        w, dw, db = w_fc1 + layer * w_fc1_layer, dw_fc1 + layer * dw_fc1_layer, db_fc1 + layer * db_fc1_layer
        factor, offset = factor_fc1 + layer * factor_fc1_layer, offset_fc1 + layer * offset_fc1_layer
        dfactor, doffset = dfactor_fc1 + layer * dfactor_fc1_layer, doffset_fc1 + layer * doffset_fc1_layer
        num_rows = F_FC1
    column = tl.program_id(0) * C + tl.arange(0, C)
    gamma, beta = tl.load(factor + column), tl.load(offset + column)
    dgamma = tl.zeros([C], tl.float32)
    dbeta = tl.zeros([C], tl.float32)
    for start in range(0, num_rows, ROWS):
        row = start + tl.arange(0, ROWS)
        live = row < num_rows
        at = row[:, None] * D + column[None, :]
        tile = tl.load(w + at, mask=live[:, None], other=0.0)
        grad = tl.load(dw + at, mask=live[:, None], other=0.0)
        dbias = tl.load(db + row, mask=live, other=0.0)[:, None]
        dgamma += tl.sum(tile * grad, 0)
        dbeta += tl.sum(tile * dbias, 0)
        tl.store(dw + at, grad * gamma[None, :] + dbias * beta[None, :], mask=live[:, None])
    tl.store(dfactor + column, dgamma)
    tl.store(doffset + column, dbeta)
