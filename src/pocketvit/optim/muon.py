"""Muon: momentum replaced by the nearest orthogonal matrix, for all weights of a shape at once.

A weight's momentum is usually dominated by a few directions. Muon keeps the directions and sets their strengths, the
singular values, to about 1, so that the rare directions count as much as the common ones. The singular value
decomposition U S Vᵀ that would give U Vᵀ exactly is slow on a GPU; a few Newton-Schulz iterations come near it with
matrix products alone. A small vision transformer has dozens of small matrices in three or four shapes, so here they
are stacked by shape and each product is one batched call.

Shapes: G matrices stacked together, n rows, m columns, n <= m.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pocketvit.config import OptimConfig
from pocketvit.config.checks import Bounds, unknown
from pocketvit.errors import InputError
from pocketvit.optim import adamw
from pocketvit.optim.build import param_groups
from pocketvit.optim.capturable import CapturableOptimizer, descend

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""(a, b, c) of the polynomial a·s + b·s³ + c·s⁵ that an iteration applies to each singular value s. They were tuned for
the greatest slope at 0, so that small values grow fast; they end within about 0.7 … 1.2, not at 1."""

NS_EPS = 1e-7  # least norm to divide by, so that a zero gradient gives a zero step

LR_ADJUSTMENTS = {
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}
"""How the step of a (rows, columns) weight is scaled. `original`: Jordan's, by aspect ratio. `match_rms_adamw`: to
entries of about the size that AdamW's have, so that AdamW's learning rate and decay can be kept (Liu et al. 2025,
https://arxiv.org/abs/2502.16982)."""


def newton_schulz(matrices: Tensor, steps: int, dtype: torch.dtype) -> Tensor:
    """Move all singular values of each matrix to about 1, and keep its singular vectors.

    Args:
        matrices: (G, n, m) with n <= m, so that the Gram matrices are the smaller ones.
        dtype: type to compute in.
    Returns:
        (G, n, m) in `dtype`.
    """
    a, b, c = NS_COEFFICIENTS
    x = matrices.to(dtype)
    # The iteration needs singular values of at most about 1; the Frobenius norm bounds the greatest one.
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=NS_EPS)
    for _ in range(steps):
        gram = x @ x.mT  # (G, n, n)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # b·gram + c·gram², (G, n, n)
        x = torch.baddbmm(x, polynomial, x, beta=a)  # a·x + polynomial·x, (G, n, m)
    return x


def orthogonalize(matrices: Sequence[Tensor], steps: int, dtype: torch.dtype) -> list[Tensor]:
    """`newton_schulz` for matrices of any shapes; a tall one shares the batch of its transpose's shape.

    Args:
        matrices: each (rows, columns).
    Returns:
        matrices of the same shapes and types, in the same order.
    """
    batches: dict[tuple[int, int], tuple[list[int], list[int]]] = {}  # (n, m) -> indices of the wide, of the tall
    for index, matrix in enumerate(matrices):
        rows, columns = matrix.shape
        wide_and_tall = batches.setdefault((min(rows, columns), max(rows, columns)), ([], []))
        wide_and_tall[rows > columns].append(index)

    result = list(matrices)
    for wide, tall in batches.values():
        batch = torch.stack([matrices[i] for i in wide] + [matrices[i].mT for i in tall])  # (G, n, m)
        batch = newton_schulz(batch, steps, dtype).to(batch.dtype)
        upright = batch[len(wide) :].mT.contiguous()  # (tall, m, n); the list operations are slow on transposed views
        for i, matrix in zip(wide + tall, [*batch[: len(wide)], *upright], strict=True):
            result[i] = matrix
    return result


