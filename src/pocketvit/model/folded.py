"""A model's blocks in the form that the fused kernels take: few tensors, stacked over the layers.

Whatever is linear is merged into the linear layer next to it, by the plain rules of matrices, in float32: a norm's
factor γ and offset β, W (γ ∘ x + β) + b = (W diag γ) x + (W β + b); LayerScale; the two factors of a low-rank
projection. The blocks thus compute what they did, and autograd takes the gradients of the merged weights back to the
parts. Merging costs what a few images cost, and saves a pass over all tokens for each part.

Shapes: L layers, D width, F columns of the packed projection, R rank.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights
from pocketvit.kernels.blocks import persistent_supported, supported
from pocketvit.kernels.fold import fold_norm, linear, stack
from pocketvit.model.block import Block, LayerScale
from pocketvit.model.mixers import MIXERS
from pocketvit.model.norm import NORM_EPS

MIXER_KERNELS = {name: mixer.KERNELS for name, mixer in MIXERS.items() if mixer.KERNELS is not None}
CENTRED = {"layernorm": True, "rmsnorm": False}  # whether a norm that the kernels know takes the mean away
TANH = {"gelu": False, "gelu_tanh": True}  # how they approximate an activation


def plan_of(config: ModelConfig, num_tokens: int, taken: int | None = None) -> BlockPlan:
    """What the kernels have to know of a model of N tokens, of which `taken` are wanted in the end; None: those pooled."""
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
    """None where such blocks can be folded and run on the fused kernels; else one line that says why not."""
    if not Block.is_standard(block):
        return "the blocks are the user's own"
    for name, known in {"attention": MIXER_KERNELS, "norm": CENTRED, "activation": TANH}.items():
        if getattr(config, name) not in known:
            return f"the kernels do not know model.{name}={getattr(config, name)}"
    return supported(device, dtype, num_tokens, plan_of(config, num_tokens)) or block.attn.not_foldable(config)


def not_persistent(
    config: ModelConfig, block: nn.Module, num_tokens: int, device: torch.device, dtype: torch.dtype
) -> str | None:
    """The same of the persistent kernels, which cover less."""
    reason = not_fused(config, block, num_tokens, device, dtype)
    return reason or persistent_supported(device, dtype, num_tokens, plan_of(config, num_tokens))


def fold(blocks: Sequence[Block]) -> BlockWeights:
    """The blocks' tensors, merged and stacked, float32; differentiable.

    Args:
        blocks: of one model, that are not `not_fused`; autocast must be off.
    """
    return BlockWeights(
        *_behind_norms([block.norm1 for block in blocks], *blocks[0].attn.fold([block.attn for block in blocks])),
        *_before_scales(*linear([block.attn.proj for block in blocks]), [block.scale1 for block in blocks]),
        *_behind_norms([block.norm2 for block in blocks], *linear([block.mlp.fc1 for block in blocks])),
        *_before_scales(*linear([block.mlp.fc2 for block in blocks]), [block.scale2 for block in blocks]),
    )


def _behind_norms(norms: Sequence[nn.LayerNorm | nn.RMSNorm], w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer W (L, out, D), b (L, out) with the factor and offset of the norm in front of it."""
    factors = stack([norm.weight for norm in norms])  # (L, D)
    offsets = [norm.bias for norm in norms if isinstance(norm, nn.LayerNorm)]
    return fold_norm(w, b, factors, stack(offsets) if offsets else None)


def _before_scales(w: Tensor, b: Tensor, scales: Sequence[LayerScale | nn.Identity]) -> tuple[Tensor, Tensor]:
    """A linear layer W (L, D, in), b (L, D) with the LayerScale behind it, if there is one."""
    factors = [scale.gamma for scale in scales if isinstance(scale, LayerScale)]
    if not factors:
        return w, b
    gammas = stack(factors)  # (L, D)
    return w * gammas[:, :, None], b * gammas
