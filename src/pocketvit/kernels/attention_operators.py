"""The attention kernels as PyTorch operators.

As `torch.library.triton_op`s they work with autograd, and `torch.compile` sees through them: it allocates their
outputs itself and breaks no graph. Declaring them loads PyTorch's compiler, which takes seconds, so this is imported
by those that call them only.

Shapes: B batch, N tokens, A query heads, A_kv key and value heads, E head dim.
"""

from collections.abc import Callable
from typing import Any, cast

from torch import Tensor
from torch.library import CustomOpDef, triton_op, wrap_triton
from triton import JITFunction

from pocketvit.kernels.attention_ops import launch_backward, launch_forward
from pocketvit.kernels.attention_triton import attention_backward_kernel, attention_kernel

if not isinstance(attention_kernel, JITFunction):  # but what Triton's interpreter runs

    def wrap_triton(triton_kernel: Callable, /) -> Any:
        """The kernel itself; PyTorch's `wrap_triton` refuses it up to version 2.10."""
        return triton_kernel


def split_qkv(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The queries, keys and values of a packed projection (B, N, 3, A, E), as views (B, A, N, E)."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, A, N, E)
    return q, k, v


@triton_op("pocketvit::attention", mutates_args=())
def attention_op(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`launch_forward` as an operator."""
    return launch_forward(wrap_triton(attention_kernel), q, k, v, scale)


@triton_op("pocketvit::attention_qkv", mutates_args=())
def attention_qkv_op(qkv: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`launch_forward` of a packed projection (B, N, 3, A, E), whose gradient then is one tensor as well."""
    return launch_forward(wrap_triton(attention_kernel), *split_qkv(qkv), scale)


@triton_op("pocketvit::attention_backward", mutates_args=())
def attention_backward_op(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor, scale: float) -> Tensor:
    """`launch_backward` as an operator."""
    return launch_backward(wrap_triton(attention_backward_kernel), q, k, v, dout, lse, scale)


def _save(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    """Keep what backward needs, for both operators."""
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # else every step would fill a gradient of lse with zeros


def _gradients(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor) -> Tensor:
    dout = dout if dout.stride(3) == 1 else dout.contiguous()
    return attention_backward_op(q, k, v, dout, lse, ctx.scale)  # (B, N, A + 2 A_kv, E)


def _backward(ctx: Any, dout: Tensor, _dlse: None) -> tuple[Tensor, Tensor, Tensor, None]:
    q, k, v, lse = ctx.saved_tensors
    grad = _gradients(ctx, q, k, v, dout, lse).transpose(1, 2)  # (B, A + 2 A_kv, N, E)
    dq, dk, dv = grad.split((q.shape[1], k.shape[1], v.shape[1]), dim=1)
    return dq, dk, dv, None


def _backward_qkv(ctx: Any, dout: Tensor, _dlse: None) -> tuple[Tensor, None]:
    qkv, lse = ctx.saved_tensors
    return _gradients(ctx, *split_qkv(qkv), dout, lse).view(qkv.shape), None  # (B, N, 3, A, E)


cast(CustomOpDef, attention_op).register_autograd(_backward, setup_context=_save)  # PyTorch calls them functions
cast(CustomOpDef, attention_qkv_op).register_autograd(_backward_qkv, setup_context=_save)
