"""The normalisation layers."""

from torch import nn

NORM_EPS = 1e-6


def make_norm(kind: str, channels: int) -> nn.Module:
    """LayerNorm, or RMSNorm (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467), over the last dimension."""
    return nn.RMSNorm(channels, eps=NORM_EPS) if kind == "rmsnorm" else nn.LayerNorm(channels, eps=NORM_EPS)
