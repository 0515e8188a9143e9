"""SOAP-Muon: Muon's momentum, scaled as Adam would in Shampoo's eigenbasis, then orthogonalized.

Sources: modded-nanogpt's optimization track, github.com/KellerJordan/modded-nanogpt/pull/278 and 321 (there is no paper), and
Vyas et al. 2024, https://arxiv.org/abs/2409.11321 (SOAP), Algorithm 3. By the pull request's text, for a gradient G:

    M = mu M + (1 - mu) G;   U = (1 - mu) G + mu M                          Muon's Nesterov momentum
    L = EMA(G G^T), R = EMA(G^T G);   Q_r = eig(L), Q_c = eig(R)            Shampoo's statistics and their eigenvectors
    U' = Q_r^T U Q_c;   U'' = U' / (sqrt(V) + eps);   U = Q_r U'' Q_c^T     in the rotated space, and back, at U's own norm
    W = W - lr * scale * NewtonSchulz(U)                                    as Muon

with a decay of 0.90 for the second moment V, eigenvectors renewed every 10 steps (278) or every step, on all hidden matrices
(321). What the text leaves open is an argument here: whose square V averages (SOAP: the rotated gradient's), and whether a step
sees its own gradient in L and R (SOAP's Algorithm 3: no; the first step must). Newton-Schulz divides by the norm, so keeping U's
norm alters nothing.
"""

from collections.abc import Callable

import numpy as np
from neighbours.cautious_decay import decayed, orthogonalized, scale_of


def eigenbasis(factor: np.ndarray, old: np.ndarray | None) -> np.ndarray:
    """The eigenvectors as columns, by rising eigenvalue."""
    return np.linalg.eigh(factor)[1]


def qr_basis(factor: np.ndarray, old: np.ndarray | None) -> np.ndarray:
    """SOAP's Algorithm 4: one power iteration from the old basis; the first basis is exact."""
    return eigenbasis(factor, None) if old is None else np.linalg.qr(factor @ old)[0]


def soap_muon_step(
    weight: np.ndarray,
    grad: np.ndarray,
    state: dict,
    lr: float,
    momentum: float = 0.95,
    beta2: float = 0.9,
    shampoo_beta: float = 0.9,
    eps: float = 1e-8,
    decay: float = 0.0,
    adjust: str = "original",
    cautious: bool = False,
    nesterov: bool = True,
    every: int = 1,
    second_moment_of: str = "gradient",
    sees_own_gradient: bool = True,
    basis: Callable[[np.ndarray, np.ndarray | None], np.ndarray] = eigenbasis,
) -> np.ndarray:
    """One step in float64; `state` starts empty and is changed.

    Args:
        every: the bases are renewed on steps 1, 1 + every, 1 + 2 * every, ...
        second_moment_of: "gradient" or "momentum", rotated: what V is the average square of.
        sees_own_gradient: L, R and the bases are brought up to date before the update, not after it.
    """
    step = state["step"] = state.get("step", 0) + 1
    state["m"] = momentum * state.get("m", 0 * grad) + (1 - momentum) * grad
    update = momentum * state["m"] + (1 - momentum) * grad if nesterov else state["m"]

    def renew() -> None:
        state["L"] = shampoo_beta * state.get("L", 0) + (1 - shampoo_beta) * grad @ grad.T
        state["R"] = shampoo_beta * state.get("R", 0) + (1 - shampoo_beta) * grad.T @ grad
        if (step - 1) % every == 0:
            state["Qr"], state["Qc"] = basis(state["L"], state.get("Qr")), basis(state["R"], state.get("Qc"))

    if sees_own_gradient or step == 1:
        renew()
    q_rows, q_columns = state["Qr"], state["Qc"]
    rotated = q_rows.T @ update @ q_columns
    watched = {"gradient": q_rows.T @ grad @ q_columns, "momentum": rotated}[second_moment_of]
    state["v"] = beta2 * state.get("v", 0 * grad) + (1 - beta2) * watched**2
    scaled = q_rows @ (rotated / (np.sqrt(state["v"]) + eps)) @ q_columns.T
    scaled *= np.linalg.norm(update) / np.linalg.norm(scaled)
    if not sees_own_gradient and step > 1:
        renew()
    return decayed(weight, scale_of(weight.shape, adjust) * orthogonalized(scaled), lr, decay, cautious)
