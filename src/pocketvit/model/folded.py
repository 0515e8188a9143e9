"""A model's blocks in the form that the fused kernels take: few tensors, stacked over the layers.

Whatever is linear is merged into the linear layer next to it, by the plain rules of matrices, in float32: a norm's
factor γ and offset β, W (γ ∘ x + β) + b = (W diag γ) x + (W β + b); LayerScale; the two factors of a low-rank
projection. The blocks thus compute what they did, and autograd takes the gradients of the merged weights back to the
parts. Merging costs what a few images cost, and saves a pass over all tokens for each part.

Shapes: L layers, D width, F columns of the packed projection, R rank.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.kernels.block_weights import BlockPlan, BlockWeights
from pocketvit.kernels.fold import fold_norm
from pocketvit.model.attention import Attention, LowRank
from pocketvit.model.block import Block, LayerScale
from pocketvit.model.norm import NORM_EPS


def plan_of(config: ModelConfig, num_tokens: int) -> BlockPlan:
    """What the kernels have to know of a model of N tokens; with pool=cls only the CLS tokens are wanted in the end."""
    return BlockPlan(
        width=config.width,
        hidden_width=config.hidden_width,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads or config.num_heads,
        centred=config.norm == "layernorm",
        tanh=config.activation == "gelu_tanh",
        eps=NORM_EPS,
        taken=config.num_cls_tokens if config.pool == "cls" else num_tokens,
    )


def foldable(config: ModelConfig, block: nn.Module) -> str | None:
    """None where a model with such blocks can be folded; else one line that says why not."""
    if not Block.is_standard(block):
        return "the blocks are the user's own"
    if config.qk_norm:
        return "model.qk_norm stands between projection and attention"
    if config.positions == "rope":
        return "model.positions=rope stands between projection and attention"
    return None


def fold(blocks: Sequence[Block]) -> BlockWeights:
    """The blocks' tensors, merged and stacked, float32; differentiable.

    Args:
        blocks: of one model, whose config is `foldable`; autocast must be off.
    """
    return BlockWeights(
        *_behind_norms([block.norm1 for block in blocks], *_projections([block.attn for block in blocks])),
        *_before_scales(*_linear([block.attn.proj for block in blocks]), [block.scale1 for block in blocks]),
        *_behind_norms([block.norm2 for block in blocks], *_linear([block.mlp.fc1 for block in blocks])),
        *_before_scales(*_linear([block.mlp.fc2 for block in blocks]), [block.scale2 for block in blocks]),
    )


class _EvenlySpaced(torch.autograd.Function):
    """`torch.stack` of tensors that lie at even distances in one piece of memory, as a view of it."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        first, second = tensors[:2]
        distance = (second.data_ptr() - first.data_ptr()) // first.element_size()
        return first.detach().as_strided((len(tensors), *first.shape), (distance, *first.stride()))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.unbind(0)


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, without copying where an optimizer has laid the layers' parameters out evenly."""
    places = [tensor.data_ptr() for tensor in tensors]
    shared = len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1
    distances = {after - before for before, after in pairwise(places)}
    if shared and len(distances) == 1 and distances.pop() > 0:
        return _EvenlySpaced.apply(*tensors)
    return torch.stack(list(tensors))


def _linear(layers: Sequence[nn.Linear]) -> tuple[Tensor, Tensor]:
    """Weights (L, out, in) and biases (L, out)."""
    return _stack([layer.weight for layer in layers]), _stack([layer.bias for layer in layers])


def _projection(layers: Sequence[nn.Linear | LowRank]) -> tuple[Tensor, Tensor]:
    """Likewise, with the two factors of a low-rank layer multiplied."""
    if isinstance(layers[0], nn.Linear):
        return _linear(layers)
    w, b = _linear([layer[1] for layer in layers])  # (L, out, R), (L, out)
    return w @ _stack([layer[0].weight for layer in layers]), b  # (L, out, R) @ (L, R, in)


def _projections(attentions: Sequence[Attention]) -> tuple[Tensor, Tensor]:
    """Queries, keys and values as one projection, (L, F, D) and (L, F)."""
    if attentions[0].packed:
        return _linear([attn.qkv for attn in attentions])
    q, k, v = (_projection([getattr(attn, name) for attn in attentions]) for name in ("q", "k", "v"))
    if attentions[0].shared_latent:
        latent = _stack([attn.kv_latent.weight for attn in attentions])  # (L, R, D)
        k, v = (k[0] @ latent, k[1]), (v[0] @ latent, v[1])  # (L, F', R) @ (L, R, D)
    weights, biases = zip(q, k, v, strict=True)
    return torch.cat(weights, dim=1), torch.cat(biases, dim=1)


def _behind_norms(norms: Sequence[nn.Module], w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer W (L, out, D), b (L, out) with the factor and offset of the norm in front of it."""
    factors = _stack([norm.weight for norm in norms])  # (L, D)
    offsets = _stack([norm.bias for norm in norms]) if isinstance(norms[0], nn.LayerNorm) else None
    return fold_norm(w, b, factors, offsets)


def _before_scales(w: Tensor, b: Tensor, scales: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """A linear layer W (L, D, in), b (L, D) with the LayerScale behind it, if there is one."""
    if not isinstance(scales[0], LayerScale):
        return w, b
    gammas = _stack([scale.gamma for scale in scales])  # (L, D)
    return w * gammas[:, :, None], b * gammas
