"""Weights of others: a state dict of timm's `VisionTransformer`, under our names.

The blocks are the same, pre-norm with fused queries, keys and values, so that a model with the same configuration gives the
same logits.

Source: https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/vision_transformer.py

Shapes: N tokens, of them P patches, D width.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.inference.timm_names import our_name
from pocketvit.model.tokens import POSITIONS, SPECIAL

ALWAYS_THERE = ("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")


def from_timm(tensors: Mapping[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The tensors of timm's `VisionTransformer`, in float32, under our names; those that have none here keep theirs.

    Positions of patches alone (`no_embed_class`) get zeros for the other tokens, which is the same.

    Raises:
        InputError: they are not of such a model.
    """
    if not all(name in tensors and tensors[name].ndim for name in ALWAYS_THERE):
        some = ", ".join(list(tensors)[:3]) or "none"
        raise InputError(
            f"init_from={weights} is not a model that PocketViT saved, nor a state dict of timm's VisionTransformer; its "
            f"tensors are {some}, …"
        )
    found = {our_name(name): tensor.float() for name, tensor in tensors.items()}
    special = [found[f"tokens.{name}"] for name in SPECIAL if f"tokens.{name}" in found]
    positions = found.get(POSITIONS)
    if positions is not None and positions.ndim == 3 and all(token.ndim == 3 for token in special):
        num_special, num_positions = sum(token.shape[1] for token in special), positions.shape[1]
        if not _is_square(num_positions - num_special) and _is_square(num_positions):
            found[POSITIONS] = torch.cat([positions.new_zeros(1, num_special, positions.shape[2]), positions], dim=1)
    return found


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
