"""PyTorch's Adam without the wrapper that keeps `torch.compile` (Dynamo) out of it; weight decay is part of the gradient."""

from collections.abc import Mapping

import torch
from torch import nn
from torch.optim import Optimizer

from pocketvit.config import OptimConfig
from pocketvit.optim import adamw
from pocketvit.optim.capturable import without_dynamo


class Adam(torch.optim.Adam):
    """PyTorch's Adam, with the same numbers."""

    add_param_group = without_dynamo(Optimizer.add_param_group)
    zero_grad = without_dynamo(Optimizer.zero_grad)
    step = torch.no_grad()(without_dynamo(torch.optim.Adam.step))


def build(
    config: OptimConfig, named: dict[str, nn.Parameter], scales: Mapping[str, float], *, fused: bool
) -> list[Optimizer]:
    """Adam for these parameters."""
    return adamw.build(config, named, scales, fused=fused, kind=Adam)
