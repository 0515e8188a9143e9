"""Mimetic initialization: attention that starts like a trained one's.

Source: Trockman and Kolter 2023, https://arxiv.org/abs/2305.09828, section 3. For tokens as rows, x W:

    W_Q W_K^T   ~ alpha1 Z1 + beta1 I   for each head, alpha1 = beta1 = 0.7
    W_V W_proj  ~ alpha2 Z2 - beta2 I   over all heads, alpha2 = beta2 = 0.4: a negative identity

with Z of independent N(0, 1/d) entries. The factors come from a singular value decomposition, its root on either side; the
first product is cut to rank k, a head's dimension. Positions are sinusoidal in the paper, biases zero. torch's `Linear` keeps
W^T.
"""

import numpy as np


def query_key_target(z: np.ndarray, alpha: float = 0.7, beta: float = 0.7) -> np.ndarray:
    return alpha * z + beta * np.eye(len(z))


def value_projection_target(z: np.ndarray, alpha: float = 0.4, beta: float = 0.4) -> np.ndarray:
    return alpha * z - beta * np.eye(len(z))


def factors(target: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A (d, rank) and B (rank, d): the target's best approximation A B of that rank, the roots of the singular values shared."""
    u, s, vt = np.linalg.svd(target)
    return u[:, :rank] * np.sqrt(s[:rank]), np.sqrt(s[:rank])[:, None] * vt[:rank]


def draw(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.normal(0, 1 / np.sqrt(width), (width, width))


def diagonal_and_spread(product: np.ndarray) -> tuple[float, float]:
    """The mean of the diagonal, and the root mean square off it times sqrt(d): beta and alpha of a product of full rank."""
    d = len(product)
    off = product[~np.eye(d, dtype=bool)]
    return float(np.diag(product).mean()), float(np.sqrt((off**2).mean() * d))


def expected_query_key(
    width: int, rank: int, draws: int = 20, alpha: float = 0.7, beta: float = 0.7
) -> tuple[float, float]:
    """`diagonal_and_spread` of W_Q W_K^T cut to `rank`, as a mean over draws: the cut makes both smaller."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        a, b = factors(query_key_target(draw(rng, width), alpha, beta), rank)
        found.append(diagonal_and_spread(a @ b))
    return tuple(np.mean(found, axis=0))


def assert_balanced(a: np.ndarray, b: np.ndarray, rtol: float = 1e-4) -> None:
    """The factors of one head, A (d, k) and B (k, d), share the product's singular values: A^T A = B B^T, and diagonal."""
    gram = a.T @ a
    np.testing.assert_allclose(gram, b @ b.T, rtol=rtol, atol=rtol * np.abs(gram).max())
    np.testing.assert_allclose(gram, np.diag(np.diag(gram)), rtol=rtol, atol=rtol * np.abs(gram).max())
