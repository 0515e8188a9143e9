"""Mimetic initialization: attention that starts like that of trained models.

In trained vision transformers, the product of query and key weights resembles the identity, so that tokens read similar
ones, those near by first, and the product of value and output weights its negative. For tokens as rows, x W, and with Z of
independent entries of variance 1 / D,

    W_Q W_Kᵀ ≈ α₁ Z₁ + β₁ I    for each head, cut to rank E
    W_V W_O  = α₂ Z₂ - β₂ I    over all heads

The factors come from a singular value decomposition, with the roots of the singular values on both sides. All other
weights, and the biases, start as without it.

Shapes: D width, A heads, E head dim.

Source: Trockman and Kolter 2023, https://arxiv.org/abs/2305.09828, with the constants of their vision transformers
Differs: the paper's models have sinusoidal positions and mean pooling (`model.positions=sincos`, `model.pool=mean`).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from pocketvit.model.block import Block

QUERY_KEY = (0.7, 0.7)  # α₁ and β₁
VALUE_OUTPUT = (0.4, -0.4)  # α₂ and -β₂


@torch.no_grad()
def start_mimetic(blocks: Iterable[Block], generator: torch.Generator | None) -> None:
    """Overwrite the weights of the blocks' attention, on the CPU.

    Args:
        blocks: with packed projections.
        generator: of Z; None uses PyTorch's global one.
    """
    for block in blocks:
        qkv, proj = block.attn.qkv.weight, block.attn.proj.weight  # (3·D, D) and (D, D), for x Wᵀ
        width, heads = qkv.shape[1], qkv.shape[1] // block.attn.head_dim
        q, k = factors(heads, width, *QUERY_KEY, generator)  # (A, D, D) each
        v, o = factors(1, width, *VALUE_OUTPUT, generator)  # (1, D, D) each
        parts = [x[:, :, : block.attn.head_dim].mT.flatten(0, 1) for x in (q, k)]  # (A·E, D)
        qkv.copy_(torch.cat([*parts, v[0].mT]))
        proj.copy_(o[0])


def factors(
    count: int, width: int, noise: float, identity: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """L and R with L Rᵀ = noise · Z + identity · I, columns by falling singular value, (count, D, D) each."""
    z = torch.randn(count, width, width, generator=generator) * width**-0.5
    u, s, vt = torch.linalg.svd(noise * z + identity * torch.eye(width))
    root = s.sqrt()[:, None]  # (count, 1, D)
    return u * root, vt.mT * root
