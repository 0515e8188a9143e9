"""A stack of transformer blocks: fused kernels for short sequences and narrow models, PyTorch otherwise.

A small ViT is bound by memory traffic and launches rather than by its products, so the fused kernels take a tile of
tokens through everything between two attentions at once. `blocks_reference` is their reference: the same function,
readable, on any device and in any floating dtype.

Shapes: B batch, N tokens, D width, L layers, A heads, A_kv key and value heads, E head dim, F = (A + 2 A_kv) · E,
H hidden width of the MLP.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from pocketvit.config.training import Kernels
from pocketvit.errors import InputError
from pocketvit.kernels.block_weights import BlockNorms, BlockPlan, BlockWeights
from pocketvit.kernels.launch import INTERPRETED, choose, needs_gpu, triton

if TYPE_CHECKING or triton is not None:
    from pocketvit.kernels.blocks_ops import FusedBlocks
    from pocketvit.kernels.persistent.blocks import PersistentBlocks

    FUNCTIONS = {"persistent": PersistentBlocks, "fused": FusedBlocks}
    """The stack as an autograd function of x, keep, plan, whether backward will want something, and the weights."""

MAX_WIDTH = 256  # the widest token that the kernels keep in registers
MAX_NUMBERS = 2**31  # numbers of a tensor that the kernels' 32-bit offsets reach


def run_blocks(
    x: Tensor,
    keep: Tensor | None,
    weights: BlockWeights,
    plan: BlockPlan,
    *,
    norms: BlockNorms | None = None,
    kernels: Kernels = "auto",
) -> Tensor:
    """Refine tokens by L pre-norm blocks: x ← x + keep₁ · attention(norm(x)), then x ← x + keep₂ · MLP(norm(x)).

    Args:
        x: tokens, (B, N, D).
        keep: factor of each image's two branches in each layer, float32 (L, 2, B); none is 1.
        weights: of all layers, float32; they are rounded to the dtype of x, their gradients are not.
        plan: heads, norm, activation, and how many tokens are wanted in the end.
        norms: that are not yet merged into the weights; only with `kernels`="persistent".
        kernels: "auto", "persistent", "fused" or "reference".
    Returns:
        the first `plan.taken` tokens of each image, (B, taken, D).
    Raises:
        InputError: an unknown `kernels`, one that does not support the inputs, or more images than the kernels can
            count.
    """
    if norms is not None and kernels != "persistent":
        raise ValueError(f"kernels={kernels!r}: only the persistent ones merge norms")
    chosen = choose("these blocks", kernels, implementations(x.device, x.dtype, x.shape[1], plan)).name
    if chosen == "reference":
        return blocks_reference(x, keep, weights, plan)
    if len(x) > max_images(x.shape[1], plan):
        raise InputError(
            f"a batch of {len(x):,} images on one GPU is too large for the fused blocks: with {x.shape[1]} tokens per "
            f"image, at most {max_images(x.shape[1], plan):,} fit; use a smaller batch_size or train.kernels=reference"
        )
    if keep is None:
        keep = torch.ones(len(weights.w_qkv), 2, len(x), device=x.device)
    tensors = [*weights, *(tensor for tensor in norms or () if tensor is not None)]
    save = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *tensors))
    return FUNCTIONS[chosen].apply(x, keep, plan, save, *tensors)


def blocks_reference(x: Tensor, keep: Tensor | None, weights: BlockWeights, plan: BlockPlan) -> Tensor:
    """The reference implementation of `run_blocks`."""
    heads, kv_heads = plan.num_heads, plan.num_kv_heads
    for i, w in enumerate(map(BlockWeights._make, zip(*(t.to(x.dtype) for t in weights), strict=True))):
        qkv = F.linear(_norm(x, plan), w.w_qkv, w.b_qkv)  # (B, N, F)
        qkv = qkv.unflatten(2, (-1, plan.head_dim)).transpose(1, 2)  # (B, A + 2 A_kv, N, E)
        o = plan.mixer.reference(*qkv.split((heads, kv_heads, kv_heads), dim=1)).transpose(1, 2).flatten(2)  # (B, N, D)
        x = x + _kept(F.linear(o, w.w_proj, w.b_proj), keep, i, 0)
        if i == len(weights.w_qkv) - 1:
            x = x[:, : plan.taken]
        hidden = F.gelu(F.linear(_norm(x, plan), w.w_fc1, w.b_fc1), approximate="tanh" if plan.tanh else "none")
        x = x + _kept(F.linear(hidden, w.w_fc2, w.b_fc2), keep, i, 1)
    return x


def _norm(x: Tensor, plan: BlockPlan) -> Tensor:
    """LayerNorm or RMSNorm without a factor or an offset."""
    norm = F.layer_norm if plan.centred else F.rms_norm
    return norm(x, x.shape[2:], eps=plan.eps)


def _kept(branch: Tensor, keep: Tensor | None, layer: int, which: int) -> Tensor:
    """A branch (B, N, D) after stochastic depth."""
    return branch if keep is None else branch * keep[layer, which, :, None, None].to(branch.dtype)


def max_images(num_tokens: int, plan: BlockPlan) -> int:
    """The most images of N tokens whose widest tensor, (B, N, F) or (B, N, H), the kernels' offsets reach."""
    (projection, _), *_ = plan.shapes
    return MAX_NUMBERS // (num_tokens * max(projection, plan.hidden_width))


def implementations(
    device: torch.device, dtype: torch.dtype, num_tokens: int, plan: BlockPlan
) -> dict[str, Callable[[], str | None]]:
    """The kinds of kernels, the fastest first, each with a function that says why it does not support such tokens."""
    where = device, dtype, num_tokens, plan
    return {"persistent": lambda: persistent_supported(*where), "fused": lambda: supported(*where)}


def persistent_supported(device: torch.device, dtype: torch.dtype, num_tokens: int, plan: BlockPlan) -> str | None:
    """As `supported`, for the persistent kernels, which support less than the fused ones."""
    reason = supported(device, dtype, num_tokens, plan)
    if reason is not None:
        return reason
    from pocketvit.kernels.persistent import blocks as persistent  # needs Triton

    return persistent.supported(device, dtype, num_tokens, plan)


def supported(device: torch.device, dtype: torch.dtype, num_tokens: int, plan: BlockPlan) -> str | None:
    """None if the fused kernels support such tokens; else the reason why not."""
    reason = needs_gpu(device)
    if reason is not None:
        return reason
    if not INTERPRETED:
        if torch.cuda.get_device_properties(device).major != 9:
            return "the kernels are made for GPUs of compute capability 9.x"
        if dtype != torch.bfloat16:
            return "the fused blocks want bfloat16 tokens (train.precision=bf16)"
    if plan.width % 32 or plan.width > MAX_WIDTH:
        return f"a width of {plan.width} is not a multiple of 32 up to {MAX_WIDTH}"
    if plan.hidden_width % plan.width:
        return f"the MLP's hidden width, {plan.hidden_width}, is not a multiple of the width, {plan.width}"
    head = torch.empty(0, 1, num_tokens, plan.head_dim, device=device, dtype=dtype)
    return plan.mixer.supported(head, head, head)
