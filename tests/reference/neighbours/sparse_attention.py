"""Sparse attention: each token sees its surroundings and a coarse grid over the image.

Source: Child et al. 2019, https://arxiv.org/abs/1904.10509, section 4.3: the strided pattern's A(1) (the tokens near by) and A(2)
(every l-th token), merged into one head. The paper's tokens are a sequence and see only earlier ones; a classifier's see both
ways, and the distance is taken on the grid of patches. `strided_sequence` is the paper's own pattern.
"""

import numpy as np


def strided_sequence(length: int, stride: int, causal: bool = True) -> np.ndarray:
    """The paper's pattern: i sees j if it is at most `stride` back, or a multiple of `stride` back. bool, (length, length)."""
    seen = np.zeros((length, length), dtype=bool)
    for i in range(length):
        for j in range(length):
            near = abs(i - j) <= stride
            strided = (i - j) % stride == 0
            seen[i, j] = (near or strided) and (j <= i or not causal)
    return seen


def local_pairs(height: int, width: int, radius: int) -> np.ndarray:
    """Patches at most `radius` rows and `radius` columns apart. bool, (patches, patches), patches row by row."""
    seen = np.zeros((height * width, height * width), dtype=bool)
    for i in range(height * width):
        for j in range(height * width):
            rows, columns = abs(i // width - j // width), abs(i % width - j % width)
            seen[i, j] = max(rows, columns) <= radius
    return seen


def strided_pairs(height: int, width: int, stride: int) -> np.ndarray:
    """Patches whose rows and columns both differ by a multiple of `stride`. bool, (patches, patches)."""
    seen = np.zeros((height * width, height * width), dtype=bool)
    for i in range(height * width):
        for j in range(height * width):
            rows, columns = i // width - j // width, i % width - j % width
            seen[i, j] = rows % stride == 0 and columns % stride == 0
    return seen


def with_cls(patch_pairs: np.ndarray, num_cls: int) -> np.ndarray:
    """Put `num_cls` tokens in front that see every token and are seen by every token."""
    seen = np.ones((num_cls + len(patch_pairs), num_cls + len(patch_pairs)), dtype=bool)
    seen[num_cls:, num_cls:] = patch_pairs
    return seen


def sparse_pairs(height: int, width: int, num_cls: int, radius: int, stride: int) -> np.ndarray:
    """Which token (row) sees which (column): local or strided on the grid, CLS tokens in front see and are seen by all."""
    return with_cls(local_pairs(height, width, radius) | strided_pairs(height, width, stride), num_cls)


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