class Muon(CapturableOptimizer):
    """Orthogonalized momentum, for the 2-D weights of hidden layers; another optimizer updates the rest.

    With momentum B (zero at the start), gradient g and weight W, a step is

        B ← momentum · B + (1 - momentum) · g
        O = newton_schulz(momentum · B + (1 - momentum) · g)    (of B itself without nesterov)
        W ← W - lr · (scale(shape of W) · O + weight_decay · W)

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/, with the meaning of `torch.optim.Muon`.
    Differs: matrices of one shape, or of its transpose, are orthogonalized in one batch; the learning rate is a
    tensor; the iteration runs in float32 where there is no CUDA.

    Args:
        params: 2-D parameters or groups of them.
        lr: learning rate, a number or a 0-dim tensor on the parameters' device.
        momentum: decay rate of B, in [0, 1).
        nesterov: look one step ahead, by mixing the gradient in once more.
        weight_decay: decoupled weight decay; as in torch, `adjust_lr_fn` does not scale it.
        ns_steps: Newton-Schulz iterations.
        adjust_lr_fn: scale of the step by the weight's shape, a name from `LR_ADJUSTMENTS`.
        ns_dtype: type that the iteration computes in. None takes bfloat16 on CUDA, as the original does and where it
            is fast, and float32 elsewhere; `torch.optim.Muon` takes bfloat16 everywhere.
        cautious: decay only where the step does not make the weight larger.
    Raises:
        InputError: a value out of its range, an unknown name, or a parameter that is not 2-D.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_steps: int = 5,
        adjust_lr_fn: str = "original",
        ns_dtype: torch.dtype | None = None,
        cautious: bool = False,
    ) -> None:
        Bounds(0, 1, open_right=True).check("momentum", momentum)
        Bounds(1).check("ns_steps", ns_steps)
        if adjust_lr_fn not in LR_ADJUSTMENTS:
            raise InputError(unknown("adjust_lr_fn", adjust_lr_fn, LR_ADJUSTMENTS))
        super().__init__(
            params,
            lr,
            weight_decay,
            cautious=cautious,
            momentum=momentum,
            nesterov=nesterov,
            ns_steps=ns_steps,
            adjust_lr_fn=adjust_lr_fn,
            ns_dtype=ns_dtype,
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of 2-D parameters."""
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.ndim != 2:
                raise InputError(f"Muon got a parameter of shape {tuple(param.shape)}; give it only 2-D weights")

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        momentum = group["momentum"]
        momenta = self._buffers(params, "momentum_buffer")
        torch._foreach_lerp_(momenta, grads, 1 - momentum)
        lookahead = torch._foreach_lerp(grads, momenta, momentum) if group["nesterov"] else momenta
        lookahead = self._precondition(params, grads, list(lookahead))
        dtype = group["ns_dtype"] or (torch.bfloat16 if params[0].is_cuda else torch.float32)
        directions = orthogonalize(lookahead, group["ns_steps"], dtype)
        scale = LR_ADJUSTMENTS[group["adjust_lr_fn"]]
        torch._foreach_mul_(directions, [scale(*param.shape) for param in params])
        descend(params, directions, group["lr"], group["weight_decay"], group["cautious"])

    def _precondition(self, params: list[Tensor], grads: list[Tensor], updates: list[Tensor]) -> list[Tensor]:
        """The matrices to orthogonalize, given the momentum of each parameter."""
        return updates


def build(
    config: OptimConfig,
    named: dict[str, nn.Parameter],
    scales: Mapping[str, float],
    *,
    fused: bool,
    kind: Callable[..., Muon] = Muon,
) -> list[Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest.

    Raises:
        InputError: there are no such matrices.
    """
    hidden = {name: p for name, p in named.items() if name.startswith("blocks.") and p.ndim == 2}
    if not hidden:
        raise InputError(f"optim.name={config.name} needs matrices in the model's blocks, and there are none")
    groups = param_groups(config, hidden, config.muon_lr, scales)
    muon = kind(groups, lr=0.0, momentum=config.muon_momentum, cautious=config.cautious_decay)
    rest = {name: p for name, p in named.items() if name not in hidden}
    return [muon, *adamw.build(config, rest, scales, fused=fused)]
