"""The two Triton kernels behind `pocketvit.kernels.attention`: forward and backward.

In a short sequence a head is tiny: 65 keys and values of 16 numbers fit into the registers of one warp. So one
program owns a head of an image. It reads the keys and values once and walks over the query rows, a tile at a time.
A row's scores are all at hand together, so the softmax needs no running maximum, and the backward pass no second
kernel and no atomics: the gradients of keys and values gather in registers, those of a query row are final at once.

65 = 64 + 1 is the length that matters, and Triton's tiles are powers of two. Padding to 128 would double the work.
Therefore keys come as two tiles: `MAIN`, the largest power of two below N, and `TAIL`, what is left, rounded up to a
power of two of at least 16 (the matrix units' least): 65 costs 64 + 16. Query rows come in tiles of `ROWS`; a last,
partly filled tile may be of `REST` < `ROWS` rows. Rows past N read as zeros and are not written.

Forward saves each row's log-sum-exp (base 2), so that backward finds P with one multiply-add and one exp2 per score.
Everything is accumulated in float32; P and dS are rounded to the inputs' dtype before they are multiplied on.

Shapes: B batch, N tokens, A query heads, A_kv key and value heads, E head dim. `GROUP` = A / A_kv query heads share
a key head. A pointer's strides carry its name: `q_b`, `q_a`, `q_n` step to the next image, head and token. `SCALE` is
a constant because `torch.compile` passes a Python float as float64, and the scores would become float64 with it.

Source: Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135
Differs: no loop over key tiles, hence no rescaling; P ∘ dP is summed in place of O ∘ dO, so O need not be kept.
"""

import triton
import triton.language as tl


