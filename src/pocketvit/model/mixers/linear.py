"""Linear attention: a product of feature maps instead of the softmax, so that the cost grows linearly with the tokens.

A query reads Σⱼ (φ(q) · φ(kⱼ)) vⱼ / Σⱼ φ(q) · φ(kⱼ) with φ(x) = elu(x) + 1. The sums over the keys, an E × E matrix and a
vector, are the same for every query, so they are computed once: 2 N E² multiplications a head instead of 2 N² E.

Shapes: B batch, N tokens, T tokens wanted, A query heads, A_kv key and value heads, G = A / A_kv, E head dim.

Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236; with rotary positions as in Su et al. 2021, equation
19, https://arxiv.org/abs/2104.09864: rotated features above the fraction line, plain ones below.
Differs: no causal mask; φ is max(x, 0) + exp(min(x, 0)), since elu(x) + 1 rounds to 0 below -17 in float32, and is
constant below -30, so that no fraction is 0 / 0.
"""

from torch import Tensor

from pocketvit.model.mixers.standard import Attention

LEAST = -30.0  # where the exponential stops falling


class LinearAttention(Attention):
    """Every token attends to every token through sums over all keys."""

    KERNELS = None

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (B, A, N or T, E), keys and values (B, A_kv, N, E) -> (B, A, N or T, E)."""
        q, k = features(q), features(k)
        total = k.sum(dim=2, keepdim=True).to(k.dtype)  # (B, A_kv, 1, E)
        turned_q, turned_k = self.rotated(q, k)
        heads = (k.shape[1], -1)
        memory = (turned_k.mT @ v)[:, :, None]  # (B, A_kv, 1, E, E)
        read = turned_q.unflatten(1, heads) @ memory  # (B, A_kv, G, N or T, E)
        weight = q.unflatten(1, heads) @ total.mT[:, :, None]  # (B, A_kv, G, N or T, 1)
        return (read / weight).flatten(1, 2).to(v.dtype)


def features(x: Tensor) -> Tensor:
    """φ(x) = elu(x) + 1 > 0."""
    return x.clamp(min=0.0) + x.clamp(LEAST, 0.0).exp().to(x.dtype)


MIXER = LinearAttention
