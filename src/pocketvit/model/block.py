"""A pre-norm transformer block with stochastic depth.

Shapes: B batch, N tokens, D width, M hidden width of the MLP.

Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929; stochastic depth: Huang et al. 2016,
https://arxiv.org/abs/1603.09382, per image as in timm.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.model.attention import Attention

NORM_EPS = 1e-6


class MLP(nn.Module):
    """Two linear layers with a GELU between, on each token alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.hidden_width)
        self.fc2 = nn.Linear(config.hidden_width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Transform tokens (B, N, D) -> (B, N, D)."""
        return self.fc2(F.gelu(self.fc1(x)))  # (B, N, M) inside


class Block(nn.Module):
    """Attention and MLP, each behind a LayerNorm and added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, scales: Tensor | None = None) -> Tensor:
        """Refine tokens.

        Args:
            x: tokens, (B, N, D).
            scales: what each image's two branches are multiplied by, (2, B): 0 where stochastic depth skips the
                branch, 1 / (chance to keep it) elsewhere. None keeps all.
        Returns:
            tokens (B, N, D).
        """
        if scales is None:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        scales = scales.to(x.dtype)[:, :, None, None]  # (2, B, 1, 1)
        x = x + scales[0] * self.attn(self.norm1(x))
        return x + scales[1] * self.mlp(self.norm2(x))
