"""The three kernels behind `pocketvit.kernels.stem`, where what they compute is explained.

B images of CHANNELS × HEIGHT × WIDTH pixels in patches of PATCH × PATCH, STRIDE apart, COLUMNS of them in a row. A patch has
F numbers, taken FC at a time. An image has N tokens: NUM_CLS CLS tokens, registers up to the SPECIAL-th, and patches; a
token has D channels, in chunks of C. The images' sums are taken in SPLITS parts.
"""

import triton
import triton.language as tl


@triton.jit
def _within_patch(f, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr):
    """Where the f-th number of a patch lies, from the patch's first one on."""
    return (f // (PATCH * PATCH)) * (HEIGHT * WIDTH) + (f // PATCH % PATCH) * WIDTH + f % PATCH


@triton.jit
def _patch_start(patch, WIDTH: tl.constexpr, STRIDE: tl.constexpr, COLUMNS: tl.constexpr):
    """Where a patch begins, from its image's first number on."""
    return patch // COLUMNS * STRIDE * WIDTH + patch % COLUMNS * STRIDE


@triton.jit(do_not_specialize=["B"])
def stem_kernel(images, w, bias, cls, registers, positions, out, B,
                CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr,
                STRIDE: tl.constexpr, COLUMNS: tl.constexpr, F: tl.constexpr, FC: tl.constexpr, N: tl.constexpr,
                NUM_CLS: tl.constexpr, SPECIAL: tl.constexpr, POSITIONS: tl.constexpr, D: tl.constexpr,
                C: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """ROWS tokens per program, (B, N, D); without positions if not POSITIONS."""
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
def stem_backward_kernel(images, dout, filters, tokens, B,
                         CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, PATCH: tl.constexpr,
                         STRIDE: tl.constexpr, COLUMNS: tl.constexpr, F: tl.constexpr, FC: tl.constexpr,
                         N: tl.constexpr, SPECIAL: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                         SPLITS: tl.constexpr, IMAGES: tl.constexpr):  # fmt: skip
    """A token of all images of a split per program (n, FC numbers of a patch, split): the sums of its dout, in `tokens`
    (SPLITS, N, D), and of dout times the patch, in `filters` (SPLITS, N - SPECIAL, D, F).
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
        tl.store(filters + at, products[j], mask=(f < F) & (patch >= 0))
        if tl.program_id(1) == 0:
            tl.store(tokens + (split * N + n) * D + j * C + column, totals[j])


@triton.jit
def _sum_of_rows(parts, column, inside, NUMBER: tl.constexpr, GROUP: tl.constexpr, SKIPPED: tl.constexpr,
                 STRIDE: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """The sum of NUMBER rows in some columns, (WIDTH,): in groups of GROUP, with SKIPPED others before each group."""
    total = tl.zeros([32, WIDTH], tl.float32)
    for first in range(0, NUMBER, 32):
        i = first + tl.arange(0, 32)
        row = i // GROUP * (GROUP + SKIPPED) + SKIPPED + i % GROUP
        at = row[:, None] * STRIDE + column[None, :]
        total += tl.load(parts + at, mask=(i < NUMBER)[:, None] & inside[None, :], other=0.0)
    return tl.sum(total, 0)


@triton.jit
def stem_sums_kernel(filters, tokens, dw, dbias, dcls, dregisters, dpositions, F: tl.constexpr, N: tl.constexpr,
                     NUM_CLS: tl.constexpr, SPECIAL: tl.constexpr, POSITIONS: tl.constexpr, D: tl.constexpr,
                     SPLITS: tl.constexpr, WIDTH: tl.constexpr):  # fmt: skip
    """The gradients, WIDTH numbers per program: dw (D, F), then dbias (D,), then those of each token's offset (N, D)."""
    PATCHES: tl.constexpr = N - SPECIAL
    OF_FILTERS: tl.constexpr = (D * F + WIDTH - 1) // WIDTH
    OF_BIAS: tl.constexpr = (D + WIDTH - 1) // WIDTH
    part = tl.program_id(0)
    if part < OF_FILTERS:
        at = part * WIDTH + tl.arange(0, WIDTH)
        total = _sum_of_rows(filters, at, at < D * F, SPLITS * PATCHES, PATCHES, 0, D * F, WIDTH)
        tl.store(dw + at, total, mask=at < D * F)
    elif part < OF_FILTERS + OF_BIAS:
        at = (part - OF_FILTERS) * WIDTH + tl.arange(0, WIDTH)
        total = _sum_of_rows(tokens, at, at < D, SPLITS * PATCHES, PATCHES, SPECIAL, D, WIDTH)
        tl.store(dbias + at, total, mask=at < D)
    else:
        at = (part - OF_FILTERS - OF_BIAS) * WIDTH + tl.arange(0, WIDTH)
        inside = at < N * D
        total = tl.zeros([WIDTH], tl.float32)
        for split in tl.static_range(SPLITS):
            total += tl.load(tokens + split * N * D + at, mask=inside, other=0.0)
        if POSITIONS:
            tl.store(dpositions + at, total, mask=inside)
        if NUM_CLS > 0:
            tl.store(dcls + at, total, mask=at < NUM_CLS * D)
        if SPECIAL > NUM_CLS:
            tl.store(dregisters + at - NUM_CLS * D, total, mask=(at >= NUM_CLS * D) & (at < SPECIAL * D))
