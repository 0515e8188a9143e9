"""Linear attention: softmax's exponential replaced by a product of feature maps.

Source: Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236, without the causal mask.
"""

import numpy as np


def feature_map(x: np.ndarray) -> np.ndarray:
    """elu(x) + 1, the paper's equation 7: x + 1 above zero, exp(x) below."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def linear_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Equation 4 term by term: v'_i = sum_j (phi(q_i) . phi(k_j)) v_j / sum_j phi(q_i) . phi(k_j).

    The paper's queries are not divided by sqrt(head_dim), unlike softmax attention's.

    Args:
        q, k, v: float64, (heads, tokens, head_dim).
    Returns:
        float64, (heads, tokens, head_dim).
    """
    heads, tokens, _ = q.shape
    out = np.zeros(v.shape)
    for h in range(heads):
        for i in range(tokens):
            weights = [np.dot(feature_map(q[h, i]), feature_map(k[h, j])) for j in range(tokens)]
            for j in range(tokens):
                out[h, i] += weights[j] / sum(weights) * v[h, j]
    return out
