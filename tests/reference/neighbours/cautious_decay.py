"""Cautious weight decay: only entries that the update already moves towards zero decay.

Source: Chen et al. 2025, https://arxiv.org/abs/2510.12402, Algorithm 1: x <- x - lr (u + decay * 1[u x >= 0] x), entry by
entry, u being what the optimizer would subtract. Each function below makes one step in float64, and `cautious=False` is the
plain decoupled decay.
"""

import numpy as np


def decayed(weight: np.ndarray, update: np.ndarray, lr: float, decay: float, cautious: bool = True) -> np.ndarray:
    """Algorithm 1. A zero update counts as aligned."""
    out = np.array(weight, dtype=np.float64)
    for index in np.ndindex(weight.shape):
        keeps = cautious and update[index] * weight[index] < 0
        out[index] = weight[index] - lr * (update[index] + (0 if keeps else decay * weight[index]))
    return out


def adamw_step(
    weight: np.ndarray,
    grad: np.ndarray,
    state: dict,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
    cautious: bool = True,
) -> np.ndarray:
    """u = m_hat / (sqrt(v_hat) + eps). `state` starts empty and is changed."""
    step = state["step"] = state.get("step", 0) + 1
    state["m"] = betas[0] * state.get("m", 0 * grad) + (1 - betas[0]) * grad
    state["v"] = betas[1] * state.get("v", 0 * grad) + (1 - betas[1]) * grad**2
    mean, square = state["m"] / (1 - betas[0] ** step), state["v"] / (1 - betas[1] ** step)
    return decayed(weight, mean / (np.sqrt(square) + eps), lr, decay, cautious)


def lion_step(
    weight: np.ndarray,
    grad: np.ndarray,
    state: dict,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
    decay: float = 0.0,
    cautious: bool = True,
) -> np.ndarray:
    """u = sign(beta1 m + (1 - beta1) g); then m = beta2 m + (1 - beta2) g."""
    momentum = state.get("m", 0 * grad)
    update = np.sign(betas[0] * momentum + (1 - betas[0]) * grad)
    state["m"] = betas[1] * momentum + (1 - betas[1]) * grad
    return decayed(weight, update, lr, decay, cautious)


def orthogonalized(matrix: np.ndarray, steps: int = 5, eps: float = 1e-7) -> np.ndarray:
    """Muon's Newton-Schulz polynomial, applied to the singular values themselves.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.sqrt((s**2).sum()) + eps)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return (u * s) @ vt


def scale_of(shape: tuple[int, int], adjust: str) -> float:
    """The factor on an orthogonalized update: "original" of Jordan, "match_rms_adamw" of Liu et al. 2025 (arXiv 2502.16982)."""
    rows, columns = shape
    return {"original": max(1, rows / columns) ** 0.5, "match_rms_adamw": 0.2 * max(rows, columns) ** 0.5}[adjust]


def muon_step(
    weight: np.ndarray,
    grad: np.ndarray,
    state: dict,
    lr: float,
    momentum: float = 0.95,
    nesterov: bool = True,
    decay: float = 0.0,
    adjust: str = "original",
    cautious: bool = True,
) -> np.ndarray:
    """u = scale * NewtonSchulz(m), m the (Nesterov) momentum; the mask looks at u, not at the momentum."""
    state["m"] = momentum * state.get("m", 0 * grad) + (1 - momentum) * grad
    direction = momentum * state["m"] + (1 - momentum) * grad if nesterov else state["m"]
    return decayed(weight, scale_of(weight.shape, adjust) * orthogonalized(direction), lr, decay, cautious)
