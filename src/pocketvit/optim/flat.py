"""AdamW, Adam, SGD and Lion over flat memory: all parameters of a group are updated as one array, on a GPU.

PyTorch's fused AdamW walks over a list of tensors with few thread blocks for each; a small model's hundred tensors
keep a GPU busy for 140 µs per step, five times longer than reading and writing them. In contiguous memory,
they are one array, which one kernel updates, or for SGD a few. On the CPU, `torch.optim.AdamW` and
`pocketvit.optim.lion.Lion` are as fast, and they are the references of these.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import triton
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pocketvit.config.checks import Bounds
from pocketvit.errors import InputError
from pocketvit.kernels import gradient_memory
from pocketvit.kernels.launch import launch
from pocketvit.kernels.optim_triton import adamw_kernel, lion_kernel
from pocketvit.optim import lion, sgd
from pocketvit.optim.capturable import CapturableOptimizer

BLOCK = 1024


class FlatOptimizer(CapturableOptimizer):
    """An elementwise optimizer on parameters in contiguous memory.

    The parameters' memory is moved: those of a group are then in the given order, except that sizes that would
    break the alignment of the next ones come last. The parameters are float32, and all of a group must have a gradient
    at every step. A subclass implements `_update_flat`.

    Raises:
        InputError: in a step, a parameter without a gradient.
    """

    MOMENTS: ClassVar[tuple[str, ...]]  # state tensors of the parameters' sizes
    _gradients: Sequence[Tensor] = ()  # of each group, if offered

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and move its parameters and their moments to flat memory."""
        super().add_param_group(param_group)
        params = in_order(self.param_groups[-1]["params"])
        flat, start = torch.cat([param.detach().flatten() for param in params]), 0
        moments = {name: torch.zeros_like(flat) for name in self.MOMENTS}
        for param in params:
            part = slice(start, start + param.numel())
            param.data = flat[part].view_as(param)
            self.state[param] = {name: moment[part].view_as(param) for name, moment in moments.items()}
            start += param.numel()
        self._flat = [*getattr(self, "_flat", []), (flat, moments)]

    def offer_gradient_memory(self) -> None:
        """Keep an array for the gradients of each group, and offer it to the kernels that compute them.

        Gradients that are there need not be gathered; any others are copied there.
        """
        self._gradients = []
        for group in self.param_groups:
            params = in_order(group["params"])
            self._gradients.append(params[0].new_zeros(sum(p.numel() for p in params) + gradient_memory.SPARE))
            gradient_memory.offer(self._gradients[-1], params)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zero."""
        super().zero_grad(set_to_none)
        if self._gradients and set_to_none:
            gradient_memory.forget(param for group in self.param_groups for param in group["params"])

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        index = next(i for i, other in enumerate(self.param_groups) if other is group)
        if len(params) < len(group["params"]):
            missing = f"{len(group['params']) - len(params)} of {len(group['params'])} parameters of a group"
            raise InputError(f"{type(self).__name__}: {missing} have no gradient; all must")
        flat, moments = self._flat[index]
        params = in_order(params)
        if self._gradients:
            gradient_memory.gather(params)
            grad = self._gradients[index][: flat.numel()]
        else:
            grad = torch.cat([param.grad.flatten() for param in params if param.grad is not None])
        self._update_flat(flat, grad, moments, group)

    def _update_flat(self, param: Tensor, grad: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> None:
        """Change the flat parameters of a group and their moments in place, given their gradients."""
        raise NotImplementedError


class AdamW(FlatOptimizer):
    """Adam with decoupled weight decay.

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101

    Args:
        lr: learning rate, a number or a 0-dim tensor on the parameters' device.
        betas: decay rates of the two running moments, each in [0, 1).
        eps: added to the root of the second moment.
        cautious: decay only where the update does not make the weight larger.
    Raises:
        InputError: a value out of its range; in a step, a parameter without a gradient.
    """

    MOMENTS = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        cautious: bool = False,
    ) -> None:
        Bounds(0).check("eps", eps)
        super().__init__(params, lr, weight_decay, cautious=cautious, betas=betas, eps=eps)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its parameters share one count of the steps taken."""
        super().add_param_group(param_group)
        params = self.param_groups[-1]["params"]
        step = torch.zeros((), device=params[0].device)
        for param in params:
            self.state[param]["step"] = step

    def _update_flat(self, param: Tensor, grad: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> None:
        step = self.state[group["params"][0]]["step"]
        step += 1
        beta1, beta2 = group["betas"]
        launch(
            adamw_kernel, (triton.cdiv(param.numel(), BLOCK),),
            param, grad, moments["exp_avg"], moments["exp_avg_sq"], step, group["lr"], param.numel(),
            BETA1=beta1, BETA2=beta2, LOG2_BETA1=log2(beta1), LOG2_BETA2=log2(beta2),
            EPS=group["eps"], WEIGHT_DECAY=group["weight_decay"], CAUTIOUS=group["cautious"], BLOCK=BLOCK,
        )  # fmt: skip


class Adam(AdamW):
    """Adam, whose weight decay is part of the gradient; its other arguments are AdamW's."""

    def _update_flat(self, param: Tensor, grad: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> None:
        grad = grad.add(param, alpha=group["weight_decay"])
        super()._update_flat(param, grad, moments, group | {"weight_decay": 0.0})


class SGD(FlatOptimizer, sgd.SGD):
    """`pocketvit.optim.sgd.SGD` on flat memory; its formulas and arguments are there."""

    MOMENTS = ("momentum_buffer",)

    def _update_flat(self, param: Tensor, grad: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> None:
        sgd.descend_with_momentum([param], [grad], [moments["momentum_buffer"]], group)


class Lion(FlatOptimizer, lion.Lion):
    """`pocketvit.optim.lion.Lion` on flat memory; its formulas and arguments are there."""

    MOMENTS = ("exp_avg",)

    def _update_flat(self, param: Tensor, grad: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        launch(
            lion_kernel, (triton.cdiv(param.numel(), BLOCK),),
            param, grad, moments["exp_avg"], group["lr"], param.numel(),
            BETA1=beta1, BETA2=beta2, WEIGHT_DECAY=group["weight_decay"], CAUTIOUS=group["cautious"], BLOCK=BLOCK,
        )  # fmt: skip


def log2(beta: float) -> float:
    """The binary logarithm; that of 0 is so low that every power of it is 0 in float32."""
    return math.log2(beta) if beta else -1000.0


def in_order(params: Sequence[Tensor]) -> list[Tensor]:
    """The parameters in the order of memory: first those whose size keeps the next one aligned."""
    return sorted(params, key=lambda param: param.numel() % 16 != 0)  # a stable sort: else as given
