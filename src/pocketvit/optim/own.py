"""A user's own optimizer, tried on two small parameters before it gets the model's.

It must do what a captured training step demands (see `capturable`): take its learning rate from a tensor that changes
under it, and keep everything that it remembers in tensors that stay where they are. docs/own-idea.md tells users so.
"""

from typing import Any

import torch
from torch import Tensor

from pocketvit.config import OptimConfig
from pocketvit.errors import InputError
from pocketvit.usercode import Code

PROBE_LR = 0.01


def make_optimizer(code: Code, groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """The user's optimizer, with the groups that it was given.

    Raises:
        InputError: it is none, or has lost a parameter or the learning rate of a group.
    """
    given = {id(parameter) for group in groups for parameter in group["params"]}
    optimizer = code.call(groups=groups, config=config)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InputError(f"{code} makes a {type(optimizer).__name__}; it must make a torch.optim.Optimizer")
    kept = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if set(kept) != given or len(kept) != len(given):
        raise InputError(f"{code} updates {len(kept)} parameters of {len(given)}; it must take all groups as they are")
    for group in optimizer.param_groups:
        if "peak_lr" not in group or not isinstance(group["lr"], Tensor):
            raise InputError(f"{code} replaces the groups' lr or peak_lr; it must take all groups as they are")
    return optimizer


@torch.no_grad()
def check_optimizer(code: Code, config: OptimConfig) -> None:
    """Let it take three steps on a matrix and a vector.

    Raises:
        InputError: it fails, moves at learning rate 0 or not at all, or what it remembers is not in fixed tensors.
    """
    parameters = [torch.full((4, 3), 0.5), torch.full((4,), 0.5)]
    lr = torch.zeros(())
    group = {"params": parameters, "lr": lr, "peak_lr": config.lr, "weight_decay": config.weight_decay}
    optimizer = make_optimizer(code, [group], config)
    lr = optimizer.param_groups[0]["lr"]

    def step() -> dict[tuple[int, str], int]:
        """Take a step; returns where in memory each thing that it remembers lies."""
        for parameter in parameters:
            parameter.grad = torch.linspace(-1, 2, parameter.numel()).reshape(parameter.shape)
        code.guard(optimizer.step, "fails in step()")
        state = [(i, name, value) for i, p in enumerate(parameters) for name, value in optimizer.state[p].items()]
        for _, name, value in state:
            if not isinstance(value, Tensor):
                raise InputError(f"{code} keeps {name!r} as a {type(value).__name__}; keep it in a tensor")
        return {(i, name): value.data_ptr() for i, name, value in state}

    places = step()
    if any((parameter != 0.5).any() for parameter in parameters):
        raise InputError(f"{code} moves weights at learning rate 0; multiply its steps by group['lr'], a tensor")
    lr.fill_(PROBE_LR)
    if step() != places or step() != places:
        raise InputError(f"{code} makes new state tensors in later steps; change those of the first step in place")
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise InputError(f"{code} makes weights that are not finite")
    if all((parameter == 0.5).all() for parameter in parameters):
        raise InputError(f"{code} does not move the weights; change them in place, by group['lr']")
