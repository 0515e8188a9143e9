"""A pre-norm transformer block with stochastic depth.

Shapes: B batch, N tokens, D width, M hidden width of the MLP.

Sources: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; stochastic depth: Huang et al. 2016,
https://arxiv.org/abs/1603.09382, per image as in timm; LayerScale: Touvron et al. 2021,
https://arxiv.org/abs/2103.17239
"""

from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.model.depthwise import DepthwiseConvolution
from pocketvit.model.dropout import drop
from pocketvit.model.mixers import MIXERS, make_attention
from pocketvit.model.norm import make_norm
from pocketvit.model.positions import RotaryPositions

ACTIVATIONS = {"gelu": F.gelu, "gelu_tanh": partial(F.gelu, approximate="tanh")}  # by `model.activation`


class MLP(nn.Module):
    """Two linear layers with an activation between them, on each token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.hidden_width)
        self.fc2 = nn.Linear(config.hidden_width, config.width)
        self.activation, self.dropout = ACTIVATIONS[config.activation], config.dropout

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Transform tokens (B, N, D) -> (B, N, D), with dropout by keys (B,) in the hidden layer."""
        return self.fc2(drop(self.activation(self.fc1(x)), self.dropout, keys))  # (B, N, M) inside


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int, start: float) -> None:
        super().__init__()
        self.start = start
        self.gamma = nn.Parameter(torch.full((width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens (B, N, D)."""
        return x * self.gamma.to(x.dtype)


class Block(nn.Module):
    """Attention and MLP, each after a normalization and added to the residual stream."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__()
        self.norm1 = make_norm(config.norm, config.width)
        self.attn: Any = make_attention(config, rotary)  # a `Mixer`, or what user-defined code makes
        self.norm2 = make_norm(config.norm, config.width)
        self.mlp = MLP(config)
        start = config.layer_scale
        self.scale1 = nn.Identity() if start is None else LayerScale(config.width, start)
        self.scale2 = nn.Identity() if start is None else LayerScale(config.width, start)
        self.beside = None if config.depthwise is None else DepthwiseConvolution(config, config.depthwise)

    @staticmethod
    def is_standard(block: nn.Module) -> TypeGuard["Block"]:
        """Whether a block and its attention are the built-in ones."""
        return type(block) is Block and type(block.attn) in MIXERS.values()

    def forward(
        self, x: Tensor, keep: Tensor | None = None, taken: int | None = None, dropout: Tensor | None = None
    ) -> Tensor:
        """Refine tokens.

        Args:
            x: tokens, (B, N, D).
            keep: factors of each image's two branches, (2, B): 0 if stochastic depth skips the
                branch, else 1 / (probability of keeping it). None keeps all.
            taken: number T of tokens, from the first, that are needed; None for all.
            dropout: keys for after attention, in the MLP's hidden layer and after the MLP, int64 (3, B); None drops nothing.
        Returns:
            tokens (B, N or T, D).
        """
        rate, keys = self.mlp.dropout, (None,) * 3 if dropout is None else dropout.unbind()
        beside = None if self.beside is None else self.beside(x)[:, :taken]
        wanted = () if taken is None else (taken,)  # user-defined attention may not have it
        attn = self.scale1(drop(self.attn(self.norm1(x), *wanted), rate, keys[0]))  # (B, N or T, D)
        x = add_branch(x[:, :taken], attn, None if keep is None else keep[0])
        mlp = self.scale2(drop(self.mlp(self.norm2(x), keys[1]), rate, keys[2]))
        x = add_branch(x, mlp, None if keep is None else keep[1])
        return x if beside is None else x + beside


def add_branch(x: Tensor, branch: Tensor, keep: Tensor | None) -> Tensor:
    """The residual stream x (B, N, D) plus a branch, multiplied by a factor per image, (B,), if any."""
    return x + branch if keep is None else torch.addcmul(x, branch, keep[:, None, None].to(x.dtype))
