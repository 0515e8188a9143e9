"""PyTorch's AdamW without the wrapper that keeps `torch.compile` (Dynamo) out of it.

The wrapper loads PyTorch's compiler on first use, three to six seconds at the start of every run, even if
nothing is compiled. Nothing here is ever compiled, so the methods behind the wrapper are used.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from pocketvit.config import OptimConfig
from pocketvit.optim.build import param_groups


def without_dynamo(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method behind such a wrapper, if there is one."""
    return getattr(method, "__wrapped__", method)


class AdamW(torch.optim.AdamW):
    """PyTorch's AdamW, with the same numbers."""

    add_param_group = without_dynamo(Optimizer.add_param_group)
    zero_grad = without_dynamo(Optimizer.zero_grad)
    step = torch.no_grad()(without_dynamo(torch.optim.AdamW.step))


def build(config: OptimConfig, named: dict[str, nn.Parameter], *, fused: bool) -> list[Optimizer]:
    """AdamW for these parameters, on a GPU by one kernel if wanted."""
    groups, betas = param_groups(config, named, config.lr), config.betas or (0.9, 0.999)
    if fused:
        from pocketvit.optim import flat  # needs Triton

        return [flat.AdamW(groups, lr=0.0, betas=betas)]
    on_cuda = next(iter(named.values())).is_cuda
    return [AdamW(groups, betas=betas, fused=True, capturable=on_cuda)]
