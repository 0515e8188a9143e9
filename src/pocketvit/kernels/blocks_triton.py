"""What a stack of transformer blocks does to its tokens besides attention, in four kernels.

    forward    norm_linear    n = norm(x),  qkv = n Wᵀ + b
               (attention)    o = keep₁ · attention(qkv)
               block_tail     x₁ = x + o Wᵀ + keep₁ · b,  out = x₁ + keep₂ · MLP(norm(x₁))
    backward   mlp_backward   from the gradient of `out` to those of x₁ and of attention's output o
               (attention)
               norm_linear_backward   from the gradient of qkv to that of x

A narrow model's weights fit into a multiprocessor's shared memory, and a token's channels into the registers of a
few threads. So a program takes a tile of `ROWS` tokens through everything that concerns a token alone, and between
two kernels there lies attention, the only thing that mixes tokens. Nothing is written that the other direction can
find again cheaply: the MLP's hidden layer is computed twice, and written once, for the gradients of its weights.

A token's D channels are handled as D / C chunks of C = 64 (or 32) channels, because a tile's sides must be powers of
two and 192 is none. In the code a plural (`xs`) is a tuple of chunks, each (ROWS, C).

The norms come without their factors and offsets: these are folded into the linear layer that follows
(`pocketvit.model.folded`). So what the linear layer reads, n = (x − mean) / std, is also all that the norm's backward
pass needs beside 1 / std, and it is n that is saved, not x. Stochastic depth multiplies attention's output o and the
MLP's hidden layer rather than the branches, so that their products with the weights are plain ones.

Shapes: M = B · N tokens of all images, D width, C chunk, F columns of the packed projection, H hidden width of the
MLP. The last block may be asked for the first `taken` tokens of each image only (the CLS tokens, where nothing else is
read): row r of its output is then token r // taken · N + r % taken. Everywhere else taken = N, and both are r. It is
not specialised on, so that the last block needs no kernels of its own.

Sources: LayerNorm: Ba et al. 2016, https://arxiv.org/abs/1607.06450; GELU: Hendrycks and Gimpel 2016,
https://arxiv.org/abs/1606.08415
"""

import triton
import triton.language as tl

# ---------------------------------------------------------------- a tile of tokens in chunks


@triton.jit
def _read(x, at, live, D: tl.constexpr, C: tl.constexpr):
    """The chunks of some tokens; `at` (ROWS, C) finds the first chunk."""
    xs = ()
    for j in tl.static_range(0, D, C):
        xs = xs + (tl.load(x + at + j, mask=live, other=0.0),)
    return xs


