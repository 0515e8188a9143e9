"""A model's blocks in the form of the fused kernels: few tensors, stacked over the layers.

Linear operations are merged into the adjacent linear layer in float32: a norm's factor γ and offset β,
W (γ ∘ x + β) + b = (W diag γ) x + (W β + b); LayerScale; the two factors of a low-rank projection. The blocks compute
the same, and autograd propagates the gradients of the merged weights back to the parts. Merging costs as much as a few
images, and saves a pass over all tokens for each part.

Shapes: L layers, D width.
"""

from collections.abc import Sequence
from dataclasses import fields
from typing import TypeVar

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.kernels.block_weights import BlockNorms, BlockPlan, BlockWeights
from pocketvit.kernels.blocks import persistent_supported, supported
from pocketvit.kernels.fold import fold_norm, linear, stack
from pocketvit.model.block import Block, LayerScale
from pocketvit.model.mixers import MIXERS
from pocketvit.model.norm import NORM_EPS

MIXER_KERNELS = {name: mixer.KERNELS for name, mixer in MIXERS.items() if mixer.KERNELS is not None}
CENTRED = {"layernorm": True, "rmsnorm": False}  # whether a norm that the kernels support subtracts the mean
TANH = {"gelu": False, "gelu_tanh": True}  # how they approximate an activation
KNOWN = {
    "patch_size", "patch_stride", "stem", "patch_init", "whitening_patches", "whitening_pairs", "width", "depth",
    "block_repeats", "num_heads", "num_kv_heads", "q_rank", "k_rank", "v_rank", "kv_rank_shared", "attention", "block",
    "qk_norm", "mlp_ratio", "activation", "norm", "layer_scale", "positions", "num_cls_tokens", "num_registers", "pool",
    "head", "patch_drop", "init", "drop_path",
}  # fmt: skip
"""Fields that the kernels compute, check themselves, or need not know."""
UNKNOWN = {field.name: field.default for field in fields(ModelConfig) if field.name not in KNOWN}
"""All others, which turn the kernels off unless they are at these defaults; so a new field never trains without effect."""
Stacked = TypeVar("Stacked", BlockWeights, BlockNorms)


def plan_of(config: ModelConfig, num_tokens: int, taken: int | None = None) -> BlockPlan:
    """The plan of the kernels for a model of N tokens, of which `taken` are needed; by default all, or the pooled ones."""
    return BlockPlan(
        width=config.width,
        hidden_width=config.hidden_width,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads or config.num_heads,
        mixer=MIXER_KERNELS[str(config.attention)],
        centred=CENTRED[config.norm],
        tanh=TANH[config.activation],
        eps=NORM_EPS,
        taken=taken or (config.num_cls_tokens if config.pool == "cls" else num_tokens),
    )


def not_fused(
    config: ModelConfig, block: nn.Module, num_tokens: int, device: torch.device, dtype: torch.dtype
) -> str | None:
    """None if such blocks can be folded and run by the fused kernels; else the reason why not."""
    if not Block.is_standard(block):
        return "the blocks are the user's own"
    for name, default in UNKNOWN.items():
        if getattr(config, name) != default:
            return f"the kernels do not support model.{name}={getattr(config, name)}"
    for name, known in {"attention": MIXER_KERNELS, "norm": CENTRED, "activation": TANH}.items():
        if getattr(config, name) not in known:
            return f"the kernels do not support model.{name}={getattr(config, name)}"
    return supported(device, dtype, num_tokens, plan_of(config, num_tokens)) or block.attn.not_foldable(config)


def not_persistent(
    config: ModelConfig, block: nn.Module, num_tokens: int, device: torch.device, dtype: torch.dtype
) -> str | None:
    """The same for the persistent kernels, which support less."""
    reason = not_fused(config, block, num_tokens, device, dtype)
    return reason or persistent_supported(device, dtype, num_tokens, plan_of(config, num_tokens))


def fold(blocks: Sequence[Block]) -> BlockWeights:
    """The blocks' tensors, merged and stacked, float32; differentiable.

    Args:
        blocks: of one model, that are not `not_fused`; autocast must be off.
    """
    w, norms = fold_but_norms(blocks)
    w_qkv, b_qkv = fold_norm(w.w_qkv, w.b_qkv, norms.factor1, norms.offset1)
    w_fc1, b_fc1 = fold_norm(w.w_fc1, w.b_fc1, norms.factor2, norms.offset2)
    return w._replace(w_qkv=w_qkv, b_qkv=b_qkv, w_fc1=w_fc1, b_fc1=b_fc1)


def fold_but_norms(blocks: Sequence[Block]) -> tuple[BlockWeights, BlockNorms]:
    """The same, without merging the norms: the persistent kernels do that themselves."""
    qkv: tuple[Tensor, Tensor] = blocks[0].attn.fold([block.attn for block in blocks])
    weights = BlockWeights(
        *qkv,
        *_with_scales(*linear([block.attn.proj for block in blocks]), [block.scale1 for block in blocks]),
        *linear([block.mlp.fc1 for block in blocks]),
        *_with_scales(*linear([block.mlp.fc2 for block in blocks]), [block.scale2 for block in blocks]),
    )
    return weights, BlockNorms(*_norms([b.norm1 for b in blocks]), *_norms([b.norm2 for b in blocks]))


def repeated(layers: Stacked, times: int) -> Stacked:
    """Each layer several times in a row, copied; autograd sums the gradients of the copies.

    An optimizer's memory (`pocketvit.kernels.gradient_memory`) is only for the sums, which it then copies there.
    """
    if times == 1:
        return layers  # the same tensors, for whose gradients there may be memory
    return type(layers)._make(None if t is None else t.repeat_interleave(times, dim=0) for t in layers)


def _norms(norms: Sequence[nn.LayerNorm | nn.RMSNorm]) -> tuple[Tensor, Tensor | None]:
    """The factors (L, D) and offsets (L, D) of norms; RMSNorm has none."""
    offsets = [norm.bias for norm in norms if isinstance(norm, nn.LayerNorm)]
    return stack([norm.weight for norm in norms]), stack(offsets) if offsets else None


def _with_scales(w: Tensor, b: Tensor, scales: Sequence[LayerScale | nn.Identity]) -> tuple[Tensor, Tensor]:
    """Linear layers' w (L, D, in) and b (L, D) with the LayerScale after them merged in, if there is one."""
    factors = [scale.gamma for scale in scales if isinstance(scale, LayerScale)]
    if not factors:
        return w, b
    gammas = stack(factors)  # (L, D)
    return w * gammas[:, :, None], b * gammas
