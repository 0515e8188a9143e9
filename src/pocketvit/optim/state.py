"""What optimizers remember: made before the first step, so that a graph or a checkpoint can refer to it, and named."""

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def create_state(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Make every state tensor exist, at its starting value, without changing a parameter.

    PyTorch makes them in the first step; a checkpoint can be copied into them, and a captured graph can refer to
    them, only once they are there.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].zero_()
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for state in optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()


def state_tensors(optimizers: Iterable[torch.optim.Optimizer], names: dict[Tensor, str]) -> dict[str, Tensor]:
    """Every state tensor by name, such as `adamw.exp_avg.head.weight`, given the parameters' names."""
    return {
        f"{type(optimizer).__name__.lower()}.{key}.{names[parameter]}": value
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
