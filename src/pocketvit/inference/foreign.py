"""Weights of others: state dicts of timm's `VisionTransformer`, and our names for their tensors.

The blocks are the same, pre-norm with fused queries, keys and values, so that a model with the same configuration gives the
same logits.

Source: https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/vision_transformer.py

Shapes: N tokens, of them P patches, D width.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from pocketvit.config.weights import Weights
from pocketvit.errors import InputError
from pocketvit.model.tokens import POSITIONS, SPECIAL

ALWAYS_THERE = ("patch_embed.proj.weight", "blocks.0.norm1.weight", "blocks.0.attn.qkv.weight")
HEAD_DIM = 64  # channels of a head in most of timm's models; their tensors do not show it
NAMES = {
    "tokens.patches.proj.": "patch_embed.proj.",
    "tokens.cls": "cls_token",
    "tokens.distilled": "dist_token",
    "distilled_head.": "head_dist.",
    "tokens.registers": "reg_token",
    "tokens.positions": "pos_embed",
    ".scale1.gamma": ".ls1.gamma",
    ".scale2.gamma": ".ls2.gamma",
}
"""Parts of names, ours and timm's. The other names are the same; in each table no part contains another."""


def timm_name(ours: str) -> str:
    """timm's name of a tensor of ours."""
    for part, theirs in NAMES.items():
        ours = ours.replace(part, theirs)
    return ours


def our_name(theirs: str) -> str:
    """Our name of a tensor of timm's; with mean pooling timm calls the last norm `fc_norm`, or, as we do, `norm`."""
    for ours, part in NAMES.items():
        theirs = theirs.replace(part, ours)
    return theirs.replace("fc_norm.", "norm.")


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
    return number > 0 and isqrt(number) ** 2 == number


def timm_fields(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], int | None]:
    """The fields of timm's model (`ModelConfig`), and the side of its images if they were square, by the shapes of its tensors.

    Args:
        tensors: under our names.
    """
    shape = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    width, patch_size = shape["tokens.patches.proj.weight"][0], shape["tokens.patches.proj.weight"][-1]
    head_dim = shape.get("blocks.0.attn.q_norm.weight", (HEAD_DIM,))[0]
    special = {name: shape[f"tokens.{name}"][1] for name in SPECIAL if f"tokens.{name}" in shape}
    fields = {
        "patch_size": patch_size,
        "width": width,
        "depth": len({name.split(".")[1] for name in shape if name.startswith("blocks.")}),
        "num_heads": max(1, width // head_dim),
        "mlp_ratio": shape.get("blocks.0.mlp.fc1.weight", (4 * width,))[0] / width,
        "num_cls_tokens": special.get("cls", 1),
        "pool": "cls" if "cls" in special else "mean",
        "num_registers": special.get("registers", 0),
        "layer_scale": 1e-5 if "blocks.0.scale1.gamma" in shape else None,
        "qk_norm": "blocks.0.attn.q_norm.weight" in shape,
    }
    rows = isqrt(max(0, shape.get(POSITIONS, (1, 0))[1] - sum(special.values())))
    return fields, rows * patch_size or None
