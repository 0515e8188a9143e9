"""Locality self-attention: no token sees itself, and the temperature of the softmax is learned.

Source: Lee et al. 2021, https://arxiv.org/abs/2112.13492, section 3.3: diagonal masking, R^M = R with -inf on the diagonal, and
learnable temperature scaling, softmax(R^M / tau) v. tau starts at sqrt(head_dim). The authors' code learns one for each head.
"""

import numpy as np


def locality_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """softmax over j != i of q_i . k_j / tau, applied to v. The CLS token does not see itself either.

    Args:
        q, k, v: float64, (heads, tokens, head_dim), at least two tokens.
        temperature: tau, one number or one for each head. A layer that learns a factor on the scores has 1 / tau, one that learns
            its logarithm -log(tau).
    Returns:
        float64, (heads, tokens, head_dim).
    """
    heads, tokens, _ = q.shape
    tau = np.broadcast_to(np.asarray(temperature, dtype=np.float64).reshape(-1), (heads,))
    out = np.zeros(v.shape)
    for h in range(heads):
        for i in range(tokens):
            others = [j for j in range(tokens) if j != i]
            scores = [np.dot(q[h, i], k[h, j]) / tau[h] for j in others]
            weights = [np.exp(score - max(scores)) for score in scores]
            for weight, j in zip(weights, others):
                out[h, i] += weight / sum(weights) * v[h, j]
    return out
