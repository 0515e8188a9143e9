"""SGD: stochastic gradient descent with momentum, by list operations, or on flat memory."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from pocketvit.config import OptimConfig
from pocketvit.config.checks import Bounds
from pocketvit.optim.build import param_groups
from pocketvit.optim.capturable import CapturableOptimizer, descend


class SGD(CapturableOptimizer):
    """PyTorch's SGD, without dampening, as steps that can be captured.

    With momentum buffer b (zero at the start), gradient g and weight w, a step is

        g ← g + weight_decay · w
        b ← momentum · b + g
        w ← w - lr · (g + momentum · b if nesterov else b)

    Source: Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html, in the form of `torch.optim.SGD`

    Args:
        lr: learning rate, a number or a 0-dim tensor on the parameters' device.
        momentum: in [0, 1).
        weight_decay: added to the gradient, so not decoupled.
    Raises:
        InputError: a value out of its range.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        Bounds(0, 1, open_right=True).check("momentum", momentum)
        super().__init__(params, lr, weight_decay, momentum=momentum, nesterov=nesterov)

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        descend_with_momentum(params, grads, self._buffers(params, "momentum_buffer"), group)


def descend_with_momentum(
    params: list[Tensor], grads: list[Tensor], buffers: list[Tensor], group: dict[str, Any]
) -> None:
    """A step of `SGD`; changes the parameters and their momentum buffers in place."""
    momentum = group["momentum"]
    directions = torch._foreach_add(grads, params, alpha=group["weight_decay"])
    torch._foreach_mul_(buffers, momentum)
    torch._foreach_add_(buffers, directions)
    if group["nesterov"]:
        torch._foreach_add_(directions, buffers, alpha=momentum)
    else:
        torch._foreach_copy_(directions, buffers)
    descend(params, directions, group["lr"], weight_decay=0.0)


def build(
    config: OptimConfig, named: dict[str, nn.Parameter], scales: Mapping[str, float], *, fused: bool
) -> list[Optimizer]:
    """SGD for these parameters, on a GPU on flat memory if wanted."""
    kind = import_module("pocketvit.optim.flat").SGD if fused else SGD  # flat needs Triton
    groups = param_groups(config, named, config.lr, scales)
    return [kind(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov)]
