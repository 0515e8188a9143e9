"""Attention over short sequences: one fused kernel each way on the GPU, PyTorch's own attention elsewhere.

PyTorch's fused attention is made for thousands of tokens and heads 64 to 128 wide. With 65 tokens and heads 16 wide
it takes 1.8 ms of a 4.6 ms training step; `pocketvit.kernels.attention_triton` does the same work several times
faster by giving a whole head to one warp.

Shapes: B batch, N tokens, A query heads, A_kv key and value heads, E head dim.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; grouped queries: Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketvit.config.training import Kernels
from pocketvit.errors import InputError
from pocketvit.kernels.block_weights import MixerKernels
from pocketvit.kernels.launch import INTERPRETED, choose, needs_gpu, triton

if TYPE_CHECKING or triton is not None:
    from pocketvit.kernels import attention_ops, attention_triton

MAX_TOKENS = 257  # the longest sequence whose rows of scores still fit into registers

MAX_TOKENS_ANY_GPU = 80
"""The same where the GPU is not of compute capability 9: there Triton's tiles for longer sequences spill."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, kernels: Kernels = "auto") -> Tensor:
    """Every query attends to every key: softmax(q kᵀ · scale) v, head by head.

    Args:
        q: queries, (B, A, N, E). Strided views are read in place.
        k: keys, (B, A_kv, N, E); A is a multiple of A_kv, and each key head serves A / A_kv query heads in a row.
        v: values, (B, A_kv, N, E), or of another head dim, which the fused kernels do not support.
        scale: factor of the scores; None = 1 / √E.
        kernels: "auto", "fused" or "reference".
    Returns:
        (B, A, N, E). The fused kernel lays it out as (B, N, A, E), so that joining the heads moves nothing.
    Raises:
        InputError: shapes that do not fit together, a scale that is not positive, an unknown `kernels`, or
            `kernels="fused"` for inputs that it does not support.
    """
    scale = _checked_scale(q, k, v, scale)
    if not _use_fused(q, k, v, kernels):
        return attention_reference(q, k, v, scale=scale)
    from pocketvit.kernels.attention_operators import attention_op

    out, _ = attention_op(q, k, v, scale)  # (B, N, A, E)
    return out.transpose(1, 2)


def attention_qkv(qkv: Tensor, *, kernels: Kernels = "auto") -> Tensor:
    """Self-attention on a packed projection; its gradient is packed as well, so nothing is split, joined or copied.

    Args:
        qkv: queries, keys and values side by side, (B, N, 3, A, E).
    Returns:
        the heads joined, (B, N, A·E).
    Raises:
        InputError: as `attention`.
    """
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        raise InputError(f"qkv has the shape {tuple(qkv.shape)}: must be (batch, tokens, 3, heads, head dim)")
    # Not permuted as a whole: autograd would gather the three gradients in another order and copy them all once more.
    q, k, v = (x.transpose(1, 2) for x in qkv.unbind(2))  # each (B, A, N, E)
    scale = _checked_scale(q, k, v, None)
    if not _use_fused(q, k, v, kernels):
        return attention_reference(q, k, v, scale=scale).transpose(1, 2).flatten(2)  # (B, N, A·E)
    from pocketvit.kernels.attention_operators import attention_qkv_op

    out, _ = attention_qkv_op(qkv, scale)  # (B, N, A, E)
    return out.flatten(2)  # (B, N, A·E)


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None, mask: Tensor | None = None
) -> Tensor:
    """The reference implementation of `attention`, on any device and in any floating dtype; `mask` is added to the scores."""
    gqa = bool(q.shape[1] != k.shape[1])  # torch.jit.trace makes tensors of shapes
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=gqa)


def supported(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """None if the fused kernels support these inputs; else the reason why not."""
    reason = needs_gpu(q.device) or needs_gpu(k.device) or needs_gpu(v.device)
    if reason is not None:
        return reason
    if q.dtype not in (torch.bfloat16, torch.float16) and not INTERPRETED or not q.dtype == k.dtype == v.dtype:
        return "the dtypes of q, k and v must be all bfloat16 or all float16"
    N, E = q.shape[2:]
    if v.shape[3] != E:
        return "keys and values differ in their head dim"
    if k.shape[2] != N:
        return "queries and keys differ in number"
    if N > MAX_TOKENS:
        return f"{N} tokens are more than {MAX_TOKENS}"
    if not (8 <= E <= 64 and E % 8 == 0):
        return f"a head dim of {E} is not a multiple of 8 from 8 to 64"
    if not q.stride(3) == k.stride(3) == v.stride(3) == 1:
        return "the numbers of a head must lie next to each other in memory"
    major = 9 if INTERPRETED else torch.cuda.get_device_properties(q.device).major
    if major < 8:
        return f"the GPU's compute capability is {major}.x, below 8.0"
    if major != 9 and N > MAX_TOKENS_ANY_GPU:
        return f"{N} tokens are more than {MAX_TOKENS_ANY_GPU}, and the GPU's compute capability is {major}.x, not 9.x"
    return None


SOFTMAX = MixerKernels(
    attention_reference,
    supported,
    lambda *inputs, **out: attention_ops.launch_forward(attention_triton.attention_kernel, *inputs, **out),
    lambda *inputs, **out: attention_ops.launch_backward(attention_triton.attention_backward_kernel, *inputs, **out),
)
"""Attention inside the fused blocks."""


def _use_fused(q: Tensor, k: Tensor, v: Tensor, kernels: Kernels) -> bool:
    """Whether the fused kernels run; raises an `InputError` if they were asked for but are not supported."""
    return choose("this attention", kernels, {"fused": lambda: supported(q, k, v)}).name == "fused"


def _checked_scale(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> float:
    """The scale, after checking the shapes."""
    if not (q.ndim == k.ndim == v.ndim == 4 and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]):
        raise InputError(f"q {tuple(q.shape)} and k {tuple(k.shape)}: must be (batch, heads, tokens, head dim)")
    if k.shape[:3] != v.shape[:3]:
        raise InputError(f"k {tuple(k.shape)} and v {tuple(v.shape)}: must have the same shape up to the head dim")
    if q.shape[1] % k.shape[1]:
        raise InputError(f"{q.shape[1]} query heads: must be a multiple of the {k.shape[1]} key heads")
    if scale is None:
        return q.shape[3] ** -0.5
    if not scale > 0:
        raise InputError(f"scale={scale}: must be greater than 0")
    return float(scale)
