"""Multi-head self-attention.

Shapes: B batch, N tokens, D width, A heads, E head dim.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
"""

from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig


class Attention(nn.Module):
    """Every token reads from every token, in A heads side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens (B, N, D) -> (B, N, D)."""
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim))  # (B, N, 3, A, E)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, A, N, E)
        x = F.scaled_dot_product_attention(q, k, v)  # (B, A, N, E)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)
