"""AdamW over flat memory: all parameters of a group are updated by one kernel.

PyTorch's fused AdamW walks over a list of tensors with few thread blocks for each; a small model's hundred tensors
keep a GPU busy for 140 µs a step, five times longer than reading and writing them takes. Laid out behind each other
they are one array. On the CPU `torch.optim.AdamW` is as good, and it is the oracle of this one.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor
from torch.optim.optimizer import ParamsT

from pocketvit.checks import at_least, between
from pocketvit.errors import InputError
from pocketvit.kernels.adamw_triton import adamw_kernel
from pocketvit.kernels.launch import launch
from pocketvit.optim.capturable import CapturableOptimizer

BLOCK = 1024


class AdamW(CapturableOptimizer):
    """Adam with decoupled weight decay, on a GPU.

    The parameters' memory is moved: afterwards those of a group lie behind each other in the order given, except that
    sizes that would break the alignment of what follows come last.

    Source: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101

    Args:
        params: float32 parameters or groups of them; all of a group must have a gradient at every step.
        lr: learning rate, a number or a 0-dim tensor on the parameters' device.
        betas: decay rates of the two running moments, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay.
    Raises:
        InputError: a value out of its range; in a step, a parameter without a gradient.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        for beta in betas:
            between("betas", beta, 0, 1, open_right=True)
        at_least("eps", eps, 0)
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, and lay its parameters and their moments out in flat memory."""
        super().add_param_group(param_group)
        params = in_order(self.param_groups[-1]["params"])
        flat = torch.cat([param.detach().flatten() for param in params])
        moments = {"exp_avg": torch.zeros_like(flat), "exp_avg_sq": torch.zeros_like(flat)}
        step, start = torch.zeros((), device=flat.device), 0
        for param in params:
            part = slice(start, start + param.numel())
            param.data = flat[part].view_as(param)
            self.state[param] = {name: moment[part].view_as(param) for name, moment in moments.items()}
            self.state[param]["step"] = step
            start += param.numel()
        self._flat = [*getattr(self, "_flat", []), (flat, moments["exp_avg"], moments["exp_avg_sq"], step)]

    def _update(self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> None:
        index = next(i for i, other in enumerate(self.param_groups) if other is group)
        if len(params) < len(group["params"]):
            num_params = len(group["params"])
            missing = num_params - len(params)
            raise InputError(f"AdamW: {missing} of {num_params} parameters of a group have no gradient; all must")
        flat, exp_avg, exp_avg_sq, step = self._flat[index]
        step += 1
        grad = torch.cat([param.grad.flatten() for param in in_order(params)])
        beta1, beta2 = group["betas"]
        launch(
            adamw_kernel, (triton.cdiv(flat.numel(), BLOCK),),
            flat, grad, exp_avg, exp_avg_sq, step, group["lr"], flat.numel(),
            BETA1=beta1, BETA2=beta2, LOG2_BETA1=log2(beta1), LOG2_BETA2=log2(beta2),
            EPS=group["eps"], WEIGHT_DECAY=group["weight_decay"], BLOCK=BLOCK,
        )  # fmt: skip


def log2(beta: float) -> float:
    """The binary logarithm; that of 0 is so low that every power of it is 0 in float32."""
    return math.log2(beta) if beta else -1000.0


def in_order(params: Sequence[Tensor]) -> list[Tensor]:
    """The parameters as they lie in memory: those whose size keeps the next one aligned first."""
    return sorted(params, key=lambda param: param.numel() % 16 != 0)  # a stable sort: else as given
