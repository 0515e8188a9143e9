"""The two kernels behind `pocketvit.kernels.head`, where what they compute is explained.

B images of M tokens each (those that the blocks return) and D channels, in chunks of C; T vectors of D channels that the
classifier reads of an image, K classes, K_PADDED of them a power of two. Pooling takes the mean of COUNT tokens from
FIRST on, or else each of T tokens by itself. A tile has ROWS tokens: all of an image, or one.

Tensors: tokens x (B, M, D); targets (B, K), the norm's factor γ and offset β (D,), the classifier's w (K, T·D) and b (K,) in
float32; the gradient of w is dw, and so on.
"""

import triton
import triton.language as tl


@triton.jit
def _normalized(x, image, token, live, EPS: tl.constexpr, M: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
    """A tile of tokens less their mean and over their standard deviation, in chunks, and 1 / that, (ROWS,)."""
    at = (image * M + token)[:, None] * D + tl.arange(0, C)[None, :]
    total = tl.zeros([token.shape[0]], tl.float32)
    chunks = ()
    for j in tl.static_range(0, D, C):
        chunk = tl.load(x + at + j, mask=live[:, None], other=0.0).to(tl.float32)
        total += tl.sum(chunk, 1)
        chunks = chunks + (chunk,)
    mean = total / D
    square = tl.zeros([token.shape[0]], tl.float32)
    for j in tl.static_range(0, D // C):
        centred = chunks[j] - mean[:, None]
        square += tl.sum(centred * centred, 1)
    rstd = 1.0 / tl.sqrt(square / D + EPS)
    normalized = ()
    for j in tl.static_range(0, D // C):
        normalized = normalized + ((chunks[j] - mean[:, None]) * rstd[:, None],)
    return normalized, rstd


@triton.jit(do_not_specialize=["scale"])
def head_kernel(x, targets, factor, offset, w, b, pooled, dlogits, terms, scale, EPS: tl.constexpr,
                M: tl.constexpr, T: tl.constexpr, FIRST: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr,
                D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr):  # fmt: skip
    """An image per program: in `pooled` (B, T, D), what the classifier reads, before factor and offset; in `dlogits` (B, K), the
    loss's gradient with respect to the logits; in `terms` (2, B), the loss, and whether the greatest logit is where the
    greatest target is. The latter two are multiplied by `scale`.
    """
    image = tl.program_id(0)
    column = tl.arange(0, C)
    k = tl.arange(0, K_PADDED)
    known = k < K
    logits = tl.load(b + k, mask=known, other=0.0)
    for t in tl.static_range(T):
        token = t + tl.arange(0, ROWS)
        live = (token >= FIRST) & (token < FIRST + t + COUNT)
        normalized, _rstd = _normalized(x, image, token, live, EPS, M, D, C)
        for j in tl.static_range(0, D // C):
            mean = tl.sum(tl.where(live[:, None], normalized[j], 0.0), 0) / COUNT
            tl.store(pooled + (image * T + t) * D + j * C + column, mean)
            read = mean * tl.load(factor + j * C + column) + tl.load(offset + j * C + column)
            at = k[:, None] * (T * D) + (t * D + j * C + column)[None, :]
            logits += tl.sum(tl.load(w + at, mask=known[:, None], other=0.0) * read[None, :], 1)
    logits = tl.where(known, logits, -1e30)  # not -inf, whose product with a target of 0 is NaN
    target = tl.load(targets + image * K + k, mask=known, other=0.0)
    right = tl.argmax(logits, 0) == tl.argmax(tl.where(known, target, -1e30), 0)
    logits -= tl.max(logits, 0)
    exponentials = tl.exp(logits)
    total = tl.sum(exponentials, 0)
    loss = tl.sum(target * (tl.log(total) - logits), 0)
    tl.store(terms + image, scale * loss)
    tl.store(terms + tl.num_programs(0) + image, tl.where(right, scale, 0.0))
    dlogit = exponentials / total * tl.sum(target, 0) - target
    tl.store(dlogits + image * K + k, scale * dlogit, mask=known)


@triton.jit
def _weight_gradients(factor, offset, w, pooled, dlogits, scale, dfactor, doffset, dw, db, B, part, T: tl.constexpr,
                      D: tl.constexpr, K: tl.constexpr, K_PADDED: tl.constexpr, COLUMNS: tl.constexpr,
                      IMAGES: tl.constexpr):  # fmt: skip
    """The gradients of COLUMNS channels of the norm and the classifier, over all images, IMAGES at a time."""
    k = tl.arange(0, K_PADDED)
    known = k < K
    column = part * COLUMNS + tl.arange(0, COLUMNS)
    gamma, beta = tl.load(factor + column), tl.load(offset + column)
    dgamma = tl.zeros([COLUMNS], tl.float32)
    dbeta = tl.zeros([COLUMNS], tl.float32)
    for t in tl.static_range(T):
        product = tl.zeros([K_PADDED, COLUMNS], tl.float32)  # of dlogits and what is pooled
        total = tl.zeros([K_PADDED], tl.float32)
        for start in range(0, B, IMAGES):
            image = start + tl.arange(0, IMAGES)
            inside = (image < B)[:, None]
            dlogit = tl.load(dlogits + image[:, None] * K + k[None, :], mask=inside & known[None, :], other=0.0)
            read = tl.load(pooled + (image * T + t)[:, None] * D + column[None, :], mask=inside, other=0.0)
            product = tl.dot(tl.trans(dlogit), read, product, input_precision="ieee")
            total += tl.sum(dlogit, 0)
        product *= scale
        total *= scale
        at = k[:, None] * (T * D) + (t * D + column)[None, :]
        weight = tl.load(w + at, mask=known[:, None], other=0.0)
        tl.store(dw + at, product * gamma[None, :] + total[:, None] * beta[None, :], mask=known[:, None])
        dgamma += tl.sum(weight * product, 0)
        dbeta += tl.sum(weight * total[:, None], 0)
        tl.store(db + k, total, mask=known & (t == 0) & (part == 0))
    tl.store(dfactor + column, dgamma)
    tl.store(doffset + column, dbeta)


@triton.jit
def _token_gradients(x, factor, w, dlogits, scale, dx, image, EPS: tl.constexpr, M: tl.constexpr, T: tl.constexpr,
                     FIRST: tl.constexpr, COUNT: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                     K: tl.constexpr, K_PADDED: tl.constexpr):  # fmt: skip
    """An image's dx, (M, D), by the formula for dp in `pocketvit.kernels.head`."""
    k = tl.arange(0, K_PADDED)
    known = k < K
    column = tl.arange(0, C)
    dlogit = scale * tl.load(dlogits + image * K + k, mask=known, other=0.0)
    for t in tl.static_range(T):
        token = t + tl.arange(0, ROWS)
        live = (token >= FIRST) & (token < FIRST + t + COUNT)
        normalized, rstd = _normalized(x, image, token, live, EPS, M, D, C)
        dpooled = ()
        mean_dp = tl.zeros([1], tl.float32)
        mean_n_dp = tl.zeros([ROWS], tl.float32)
        for j in tl.static_range(0, D // C):
            at = k[:, None] * (T * D) + (t * D + j * C + column)[None, :]
            dp = tl.sum(tl.load(w + at, mask=known[:, None], other=0.0) * dlogit[:, None], 0)
            dp = (dp * tl.load(factor + j * C + column) / COUNT)[None, :]
            mean_dp += tl.sum(dp, 1) / D
            mean_n_dp += tl.sum(normalized[j] * dp, 1) / D
            dpooled = dpooled + (dp,)
        for j in tl.static_range(0, D // C):
            gradient = rstd[:, None] * (dpooled[j] - mean_dp[:, None] - normalized[j] * mean_n_dp[:, None])
            gradient = tl.where(live[:, None], gradient, 0.0)
            to = dx + (image * M + token)[:, None] * D + (j * C + column)[None, :]
            tl.store(to, gradient.to(dx.dtype.element_ty), mask=(token < M)[:, None])


@triton.jit(do_not_specialize=["B"])
def head_backward_kernel(x, factor, offset, w, pooled, dlogits, dloss, dx, dfactor, doffset, dw, db, B,
                         EPS: tl.constexpr, M: tl.constexpr, T: tl.constexpr, FIRST: tl.constexpr,
                         COUNT: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                         K: tl.constexpr, K_PADDED: tl.constexpr, COLUMNS: tl.constexpr,
                         IMAGES: tl.constexpr):  # fmt: skip
    """The first D / COLUMNS programs own COLUMNS channels of the weights' gradients; of the others each an image's dx.

    dloss, one number, is what the loss is multiplied by behind these kernels; the plan's scale is in dlogits already.
    """
    PARTS: tl.constexpr = D // COLUMNS
    part = tl.program_id(0)
    scale = tl.load(dloss)
    if part < PARTS:
        _weight_gradients(factor, offset, w, pooled, dlogits, scale, dfactor, doffset, dw, db, B, part,
                          T, D, K, K_PADDED, COLUMNS, IMAGES)  # fmt: skip
    else:
        _token_gradients(x, factor, w, dlogits, scale, dx, part - PARTS, EPS, M, T, FIRST, COUNT, ROWS, D, C,
                         K, K_PADDED)  # fmt: skip