@triton.jit
def _write(x, at, live, xs, D: tl.constexpr, C: tl.constexpr):
    """The counterpart of `_read`."""
    for j in tl.static_range(0, D // C):
        tl.store(x + at + j * C, xs[j].to(x.dtype.element_ty), mask=live)


@triton.jit
def _zeros(ROWS: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
    """Chunks to add to, in float32."""
    xs = ()
    for _ in tl.static_range(0, D, C):
        xs = xs + (tl.zeros([ROWS, C], tl.float32),)
    return xs


@triton.jit
def _weight_rows(w, row, D: tl.constexpr, C: tl.constexpr):
    """Some rows of a weight (·, D), in chunks (rows, C)."""
    ws = ()
    for j in tl.static_range(0, D, C):
        ws = ws + (tl.load(w + row[:, None] * D + j + tl.arange(0, C)[None, :]),)
    return ws


@triton.jit
def _linear(xs, ws, D: tl.constexpr, C: tl.constexpr):
    """x Wᵀ for the rows of W at hand, (ROWS, rows)."""
    y = tl.dot(xs[0], tl.trans(ws[0]))
    for j in tl.static_range(1, D // C):
        y = tl.dot(xs[j], tl.trans(ws[j]), y)
    return y


@triton.jit
def _linear_backward(y, ws, sums, D: tl.constexpr, C: tl.constexpr):
    """The chunks of sums + y W, given y (ROWS, rows) and these rows of W."""
    new = ()
    for j in tl.static_range(0, D // C):
        new = new + (tl.dot(y, ws[j], sums[j]),)
    return new


@triton.jit
def _linear_columns(ys, w, column, D: tl.constexpr, C: tl.constexpr, WIDTH: tl.constexpr):
    """y W for some columns of W (D, WIDTH), given all D channels of y in chunks; (ROWS, columns)."""
    at = tl.arange(0, C)[:, None] * WIDTH + column[None, :]
    x = tl.dot(ys[0], tl.load(w + at))
    for j in tl.static_range(1, D // C):
        x = tl.dot(ys[j], tl.load(w + at + j * C * WIDTH), x)
    return x


# ---------------------------------------------------------------- norm and GELU


@triton.jit
def _norm(xs, dtype: tl.constexpr, EPS: tl.constexpr, CENTRED: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
    """The chunks normalized, by LayerNorm or RMSNorm, and each token's 1 / standard deviation (ROWS,)."""
    mean = tl.sum(xs[0].to(tl.float32), 1) * 0.0
    if CENTRED:
        for j in tl.static_range(0, D // C):
            mean += tl.sum(xs[j].to(tl.float32), 1)
        mean = mean * (1.0 / D)
    square = tl.zeros_like(mean)
    for j in tl.static_range(0, D // C):
        centred = xs[j].to(tl.float32) - mean[:, None]
        square += tl.sum(centred * centred, 1)
    rstd = tl.rsqrt(square * (1.0 / D) + EPS)
    ns = ()
    for j in tl.static_range(0, D // C):
        ns = ns + (((xs[j].to(tl.float32) - mean[:, None]) * rstd[:, None]).to(dtype),)
    return ns, rstd


@triton.jit
def _norm_backward(ds, n, at, live, rstd, CENTRED: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
    """The gradient of x, given that of n = norm(x), in chunks; n is read again rather than kept in registers."""
    along = tl.zeros_like(rstd)
    shift = tl.zeros_like(rstd)
    for j in tl.static_range(0, D // C):
        along += tl.sum(ds[j] * tl.load(n + at + j * C, mask=live, other=0.0).to(tl.float32), 1)
        if CENTRED:
            shift += tl.sum(ds[j], 1)
    tl.debug_barrier()  # else the compiler keeps every chunk of n alive from here to below
    new = ()
    for j in tl.static_range(0, D // C):
        nj = tl.load(n + at + j * C, mask=live, other=0.0).to(tl.float32)
        new = new + ((ds[j] - (shift[:, None] + nj * along[:, None]) * (1.0 / D)) * rstd[:, None],)
    return new


@triton.jit
def _gelu(h, TANH: tl.constexpr):
    """GELU, by the error function or by tanh, and its derivative."""
    if TANH:
        inner = 1.5957691216057308 * h * (1.0 + 0.044715 * h * h)  # 2 √(2/π) (h + 0.044715 h³)
        half = 1.0 / (1.0 + tl.exp2(-1.4426950408889634 * inner))  # (1 + tanh(inner / 2)) / 2
        slope = 1.5957691216057308 * (1.0 + 0.134145 * h * h)
        return h * half, half + h * half * (1.0 - half) * slope
    else:
        half = 0.5 * (1.0 + tl.erf(h * 0.7071067811865476))
        return h * half, half + h * 0.3989422804014327 * tl.exp2(-0.7213475204444817 * h * h)


# ---------------------------------------------------------------- forward


@triton.jit
def norm_linear_kernel(x, w, b, n, rstd_out, out, num_rows,
                       EPS: tl.constexpr, CENTRED: tl.constexpr, D: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
                       ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """n = norm(x) for x (M, D), its 1 / std (M,), and out = n Wᵀ + b, (M, F), for W (F, D)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = (row < num_rows)[:, None]
    at = row[:, None] * D + tl.arange(0, C)[None, :]
    ns, rstd = _norm(_read(x, at, live, D, C), x.dtype.element_ty, EPS, CENTRED, D, C)
    _write(n, at, live, ns, D, C)
    tl.store(rstd_out + row, rstd, mask=row < num_rows)
    for start in range(0, F, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        y = _linear(ns, _weight_rows(w, column, D, C), D, C) + tl.load(b + column)[None, :]
        tl.store(out + row[:, None] * F + column[None, :], y.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["num_rows", "taken"])
def block_tail_kernel(x, o, keep, w_proj, b_proj, w_fc1, b_fc1, w_fc2, b_fc2, n1, rstd_out, out, num_rows, B, N, taken,
                      EPS: tl.constexpr, CENTRED: tl.constexpr, TANH: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                      H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """A block from o (M, D) on: n1 = norm(x₁) (M, D), its 1 / std (M,), and `out` (B·taken, D).

    keep (2, B) holds the factors of the two branches of each image; w_proj (D, D), w_fc1 (H, D), w_fc2 (D, H).
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = r < num_rows
    live = alive[:, None]
    row = r // taken * N + r % taken
    chunk = tl.arange(0, C)
    at = row[:, None] * D + chunk[None, :]
    at_out = r[:, None] * D + chunk[None, :]
    keep1 = tl.load(keep + r // taken, mask=alive, other=0.0)[:, None]
    os = _read(o, at, live, D, C)
    x1s = ()
    for j in tl.static_range(0, D, C):
        branch = _linear(os, _weight_rows(w_proj, j + chunk, D, C), D, C) + keep1 * tl.load(b_proj + j + chunk)[None, :]
        x1s = x1s + (tl.load(x + at + j, mask=live, other=0.0).to(tl.float32) + branch,)
    _write(out, at_out, live, x1s, D, C)  # taken up again at the end
    n1s, rstd = _norm(x1s, x.dtype.element_ty, EPS, CENTRED, D, C)
    _write(n1, at, live, n1s, D, C)
    tl.store(rstd_out + row, rstd, mask=alive)
    keep2 = tl.load(keep + B + r // taken, mask=alive, other=0.0)[:, None]
    sums = _zeros(ROWS, D, C)
    for start in range(0, H, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        h = _linear(n1s, _weight_rows(w_fc1, column, D, C), D, C) + tl.load(b_fc1 + column)[None, :]
        a, _ = _gelu(h, TANH)
        a = (a * keep2).to(x.dtype.element_ty)
        new = ()
        for j in tl.static_range(0, D // C):
            w = tl.load(w_fc2 + (j * C + chunk)[None, :] * H + column[:, None])
            new = new + (tl.dot(a, w, sums[j]),)
        sums = new
    tl.debug_barrier()  # another thread may have written the x₁ that is read here
    outs = ()
    for j in tl.static_range(0, D // C):
        x1 = tl.load(out + at_out + j * C, mask=live, other=0.0).to(tl.float32)
        outs = outs + (x1 + sums[j] + keep2 * tl.load(b_fc2 + j * C + chunk)[None, :],)
    _write(out, at_out, live, outs, D, C)


# ---------------------------------------------------------------- backward


@triton.jit(do_not_specialize=["num_rows", "taken"])
def mlp_backward_kernel(n1, rstd_in, dout, keep, w_proj, w_fc1, b_fc1, w_fc2, a_out, dh_out, dx1, do,
                        num_rows, B, N, taken,
                        CENTRED: tl.constexpr, TANH: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
                        H: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """From the gradient of `block_tail`'s out to those of x₁ and o, (M, D).

    Leaves a and dh, (B·taken, H) each, for the weights' gradients: the MLP's hidden layer times keep₂, and the gradient
    of what its GELU reads.
    """
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = r < num_rows
    live = alive[:, None]
    row = r // taken * N + r % taken
    chunk = tl.arange(0, C)
    at = row[:, None] * D + chunk[None, :]
    at_out = r[:, None] * D + chunk[None, :]
    dtype: tl.constexpr = n1.dtype.element_ty
    keep2 = tl.load(keep + B + r // taken, mask=alive, other=0.0)[:, None]
    n1s = _read(n1, at, live, D, C)
    douts = _read(dout, at_out, live, D, C)
    sums = _zeros(ROWS, D, C)
    for start in range(0, H, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        ws = _weight_rows(w_fc1, column, D, C)
        a, slope = _gelu(_linear(n1s, ws, D, C) + tl.load(b_fc1 + column)[None, :], TANH)
        dh = (_linear_columns(douts, w_fc2, column, D, C, H) * keep2 * slope).to(dtype)
        to = r[:, None] * H + column[None, :]
        tl.store(a_out + to, (a * keep2).to(dtype), mask=live)
        tl.store(dh_out + to, dh, mask=live)
        sums = _linear_backward(dh, ws, sums, D, C)
    rstd = tl.load(rstd_in + row, mask=alive, other=0.0)
    dx1s = _norm_backward(sums, n1, at, live, rstd, CENTRED, D, C)
    ds = ()
    for j in tl.static_range(0, D // C):
        ds = ds + ((dx1s[j] + tl.load(dout + at_out + j * C, mask=live, other=0.0).to(tl.float32)).to(dtype),)
    _write(dx1, at, live, ds, D, C)
    for start in tl.static_range(0, D, C):
        tl.store(do + at + start, _linear_columns(ds, w_proj, start + chunk, D, C, D).to(dtype), mask=live)


@triton.jit
def norm_linear_backward_kernel(dy, w, n, rstd_in, dx1, dx, num_rows,
                                CENTRED: tl.constexpr, D: tl.constexpr, C: tl.constexpr, F: tl.constexpr,
                                ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    """The gradient dx (M, D) of a block's input: through `norm_linear`, from dy (M, F), and past the branch, dx1."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    alive = row < num_rows
    live = alive[:, None]
    at = row[:, None] * D + tl.arange(0, C)[None, :]
    sums = _zeros(ROWS, D, C)
    for start in range(0, F, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        y = tl.load(dy + row[:, None] * F + column[None, :], mask=live, other=0.0)
        sums = _linear_backward(y, _weight_rows(w, column, D, C), sums, D, C)
    rstd = tl.load(rstd_in + row, mask=alive, other=0.0)
    dxs = _norm_backward(sums, n, at, live, rstd, CENTRED, D, C)
    new = ()
    for j in tl.static_range(0, D // C):
        new = new + (dxs[j] + tl.load(dx1 + at + j * C, mask=live, other=0.0).to(tl.float32),)
    _write(dx, at, live, new, D, C)
