"""Locality self-attention: no token reads itself, and each head learns the temperature of its softmax.

On small sets of images softmax attention stays nearly uniform. A token's score with itself is often the largest, so
leaving it out raises the others; a learned temperature lets a head sharpen its scores.

Shapes: B batch, N tokens, T tokens wanted, A query heads, A_kv key and value heads, E head dim.

Source: Lee et al. 2021 (LSA of SL-ViT), https://arxiv.org/abs/2112.13492; one temperature a head, as in the authors' code.
Differs: a single token, which has no other to read, reads itself, as with the finite mask of that code.
"""

import torch
from torch import Tensor, nn

from pocketvit.config import ModelConfig
from pocketvit.kernels.attention import attention_reference
from pocketvit.model.mixers.standard import Attention
from pocketvit.model.positions import RotaryPositions

MASKED = -1e9  # added to a token's score with itself: finite, so that a single token is no 0 / 0


class LocalityAttention(Attention):
    """Every token attends to all others."""

    KERNELS = None

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__(config, rotary)
        self.scale = nn.Parameter(torch.full((config.num_heads, 1, 1), config.head_dim**-0.5))
        """Factor of the scores, 1 / temperature, (A, 1, 1)."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, A, N or T, E), keys and values (B, A_kv, N, E) -> (B, A, N or T, E)."""
        q, k = self.rotated(q * self.scale.to(q.dtype), k)
        mask = MASKED * torch.eye(q.shape[2], k.shape[2], device=q.device, dtype=q.dtype)  # (N or T, N)
        return attention_reference(q, k, v, scale=1.0, mask=mask)


MIXER = LocalityAttention
