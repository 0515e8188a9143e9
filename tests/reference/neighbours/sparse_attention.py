"""Sparse attention: some heads see the tokens near by, others every l-th token.

Source: Child et al. 2019, https://arxiv.org/abs/1904.10509, sections 4.2 and 4.3: the fixed pattern's A(1), the tokens of one's
own block of l, and the strided pattern's A(2), the tokens at a multiple of l. The paper's tokens are a sequence and see only
earlier ones; a classifier's see both ways, and on a grid a patch sees another if the pattern holds of their rows and columns.
"""

import numpy as np


def block_pairs(length: int, block: int) -> np.ndarray:
    """i sees j if floor(i / l) = floor(j / l). bool, (length, length)."""
    return np.array([[i // block == j // block for j in range(length)] for i in range(length)])


def strided_pairs(length: int, stride: int) -> np.ndarray:
    """i sees j if (i - j) mod l = 0. bool, (length, length)."""
    return np.array([[(i - j) % stride == 0 for j in range(length)] for i in range(length)])


def on_grid(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Patches, row by row, see each other if their rows and their columns do. bool, (patches, patches)."""
    height, width = len(rows), len(columns)
    seen = np.zeros((height * width, height * width), dtype=bool)
    for i in range(height * width):
        for j in range(height * width):
            seen[i, j] = rows[i // width, j // width] and columns[i % width, j % width]
    return seen


def with_cls(patch_pairs: np.ndarray, num_cls: int) -> np.ndarray:
    """Put `num_cls` tokens in front that see every token and are seen by every token."""
    seen = np.ones((num_cls + len(patch_pairs), num_cls + len(patch_pairs)), dtype=bool)
    seen[num_cls:, num_cls:] = patch_pairs
    return seen


def masked_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Softmax attention over the seen pairs alone, scaled by 1 / sqrt(head_dim) (equations 2 and 3).

    Args:
        q, k, v: float64, (heads, tokens, head_dim).
        seen: bool, (tokens, tokens) or one for each head, (heads, tokens, tokens); at least one True in each row.
    Returns:
        float64, (heads, tokens, head_dim).
    """
    heads, tokens, head_dim = q.shape
    seen = np.broadcast_to(seen, (heads, tokens, tokens))
    out = np.zeros(v.shape)
    for h in range(heads):
        for i in range(tokens):
            others = [j for j in range(tokens) if seen[h, i, j]]
            scores = [np.dot(q[h, i], k[h, j]) / np.sqrt(head_dim) for j in others]
            weights = [np.exp(score - max(scores)) for score in scores]
            for weight, j in zip(weights, others):
                out[h, i] += weight / sum(weights) * v[h, j]
    return out
