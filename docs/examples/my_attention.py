"""Cosine attention: queries and keys of length 1, and a learned temperature for each head.

Source: Henry et al. 2020, https://arxiv.org/abs/2010.04245
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MyAttention(nn.Module):
    def __init__(self, config, rotary):
        super().__init__()
        self.head_dim = config.head_dim
        self.rotary = rotary  # None, unless model.positions is rope
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.temperature = nn.Parameter(torch.full((config.num_heads, 1, 1), 10.0))
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, -1, self.head_dim))  # (B, N, 3, A, E)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, A, N, E)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        q, k = F.normalize(q, dim=3), F.normalize(k, dim=3)
        q = q * self.temperature
        x = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, scale=1.0)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, D)
