"""The three kernels behind `pocketvit.kernels.stem`, where what they compute is explained.

B images of CHANNELS × HEIGHT × WIDTH pixels in patches of PATCH × PATCH, STRIDE apart, COLUMNS of them in a row. A patch has
F numbers, taken FC at a time. An image has N tokens: NUM_CLS CLS tokens, registers up to the SPECIAL-th, and patches; a
token has D channels, in chunks of C. The sums over the images are taken in SPLITS parts.

Tensors: images (B, CHANNELS, HEIGHT, WIDTH); w (D, F), bias (D,), cls (NUM_CLS, D), registers (SPECIAL - NUM_CLS, D) and
positions (N, D) in float32; tokens `out` and their gradients `dout` (B, N, D); the gradient of w is dw, and so on.
"""

import triton
import triton.language as tl


@triton.jit
def _within_patch(f, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr):
    """How far behind a patch's first number, in its image, the f-th one lies."""
    return (f // (PATCH * PATCH)) * (HEIGHT * WIDTH) + (f // PATCH % PATCH) * WIDTH + f % PATCH


@triton.jit
def _patch_start(patch, WIDTH: tl.constexpr, STRIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """How far behind its image's first number that of a patch lies."""
    return patch // COLUMNS * STRIDE * WIDTH + patch % COLUMNS * STRIDE


@triton.jit(do_not_specialize=["B"])
def stem_kernel(images, w, bias, cls, registers, positions, out, B,
                CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr,
                STRIDE: tl.constexpr, COLUMNS: tl.constexpr, F: tl.constexpr, FC: tl.constexpr, N: tl.constexpr,
                NUM_CLS: tl.constexpr, SPECIAL: tl.constexpr, POSITIONS: tl.constexpr, D: tl.constexpr,
                C: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """ROWS tokens per program; without positions if not POSITIONS."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < B * N
    n = row % N
    is_patch = live & (n >= SPECIAL)
    column = tl.arange(0, C)[None, :]
    start = row // N * (CHANNELS * HEIGHT * WIDTH) + _patch_start(n - SPECIAL, WIDTH, STRIDE, COLUMNS)
    sums = ()
    for _ in tl.static_range(0, D, C):
        sums = sums + (tl.zeros([ROWS, C], tl.float32),)
    for first in tl.static_range(0, F, FC):
        f = first + tl.arange(0, FC)
        at = start[:, None] + _within_patch(f, HEIGHT, WIDTH, PATCH)[None, :]
        pixels = tl.load(images + at, mask=is_patch[:, None] & (f < F)[None, :], other=0.0)
        new = ()
        for j in tl.static_range(0, D // C):
            weight = tl.load(w + (j * C + column) * F + f[:, None], mask=(f < F)[:, None], other=0.0)
            new = new + (tl.dot(pixels, weight.to(images.dtype.element_ty), sums[j]),)
        sums = new
    for j in tl.static_range(0, D // C):
        token = sums[j] + tl.load(bias + j * C + column, mask=is_patch[:, None], other=0.0)
        at = n[:, None] * D + j * C + column
        if NUM_CLS > 0:
            token += tl.load(cls + at, mask=(live & (n < NUM_CLS))[:, None], other=0.0)
        if SPECIAL > NUM_CLS:
            inside = live & (n >= NUM_CLS) & (n < SPECIAL)
            token += tl.load(registers + at - NUM_CLS * D, mask=inside[:, None], other=0.0)
        if POSITIONS:
            token += tl.load(positions + at, mask=live[:, None], other=0.0)
        tl.store(out + row[:, None] * D + j * C + column, token.to(out.dtype.element_ty), mask=live[:, None])


@triton.jit(do_not_specialize=["B"])
def stem_backward_kernel(images, dout, dw_parts, dtoken_parts, B,
                         CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr,
                         STRIDE: tl.constexpr, COLUMNS: tl.constexpr, F: tl.constexpr, FC: tl.constexpr,
                         N: tl.constexpr, SPECIAL: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                         SPLITS: tl.constexpr, IMAGES: tl.constexpr):  # fmt: skip
    """Sums over the images of a split, of the n-th token of each, per program (n, FC numbers of a patch, split): of dout, in
    dtoken_parts (SPLITS, N, D), and of dout times the patch, in dw_parts (SPLITS, N - SPECIAL, D, F).
    """
    n = tl.program_id(0)
    split = tl.program_id(2)
    patch = n - SPECIAL
    end = tl.cdiv(B, SPLITS) * (split + 1)
    end = tl.minimum(end, B)
    f = tl.program_id(1) * FC + tl.arange(0, FC)[None, :]
    column = tl.arange(0, C)
    start = _patch_start(patch, WIDTH, STRIDE, COLUMNS) + _within_patch(f, HEIGHT, WIDTH, PATCH)  # (1, FC)
    products = ()
    totals = ()
    for _ in tl.static_range(0, D, C):
        products = products + (tl.zeros([C, FC], tl.float32),)
        totals = totals + (tl.zeros([C], tl.float32),)
    for first in range(tl.cdiv(B, SPLITS) * split, end, IMAGES):
        image = (first + tl.arange(0, IMAGES))[:, None]
        live = image < end
        at = image * (CHANNELS * HEIGHT * WIDTH) + start
        pixels = tl.load(images + at, mask=live & (f < F) & (patch >= 0), other=0.0)
        new_products = ()
        new_totals = ()
        for j in tl.static_range(0, D // C):
            gradient = tl.load(dout + (image * N + n) * D + j * C + column[None, :], mask=live, other=0.0)
            new_products = new_products + (tl.dot(tl.trans(gradient), pixels, products[j]),)
            new_totals = new_totals + (totals[j] + tl.sum(gradient.to(tl.float32), 0),)
        products = new_products
        totals = new_totals
    for j in tl.static_range(0, D // C):
        at = (split * (N - SPECIAL) + patch) * (D * F) + (j * C + column)[:, None] * F + f
        tl.store(dw_parts + at, products[j], mask=(f < F) & (patch >= 0))
        if tl.program_id(1) == 0:
            tl.store(dtoken_parts + (split * N + n) * D + j * C + column, totals[j])


@triton.jit
def _sum_of_rows(parts, column, inside, NUM_ROWS: tl.constexpr, GROUP: tl.constexpr, SKIPPED: tl.constexpr,
                 ROW_SIZE: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """The sum of NUM_ROWS rows in some columns, (BLOCK,): in groups of GROUP, with SKIPPED others before each group."""
    total = tl.zeros([32, BLOCK], tl.float32)
    for first in range(0, NUM_ROWS, 32):
        i = first + tl.arange(0, 32)
        row = i // GROUP * (GROUP + SKIPPED) + SKIPPED + i % GROUP
        at = row[:, None] * ROW_SIZE + column[None, :]
        total += tl.load(parts + at, mask=(i < NUM_ROWS)[:, None] & inside[None, :], other=0.0)
    return tl.sum(total, 0)


@triton.jit
def stem_sums_kernel(dw_parts, dtoken_parts, dw, dbias, dcls, dregisters, dpositions, F: tl.constexpr, N: tl.constexpr,
                     NUM_CLS: tl.constexpr, SPECIAL: tl.constexpr, POSITIONS: tl.constexpr, D: tl.constexpr,
                     SPLITS: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """BLOCK numbers of a gradient per program: first those of dw, then of dbias, then of the N tokens' offsets, (N, D)."""
    PATCHES: tl.constexpr = N - SPECIAL
    OF_FILTERS: tl.constexpr = (D * F + BLOCK - 1) // BLOCK
    OF_BIAS: tl.constexpr = (D + BLOCK - 1) // BLOCK
    part = tl.program_id(0)
    if part < OF_FILTERS:
        at = part * BLOCK + tl.arange(0, BLOCK)
        total = _sum_of_rows(dw_parts, at, at < D * F, SPLITS * PATCHES, PATCHES, 0, D * F, BLOCK)
        tl.store(dw + at, total, mask=at < D * F)
    elif part < OF_FILTERS + OF_BIAS:
        at = (part - OF_FILTERS) * BLOCK + tl.arange(0, BLOCK)
        total = _sum_of_rows(dtoken_parts, at, at < D, SPLITS * PATCHES, PATCHES, SPECIAL, D, BLOCK)
        tl.store(dbias + at, total, mask=at < D)
    else:
        at = (part - OF_FILTERS - OF_BIAS) * BLOCK + tl.arange(0, BLOCK)
        inside = at < N * D
        total = tl.zeros([BLOCK], tl.float32)
        for split in tl.static_range(SPLITS):
            total += tl.load(dtoken_parts + split * N * D + at, mask=inside, other=0.0)
        if POSITIONS:
            tl.store(dpositions + at, total, mask=inside)
        if NUM_CLS > 0:
            tl.store(dcls + at, total, mask=at < NUM_CLS * D)
        if SPECIAL > NUM_CLS:
            tl.store(dregisters + at - NUM_CLS * D, total, mask=(at >= NUM_CLS * D) & (at < SPECIAL * D))