@triton.jit
def _read(x, x_n, start, N: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """ROWS tokens of a head from token `start` on, zeros past N and E, (ROWS, COLUMNS)."""
    row = start + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    return tl.load(x + row * x_n + column, mask=(row < N) & (column < E), other=0.0)


@triton.jit
def _write(x, x_n, start, value, N: tl.constexpr, E: tl.constexpr):
    """The counterpart of `_read`: write the part of a tile that lies within N and E."""
    row = start + tl.arange(0, value.shape[0])[:, None]
    column = tl.arange(0, value.shape[1])[None, :]
    tl.store(x + row * x_n + column, value.to(x.dtype.element_ty), mask=(row < N) & (column < E))


@triton.jit
def _scores(q, k, START: tl.constexpr, N: tl.constexpr):
    """Unscaled scores (rows, keys) of the key tile that begins at token START; keys past N get -inf."""
    s = tl.dot(q, tl.trans(k))
    if START + k.shape[0] > N:
        s = tl.where(tl.arange(0, k.shape[0])[None, :] + START < N, s, float("-inf"))
    return s


@triton.jit
def _forward_tile(q_head, q_n, out_head, out_n, lse_head, factor, start, k0, k1, v0, v1,
                  SCALE: tl.constexpr, N: tl.constexpr, E: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Attend from ROWS queries to all keys: k0, v0 are the main tile, k1, v1 the tail; the output times `factor`."""
    LOG2_SCALE: tl.constexpr = SCALE * 1.4426950408889634  # exp(x) = exp2(x * log2(e))
    q = _read(q_head, q_n, start, N, E, ROWS, k0.shape[1])
    s0 = _scores(q, k0, 0, N)
    s1 = _scores(q, k1, k0.shape[0], N)
    top = tl.maximum(tl.max(s0, 1), tl.max(s1, 1)) * LOG2_SCALE
    p0 = tl.exp2(s0 * LOG2_SCALE - top[:, None])
    p1 = tl.exp2(s1 * LOG2_SCALE - top[:, None])
    total = tl.sum(p0, 1) + tl.sum(p1, 1)
    out = tl.dot(p0.to(v0.dtype), v0)
    out = tl.dot(p1.to(v1.dtype), v1, out)
    _write(out_head, out_n, start, out * (factor / total)[:, None], N, E)
    row = start + tl.arange(0, ROWS)
    tl.store(lse_head + row, top + tl.log2(total), mask=row < N)


@triton.jit
def attention_kernel(q, q_b, q_a, q_n, k, k_b, k_a, k_n, v, v_b, v_a, v_n, out, lse, keep,
                     KEPT: tl.constexpr, SCALE: tl.constexpr, A: tl.constexpr, GROUP: tl.constexpr, N: tl.constexpr,
                     E: tl.constexpr, COLUMNS: tl.constexpr, MAIN: tl.constexpr, TAIL: tl.constexpr,
                     ROWS: tl.constexpr, REST: tl.constexpr):  # fmt: skip
    """One program per image and query head; writes out (B, N, A, E) and lse (B, A, N).

    If KEPT, each image's output is multiplied by its number in keep (B,).
    """
    b = (tl.program_id(0) // A).to(tl.int64)  # offsets into a large batch pass 2**31
    a = tl.program_id(0) % A
    k_head = k + b * k_b + a // GROUP * k_a
    v_head = v + b * v_b + a // GROUP * v_a
    k0 = _read(k_head, k_n, 0, N, E, MAIN, COLUMNS)
    v0 = _read(v_head, v_n, 0, N, E, MAIN, COLUMNS)
    k1 = _read(k_head, k_n, MAIN, N, E, TAIL, COLUMNS)
    v1 = _read(v_head, v_n, MAIN, N, E, TAIL, COLUMNS)
    q_head = q + b * q_b + a * q_a
    out_head = out + (b * N * A + a) * E
    lse_head = lse + (b * A + a) * N
    factor = 1.0
    if KEPT:
        factor = tl.load(keep + b)
    END: tl.constexpr = N - N % ROWS if REST else N
    for start in range(0, END, ROWS):
        _forward_tile(q_head, q_n, out_head, A * E, lse_head, factor, start, k0, k1, v0, v1, SCALE, N, E, ROWS)
    if REST:
        _forward_tile(q_head, q_n, out_head, A * E, lse_head, factor, END, k0, k1, v0, v1, SCALE, N, E, REST)


@triton.jit
def _backward_tile(q_head, q_n, dout_head, dout_n, lse_head, factor, dq_head, dq_n, start, k0, k1, v0, v1,
                   dk0, dk1, dv0, dv1, KEPT: tl.constexpr, SCALE: tl.constexpr, N: tl.constexpr, E: tl.constexpr,
                   ROWS: tl.constexpr):  # fmt: skip
    """Write the gradient of ROWS queries; return those of k (short of SCALE) and v with the queries' share added."""
    q = _read(q_head, q_n, start, N, E, ROWS, k0.shape[1])
    dout = _read(dout_head, dout_n, start, N, E, ROWS, k0.shape[1])
    if KEPT:
        dout = (dout * factor).to(q.dtype)
    row = start + tl.arange(0, ROWS)
    lse = tl.load(lse_head + row, mask=row < N, other=0.0)[:, None]
    LOG2_SCALE: tl.constexpr = SCALE * 1.4426950408889634
    p0 = tl.exp2(_scores(q, k0, 0, N) * LOG2_SCALE - lse)
    p1 = tl.exp2(_scores(q, k1, k0.shape[0], N) * LOG2_SCALE - lse)
    dp0 = tl.dot(dout, tl.trans(v0))
    dp1 = tl.dot(dout, tl.trans(v1))
    delta = (tl.sum(p0 * dp0, 1) + tl.sum(p1 * dp1, 1))[:, None]
    ds0 = (p0 * (dp0 - delta)).to(q.dtype)
    ds1 = (p1 * (dp1 - delta)).to(q.dtype)
    dq = tl.dot(ds0, k0)
    dq = tl.dot(ds1, k1, dq)
    _write(dq_head, dq_n, start, dq * SCALE, N, E)
    dv0 = tl.dot(tl.trans(p0.to(q.dtype)), dout, dv0)
    dv1 = tl.dot(tl.trans(p1.to(q.dtype)), dout, dv1)
    dk0 = tl.dot(tl.trans(ds0), q, dk0)
    dk1 = tl.dot(tl.trans(ds1), q, dk1)
    return dk0, dk1, dv0, dv1


@triton.jit
def attention_backward_kernel(q, q_b, q_a, q_n, k, k_b, k_a, k_n, v, v_b, v_a, v_n, dout, dout_b, dout_a, dout_n,
                              lse, grad, keep, KEPT: tl.constexpr, SCALE: tl.constexpr, A: tl.constexpr,
                              GROUP: tl.constexpr, N: tl.constexpr, E: tl.constexpr, COLUMNS: tl.constexpr,
                              MAIN: tl.constexpr, TAIL: tl.constexpr, ROWS: tl.constexpr,
                              REST: tl.constexpr):  # fmt: skip
    """One program per image and key head, over the query heads that share it.

    Writes grad (B, N, A + 2 A_kv, E): a token's query heads, then its key heads, then its value heads.
    """
    A_KV: tl.constexpr = A // GROUP
    GRAD_N: tl.constexpr = (A + 2 * A_KV) * E
    b = (tl.program_id(0) // A_KV).to(tl.int64)
    a_kv = tl.program_id(0) % A_KV
    k_head = k + b * k_b + a_kv * k_a
    v_head = v + b * v_b + a_kv * v_a
    k0 = _read(k_head, k_n, 0, N, E, MAIN, COLUMNS)
    v0 = _read(v_head, v_n, 0, N, E, MAIN, COLUMNS)
    k1 = _read(k_head, k_n, MAIN, N, E, TAIL, COLUMNS)
    v1 = _read(v_head, v_n, MAIN, N, E, TAIL, COLUMNS)
    dk0 = tl.zeros([MAIN, COLUMNS], tl.float32)
    dv0 = tl.zeros([MAIN, COLUMNS], tl.float32)
    dk1 = tl.zeros([TAIL, COLUMNS], tl.float32)
    dv1 = tl.zeros([TAIL, COLUMNS], tl.float32)
    grad_image = grad + b * N * GRAD_N
    factor = 1.0
    if KEPT:
        factor = tl.load(keep + b)
    END: tl.constexpr = N - N % ROWS if REST else N
    for i in range(GROUP):
        a = a_kv * GROUP + i
        q_head = q + b * q_b + a * q_a
        dout_head = dout + b * dout_b + a * dout_a
        lse_head = lse + (b * A + a) * N
        dq_head = grad_image + a * E
        for start in range(0, END, ROWS):
            dk0, dk1, dv0, dv1 = _backward_tile(q_head, q_n, dout_head, dout_n, lse_head, factor, dq_head, GRAD_N,
                                                start, k0, k1, v0, v1, dk0, dk1, dv0, dv1, KEPT, SCALE, N, E, ROWS)  # fmt: skip
        if REST:
            dk0, dk1, dv0, dv1 = _backward_tile(q_head, q_n, dout_head, dout_n, lse_head, factor, dq_head, GRAD_N,
                                                END, k0, k1, v0, v1, dk0, dk1, dv0, dv1, KEPT, SCALE, N, E, REST)  # fmt: skip
    dk_head = grad_image + (A + a_kv) * E
    dv_head = grad_image + (A + A_KV + a_kv) * E
    _write(dk_head, GRAD_N, 0, dk0 * SCALE, N, E)
    _write(dv_head, GRAD_N, 0, dv0, N, E)
    _write(dk_head, GRAD_N, MAIN, dk1 * SCALE, N, E)
    _write(dv_head, GRAD_N, MAIN, dv1, N, E)
