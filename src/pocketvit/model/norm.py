"""Normalization layers."""

from torch import nn

NORM_EPS = 1e-6

NORMS = {"layernorm": nn.LayerNorm, "rmsnorm": nn.RMSNorm}
"""By `model.norm`. RMSNorm: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467"""


def make_norm(kind: str, channels: int) -> nn.LayerNorm | nn.RMSNorm:
    """A normalization over the last dimension."""
    return NORMS[kind](channels, eps=NORM_EPS)
