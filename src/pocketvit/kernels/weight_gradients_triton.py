"""The weight gradients of a stack of blocks, all layers in one launch.

A linear layer y = x Wᵀ + b has dW = dyᵀ x and db = Σ dy over all M tokens. A block has four of them:

    layer      dy        x      weight's gradient    bias's gradient
    qkv        dqkv      n      (F, D)               Σ dqkv
    proj       dx₁       o      (D, D)               Σ keep₁ · dx₁
    fc1        dh        n₁     (H, D)               Σ dh
    fc2        dout      a      (D, H)               Σ keep₂ · dout

Each program owns `OUT` rows and D columns of one gradient and walks over all tokens. Nothing is shared between
programs, so there are no atomics, nothing to clear beforehand, and the same bits every time; it is the many layers
that fill the GPU. Tensors of all layers lie behind each other; names and shapes are those of `blocks_triton`.
"""

import triton
import triton.language as tl


@triton.jit
def _product(left, right, keep, dw, db, tile, num_rows, last, LEFT: tl.constexpr, RIGHT: tl.constexpr,
             KEPT: tl.constexpr, LEFT_TAKEN: tl.constexpr, RIGHT_TAKEN: tl.constexpr, D: tl.constexpr,
             C: tl.constexpr, N: tl.constexpr, TAKEN: tl.constexpr, OUT: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """A tile of dw (LEFT, RIGHT) = leftᵀ right, and of db (LEFT,) = Σ left, or Σ keep · left if KEPT.

    In the last layer the sums are over the first TAKEN tokens of each image only. LEFT_TAKEN and RIGHT_TAKEN tell
    whether the rows of left and right are then only those tokens, or all.
    """
    n = tile // (RIGHT // D) * OUT + tl.arange(0, OUT)
    k = tile % (RIGHT // D) * D + tl.arange(0, C)
    inside = (n < LEFT)[None, :]
    sums = ()
    for _ in tl.static_range(0, D, C):
        sums = sums + (tl.zeros([OUT, C], tl.float32),)
    total = tl.zeros([OUT, 16], tl.float32)  # of 16 equal columns, the least that the matrix units take
    for start in range(0, num_rows, TOKENS):
        r = start + tl.arange(0, TOKENS)
        live = (r < num_rows)[:, None]
        row = tl.where(last, r // TAKEN * N + r % TAKEN, r)
        left_row = r if LEFT_TAKEN else row
        right_row = r if RIGHT_TAKEN else row
        y = tl.trans(tl.load(left + left_row[:, None] * LEFT + n[None, :], mask=live & inside, other=0.0))
        factor = tl.full([TOKENS, 16], 1.0, tl.float32)
        if KEPT:
            image = tl.where(last, r // TAKEN, r // N)
            factor *= tl.load(keep + image, mask=r < num_rows, other=0.0)[:, None]
        total = tl.dot(y, factor.to(left.dtype.element_ty), total)
        new = ()
        for j in tl.static_range(0, D // C):
            x = tl.load(right + right_row[:, None] * RIGHT + k[None, :] + j * C, mask=live, other=0.0)
            new = new + (tl.dot(y, x, sums[j]),)
        sums = new
    for j in tl.static_range(0, D // C):
        tl.store(dw + n[:, None] * RIGHT + k[None, :] + j * C, sums[j], mask=(n < LEFT)[:, None])
    if tile % (RIGHT // D) == 0:
        tl.store(db + n, tl.max(total, 1), mask=n < LEFT)


@triton.jit(do_not_specialize=["L"])
def weight_gradients_kernel(n, dqkv, o, dx1, n1, dh, a, dout, keep,
                            dw_qkv, db_qkv, dw_proj, db_proj, dw_fc1, db_fc1, dw_fc2, db_fc2, B, L,
                            D: tl.constexpr, C: tl.constexpr, F: tl.constexpr, H: tl.constexpr, N: tl.constexpr,
                            TAKEN: tl.constexpr, OUT: tl.constexpr, TOKENS: tl.constexpr):  # fmt: skip
    """A tile of a gradient per program: all tiles of a layer, product by product, then those of the next layer.

    The last layer's proj, fc1 and fc2 only saw the first TAKEN tokens of each image.
    """
    QKV: tl.constexpr = (F + OUT - 1) // OUT
    PROJ: tl.constexpr = QKV + (D + OUT - 1) // OUT
    FC1: tl.constexpr = PROJ + (H + OUT - 1) // OUT
    ALL: tl.constexpr = FC1 + (D + OUT - 1) // OUT * (H // D)
    layer = tl.program_id(0) // ALL
    tile = tl.program_id(0) % ALL
    m = layer.to(tl.int64) * B * N  # tokens of the layers before
    last = layer == L - 1
    rows = tl.where(last, B * TAKEN, B * N)
    keep += layer * 2 * B
    if tile < QKV:
        _product(dqkv + m * F, n + m * D, keep, dw_qkv + layer * F * D, db_qkv + layer * F,
                 tile, B * N, last, F, D, False, True, True, D, C, N, TAKEN, OUT, TOKENS)  # fmt: skip
    elif tile < PROJ:
        _product(dx1 + m * D, o + m * D, keep, dw_proj + layer * D * D, db_proj + layer * D,
                 tile - QKV, rows, last, D, D, True, False, False, D, C, N, TAKEN, OUT, TOKENS)  # fmt: skip
    elif tile < FC1:
        _product(dh + m * H, n1 + m * D, keep, dw_fc1 + layer * H * D, db_fc1 + layer * H,
                 tile - PROJ, rows, last, H, D, False, True, False, D, C, N, TAKEN, OUT, TOKENS)  # fmt: skip
    else:
        _product(dout + m * D, a + m * H, keep + B, dw_fc2 + layer * D * H, db_fc2 + layer * D,
                 tile - FC1, rows, last, D, H, True, True, True, D, C, N, TAKEN, OUT, TOKENS)  # fmt: skip
