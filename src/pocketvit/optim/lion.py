"""Lion: steps by the sign of an interpolated momentum, with one state tensor per parameter."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pocketvit.config import OptimConfig
from pocketvit.optim.build import param_groups
from pocketvit.optim.capturable import CapturableOptimizer, descend


class Lion(CapturableOptimizer):
    """Move every weight by the same amount, in the direction its momentum votes for.

    With momentum m (zero at the start), gradient g and weight w, a step is

        c = beta1 · m + (1 - beta1) · g
        w ← w - lr · (sign(c) + weight_decay · w)
        m ← beta2 · m + (1 - beta2) · g

    So the direction depends more on the current gradient than the stored momentum does (beta1 < beta2).
    All entries of a step have size lr, so good learning rates are 3 to 10 times smaller than AdamW's, and good
    weight decays are that much larger.

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", https://arxiv.org/abs/2302.06675

    Args:
        params: parameters or groups of them.
        lr: learning rate, a number or a 0-dim tensor on the parameters' device.
        betas: (beta1, beta2) above, each in [0, 1).
        weight_decay: decoupled weight decay.
        cautious: decay only where the direction does not make the weight larger.
    Raises:
        InputError: a value out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        cautious: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, cautious=cautious, betas=betas)

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        momenta = self._buffers(params, "exp_avg")
        directions = torch._foreach_lerp(momenta, grads, 1 - beta1)
        torch._foreach_sign_(directions)
        torch._foreach_lerp_(momenta, grads, 1 - beta2)
        descend(params, directions, group["lr"], group["weight_decay"], group["cautious"])


def build(
    config: OptimConfig, named: dict[str, nn.Parameter], scales: Mapping[str, float], *, fused: bool
) -> list[Optimizer]:
    """Lion for these parameters."""
    kind = import_module("pocketvit.optim.flat").Lion if fused else Lion  # flat needs Triton
    betas, groups = config.betas or (0.9, 0.99), param_groups(config, named, config.lr, scales)
    return [kind(groups, lr=0.0, betas=betas, cautious=config.cautious_decay)]
