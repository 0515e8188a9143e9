"""SOAP-Muon: Muon on a momentum that is first scaled entry by entry in the eigenbasis of its gradients.

Muon gives all directions of a step the same strength. SOAP turns a weight's gradients into the basis in which their rows
and columns are uncorrelated, and scales each entry there by its usual size, as Adam does. SOAP-Muon does both: SOAP's
scaling decides what Muon's orthogonalization sees.

The bases are most of the work, which grows with the cube of their sides. With `blocks`, the longer side of a matrix is cut into
pieces as long as the shorter side, and each piece has a basis of its own: queries, keys and values, for example.

Shapes: G matrices of a shape stacked together, n rows, m columns, bases of r rows or c columns, their vectors as columns:
(G·n/r, r, r) and (G·m/c, c, c). Without blocks, r = n and c = m.
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pocketvit.config import OptimConfig
from pocketvit.config.checks import Bounds
from pocketvit.optim import muon
from pocketvit.optim.muon import Muon

EPS = 1e-8  # added to the root of the second moment
TURN = 2.0
"""Greatest Frobenius norm of a turn, so that few iterations make it orthogonal again; only the first steps reach it."""
TURN_ITERATIONS = 5


class SOAPMuon(Muon):
    """Muon whose momentum is scaled in the eigenbasis of its gradients.

    With Muon's momentum U (Nesterov's), gradient g and bases Q_r, Q_c (the identity at the start), a step is

        U' = Q_rᵀ U Q_c,  V ← beta · V + (1 - beta) · U'²,  O = newton_schulz(Q_r (U' / (√V + eps)) Q_cᵀ)
        W ← W - lr · (scale(shape of W) · O + weight_decay · W)
        L ← beta · L + (1 - beta) · g gᵀ,  R ← beta · R + (1 - beta) · gᵀ g,  then Q_r and Q_c turn towards their eigenvectors

    Sources: modded-nanogpt's optimization track, https://github.com/KellerJordan/modded-nanogpt/pull/278, for all matrices
    and renewed in every step as in its pull request 321; SOAP: Vyas et al. 2024, https://arxiv.org/abs/2409.11321
    Differs: the bases turn by matrix products alone (`turned`), where the sources compute an eigendecomposition at the first
    step and a QR decomposition later: those would take longer on a GPU than the rest of a step. Neither U's norm is kept,
    which Newton-Schulz divides by, nor the other parts of those pull requests, such as a least size of updates.

    Args:
        beta: decay rate of L, R and V, in [0, 1).
        blocks: cut the longer side of a matrix into pieces as long as the shorter one, if that divides it. Source: Anil et
            al. 2020 (Shampoo), https://arxiv.org/abs/2002.09018
        others: as for `Muon`.
    Raises:
        InputError: a value out of its range, an unknown name, or a parameter that is not 2-D.
    """

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 0.02, beta: float = 0.9, *, blocks: bool = False, **others
    ) -> None:
        Bounds(0, 1, open_right=True).check("beta", beta)
        self.beta, self.blocks = beta, blocks
        super().__init__(params, lr, **others)

    def _precondition(self, params: list[Tensor], grads: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
        for param in params:
            state, (n, m), (r, c) = self.state[param], param.shape, self._sides(param)
            if "row_gram" not in state:
                sides = {"exp_avg_sq": (n, m), "row_gram": (n, r), "row_turn": (n, r), "column_gram": (m, c)}
                sides["column_turn"] = (m, c)
                state |= {name: param.new_zeros(shape) for name, shape in sides.items()}
        result = list(updates)
        for shape in {param.shape: None for param in params}:
            alike = [i for i, param in enumerate(params) if param.shape == shape]
            scaled = self._scale([params[i] for i in alike], [grads[i] for i in alike], [updates[i] for i in alike])
            for i, matrix in zip(alike, scaled, strict=True):
                result[i] = matrix
        return result

    def _scale(self, params: list[Tensor], grads: list[Tensor], updates: list[Tensor]) -> Tensor:
        """The updates of matrices of one shape, scaled, (G, n, m); brings their state up to date."""
        names = ("exp_avg_sq", "row_gram", "row_turn", "column_gram", "column_turn")
        square, row_gram, row_turn, column_gram, column_turn = (
            torch.stack([self.state[param][name] for param in params]) for name in names
        )
        r, c = self._sides(params[0])
        row_gram, row_turn = (x.reshape(-1, r, r) for x in (row_gram, row_turn))
        column_gram, column_turn = (x.reshape(-1, c, c) for x in (column_gram, column_turn))
        # State begins at zero, so it holds how far a basis is from the identity.
        rows, columns = (turn + torch.eye(turn.shape[1], device=turn.device) for turn in (row_turn, column_turn))
        u, g = torch.stack(updates), torch.stack(grads)  # (G, n, m)
        u = _from_right(_from_left(rows.mT, u), columns)
        square.lerp_(u.square(), 1 - self.beta)
        u = _from_right(_from_left(rows, u / (square.sqrt() + EPS)), columns.mT)
        of_rows, of_columns = g.reshape(-1, r, g.shape[2]), _in_columns(g, c)  # (G·n/r, r, m), (G·m/c, n, c)
        row_gram.lerp_(of_rows @ of_rows.mT, 1 - self.beta)
        column_gram.lerp_(of_columns.mT @ of_columns, 1 - self.beta)
        new_row_turn, new_column_turn = (
            turned(basis, gram) - torch.eye(basis.shape[1], device=basis.device)
            for basis, gram in ((rows, row_gram), (columns, column_gram))
        )
        new = (square, row_gram, new_row_turn, column_gram, new_column_turn)
        for name, stack in zip(names, new, strict=True):
            held = [self.state[param][name] for param in params]
            torch._foreach_copy_(held, list(stack.reshape(len(params), *held[0].shape)))
        return u

    def _sides(self, param: Tensor) -> tuple[int, int]:
        """The sides of a parameter's bases, of rows and of columns."""
        n, m = param.shape
        return m if self.blocks and n % m == 0 else n, n if self.blocks and m % n == 0 else m


def _from_left(basis: Tensor, x: Tensor) -> Tensor:
    """Bases of r rows (G·n/r, r, r) times matrices (G, n, m)."""
    return (basis @ x.reshape(-1, basis.shape[2], x.shape[2])).reshape(x.shape)


def _from_right(x: Tensor, basis: Tensor) -> Tensor:
    """Matrices (G, n, m) times bases of c columns (G·m/c, c, c)."""
    return (_in_columns(x, basis.shape[2]) @ basis).unflatten(0, (len(x), -1)).transpose(1, 2).flatten(2)


def _in_columns(x: Tensor, c: int) -> Tensor:
    """Matrices (G, n, m) cut between columns, (G·m/c, n, c)."""
    return x.unflatten(2, (-1, c)).transpose(1, 2).flatten(0, 1)


def turned(basis: Tensor, gram: Tensor) -> Tensor:
    """Turn orthogonal bases towards the eigenvectors of symmetric positive semidefinite matrices.

    In the basis, the matrix is B = QᵀLQ. Entry B_ij, over the greater one of B_ii and B_jj, is the angle by which a step of
    QR iteration turns these two vectors, if the others are left out; here, all pairs turn at once. To first order, that
    multiplies B_ij by the ratio of the smaller to the greater one, as QR iteration does, whatever the order of the vectors.

    Args:
        basis: Q, (G, n, n).
        gram: L, (G, n, n).
    Returns:
        (G, n, n), orthogonal.
    """
    b = basis.mT @ gram @ basis
    d = b.diagonal(dim1=-2, dim2=-1)  # (G, n)
    smaller, greater = d[:, :, None], d[:, None, :]
    angles = torch.where(greater > smaller, b / greater.clamp(min=torch.finfo(d.dtype).tiny), 0.0)
    angles = angles - angles.mT  # skew-symmetric
    angles = angles * (TURN / angles.norm(dim=(-2, -1), keepdim=True).clamp(min=TURN))
    # The singular values of Q (1 + angles) are in [1, sqrt(1 + TURN² / 2)]; scaled into (0, 1], they converge to 1.
    x = (basis + basis @ angles) / (1 + TURN**2 / 2) ** 0.5
    for _ in range(TURN_ITERATIONS):
        x = torch.baddbmm(x, x, x.mT @ x, beta=1.5, alpha=-0.5)
    return x


def build(
    config: OptimConfig, named: dict[str, nn.Parameter], scales: Mapping[str, float], *, fused: bool
) -> list[Optimizer]:
    """SOAP-Muon for the matrices of the blocks, AdamW for the rest.

    Raises:
        InputError: there are no such matrices.
    """
    kind = partial(SOAPMuon, blocks=config.soap_blocks)
    return muon.build(config, named, scales, fused=fused, kind=kind)
