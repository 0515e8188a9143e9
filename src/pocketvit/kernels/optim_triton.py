"""Optimizers' updates of a flat array of parameters, in one pass over memory.

A program updates BLOCK numbers of `param` and its moments, (size,) each; lr and step are one number each.
"""

import triton
import triton.language as tl


@triton.jit
def _decayed(p, direction, CAUTIOUS: tl.constexpr):
    """The parameters that decay: with cautious decay, those whose sign is not the opposite of the direction's."""
    if CAUTIOUS:
        p = tl.where(((p >= 0) & (direction >= 0)) | ((p <= 0) & (direction <= 0)), p, 0.0)
    return p


@triton.jit
def adamw_kernel(param, grad, exp_avg, exp_avg_sq, step, lr, size,
                 BETA1: tl.constexpr, BETA2: tl.constexpr, LOG2_BETA1: tl.constexpr, LOG2_BETA2: tl.constexpr,
                 EPS: tl.constexpr, WEIGHT_DECAY: tl.constexpr, CAUTIOUS: tl.constexpr,
                 BLOCK: tl.constexpr):  # fmt: skip
    """AdamW's, see `pocketvit.optim.flat.AdamW`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    rate, t = tl.load(lr), tl.load(step)
    g = tl.load(grad + at, mask=inside, other=0.0)
    p = tl.load(param + at, mask=inside, other=0.0)
    m = tl.load(exp_avg + at, mask=inside, other=0.0)
    v = tl.load(exp_avg_sq + at, mask=inside, other=0.0)
    m += (g - m) * (1 - BETA1)
    v = v * BETA2 + g * g * (1 - BETA2)
    unbiased_m = m / (1 - tl.exp2(t * LOG2_BETA1))
    unbiased_v = v / (1 - tl.exp2(t * LOG2_BETA2))
    if CAUTIOUS:
        p -= rate * WEIGHT_DECAY * _decayed(p, m, CAUTIOUS)
    else:
        p = p * (1 - rate * WEIGHT_DECAY)
    p -= rate * unbiased_m / (tl.sqrt(unbiased_v) + EPS)
    tl.store(param + at, p, mask=inside)
    tl.store(exp_avg + at, m, mask=inside)
    tl.store(exp_avg_sq + at, v, mask=inside)


@triton.jit
def lion_kernel(param, grad, exp_avg, lr, size,
                BETA1: tl.constexpr, BETA2: tl.constexpr, WEIGHT_DECAY: tl.constexpr, CAUTIOUS: tl.constexpr,
                BLOCK: tl.constexpr):  # fmt: skip
    """Lion's, see `pocketvit.optim.lion.Lion`."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    rate = tl.load(lr)
    g = tl.load(grad + at, mask=inside, other=0.0)
    p = tl.load(param + at, mask=inside, other=0.0)
    m = tl.load(exp_avg + at, mask=inside, other=0.0)
    c = m + (g - m) * (1 - BETA1)
    sign = tl.where(c > 0, 1.0, tl.where(c < 0, -1.0, 0.0))
    p -= rate * (sign + WEIGHT_DECAY * _decayed(p, sign, CAUTIOUS))
    tl.store(param + at, p, mask=inside)
    tl.store(exp_avg + at, m + (g - m) * (1 - BETA2), mask=inside)
