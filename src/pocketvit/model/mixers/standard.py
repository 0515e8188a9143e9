"""Self-attention, with full or low-rank projections and any number of key heads.

Shapes: B batch, N tokens, D width, A query heads, A_kv key and value heads, E head dim, R rank, L layers,
F columns of queries, keys and values together.

Sources: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; grouped queries: Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245; a joint latent for keys and values: DeepSeek-AI 2024 (DeepSeek-V2),
https://arxiv.org/abs/2405.04434
Differs: the paper's MLA is only low rank, without the norm on the latent and the decoupled rotary part that
DeepSeek-V2 has; nor does the joint latent here have them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pocketvit.config import ModelConfig
from pocketvit.kernels.attention import SOFTMAX, attention, attention_qkv
from pocketvit.kernels.fold import linear, stack
from pocketvit.model.mixers import Mixer
from pocketvit.model.norm import make_norm
from pocketvit.model.positions import RotaryPositions


def projection(width: int, out: int, rank: int | None) -> nn.Module:
    """A linear layer of full rank, or through a latent of R channels: D -> R without a bias, R -> out with one."""
    if rank is None:
        return nn.Linear(width, out)
    return nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, out))


class Attention(Mixer):
    """Every token attends to every token, in A parallel heads."""

    KERNELS = SOFTMAX

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None = None) -> None:
        super().__init__(config, rotary)
        width, self.head_dim = config.width, config.head_dim
        kv_width = (config.num_kv_heads or config.num_heads) * config.head_dim
        ranks = (config.q_rank, config.k_rank, config.v_rank, config.kv_rank_shared)
        self.packed = kv_width == width and all(rank is None for rank in ranks)
        if self.packed:
            self.qkv = nn.Linear(width, 3 * width)
        else:
            self.q = projection(width, width, config.q_rank)
            source, k_rank, v_rank = width, config.k_rank, config.v_rank
            if config.kv_rank_shared is not None:
                source = config.kv_rank_shared
                self.kv_latent = nn.Linear(width, source, bias=False)
            self.k = projection(source, kv_width, k_rank)
            self.v = projection(source, kv_width, v_rank)
        self.shared_latent = config.kv_rank_shared is not None
        self.q_norm = make_norm(config.norm, config.head_dim) if config.qk_norm else None
        self.k_norm = make_norm(config.norm, config.head_dim) if config.qk_norm else None
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, taken: int | None = None) -> Tensor:
        """Mix tokens (B, N, D) -> (B, N, D), or only to the first T of them."""
        if type(self) is Attention and self.packed and taken is None and self.q_norm is None and self.rotary is None:
            qkv = self.qkv(x).unflatten(2, (3, -1, self.head_dim))  # (B, N, 3, A, E)
            return self.proj(attention_qkv(qkv, kernels=self.kernels))  # (B, N, D)
        x = self.mix(*self.heads(x, taken))  # (B, A, N or T, E)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N or T, D)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What queries (B, A, N or T, E) read from keys and values (B, A_kv, N, E); subclasses compute something else."""
        return attention(*self.rotated(q, k), v, kernels=self.kernels)

    def rotated(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys rotated by their positions, with model.positions=rope."""
        return (q, k) if self.rotary is None else (self.rotary(q), self.rotary(k))

    def weights(self, x: Tensor) -> Tensor:
        """See `Mixer`: what is read of values that each have a channel of their own."""
        q, k, v = self.heads(x, None)
        values = torch.eye(x.shape[1], dtype=v.dtype, device=v.device).expand(*k.shape[:2], -1, -1)  # (B, A_kv, N, N)
        return self.mix(q, k, values)  # (B, A, N, N)

    def read(self, x: Tensor, weights: Tensor) -> Tensor:
        """See `Mixer`."""
        _, _, v = self.project(x, None)
        x = weights.unflatten(1, (v.shape[1], -1)) @ v[:, :, None]  # (B, A_kv, A / A_kv, N, E)
        return self.proj(x.flatten(1, 2).transpose(1, 2).flatten(2))  # (B, N, D)

    def heads(self, x: Tensor, taken: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """`project`, with queries and keys normalized if model.qk_norm."""
        q, k, v = self.project(x, taken)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        return q, k, v

    def project(self, x: Tensor, taken: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, N, D) as queries (B, A, N or T, E), keys and values (B, A_kv, N, E)."""
        if self.packed and taken is None:
            projected = self.qkv(x).chunk(3, dim=2)
        elif self.packed:
            parts = zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), (x[:, :taken], x, x), strict=True)
            projected = tuple(F.linear(y, weight, bias) for weight, bias, y in parts)
        else:
            source = self.kv_latent(x) if self.shared_latent else x  # (B, N, R) or (B, N, D)
            projected = self.q(x[:, :taken]), self.k(source), self.v(source)
        q, k, v = (y.unflatten(2, (-1, self.head_dim)).transpose(1, 2) for y in projected)
        return q, k, v

    def low_rank(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The low-rank ones of the projections q, k and v as two factors, D -> R -> out: (R, D) and (out, R)."""
        found = {}
        for name in () if self.packed else ("q", "k", "v"):
            layer = getattr(self, name)
            if isinstance(layer, nn.Sequential):
                found[name] = layer[0].weight, layer[1].weight
            elif self.shared_latent and name != "q":
                found[name] = self.kv_latent.weight, layer.weight
        return found

    @staticmethod
    def not_foldable(config: ModelConfig) -> str | None:
        """None unless there is an operation between projection and attention."""
        if config.qk_norm:
            return "model.qk_norm is between projection and attention"
        return "model.positions=rope is between projection and attention" if config.positions == "rope" else None

    @staticmethod
    def fold(layers: Sequence["Attention"]) -> tuple[Tensor, Tensor]:
        """Queries, keys and values as one projection, (L, F, D) and (L, F)."""
        if layers[0].packed:
            return linear([attn.qkv for attn in layers])
        q, k, v = (_full([getattr(attn, name) for attn in layers]) for name in ("q", "k", "v"))
        if layers[0].shared_latent:
            latent = stack([attn.kv_latent.weight for attn in layers])  # (L, R, D)
            k, v = (k[0] @ latent, k[1]), (v[0] @ latent, v[1])  # (L, F', R) @ (L, R, D)
        weights, biases = zip(q, k, v, strict=True)
        return torch.cat(weights, dim=1), torch.cat(biases, dim=1)


def _full(layers: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Weights (L, out, in) and biases (L, out) of `projection`s, with the two factors of a low-rank one multiplied."""
    if isinstance(layers[0], nn.Linear):
        return linear(layers)
    w, b = linear([layer[1] for layer in layers])  # (L, out, R), (L, out)
    return w @ stack([layer[0].weight for layer in layers]), b  # (L, out, R) @ (L, R, in)


MIXER = Attention
