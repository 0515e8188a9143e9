"""A model's two ends, stem and head, in the form of the kernels that run beside persistent blocks."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from pocketvit.kernels import head, stem
from pocketvit.kernels.head import HeadPlan, HeadWeights
from pocketvit.kernels.stem import StemPlan, StemWeights
from pocketvit.model.norm import NORM_EPS
from pocketvit.model.stems import PatchEmbedding
from pocketvit.model.tokens import Tokens

if TYPE_CHECKING:
    from pocketvit.model.vit import ViT


def not_stem(tokens: Tokens, device: torch.device) -> str | None:
    """None if the kernels support such a stem; else the reason why not."""
    if type(tokens.patches) is not PatchEmbedding:
        return "the stem's kernels do not support model.stem other than patches"
    if tokens.smaller is not None or hasattr(tokens, "distilled"):
        return "the stem's kernels do not support schedule.sides or a distillation token"
    return stem.supported(device, tokens.patches.proj.weight.shape)


def stem_parts(tokens: Tokens) -> tuple[StemWeights, StemPlan]:
    """The arguments of `stem` after the images."""
    patches, cls, registers = tokens.patches, getattr(tokens, "cls", None), getattr(tokens, "registers", None)
    weights = StemWeights(patches.proj.weight, patches.bias, cls, registers, tokens.positions)
    return weights, StemPlan(patches.stride, patches.grid)


def not_head(model: "ViT", device: torch.device) -> str | None:
    """None if the kernels support such a head; else the reason why not."""
    if type(model.head) is not nn.Linear or type(model.norm) is not nn.LayerNorm or model.distilled_head is not None:
        return "the head's kernels are made for LayerNorm and one linear layer"
    if model.config.pool not in ("cls", "mean"):
        return f"the head's kernels do not support model.pool={model.config.pool}"
    num_tokens = model.tokens.num_read or model.tokens.num_tokens
    return head.supported(device, model.num_classes, num_tokens, model.config.width)


def head_parts(model: "ViT", scale: float) -> tuple[HeadWeights, HeadPlan]:
    """The arguments of `head_loss` after the targets, for a head that the kernels support."""
    assert isinstance(model.norm, nn.LayerNorm)
    assert isinstance(model.head, nn.Linear)
    weights = HeadWeights(model.norm.weight, model.norm.bias, model.head.weight, model.head.bias)
    return weights, HeadPlan(model.tokens.num_cls, model.tokens.num_special, scale, NORM_EPS)
