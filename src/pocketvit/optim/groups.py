"""Param groups whose learning rates live on the device.

Every group has `lr`, a 0-dim tensor that the step overwrites, and `peak_lr`, the float that the schedule scales: a
whole training step, its learning rate included, can then be captured in a CUDA graph.
"""

from typing import Any

import torch
from torch import nn

from pocketvit.config import OptimConfig

DECAYED = {"all": lambda *_: True, "matrices": lambda name, p: name.endswith("weight") and p.ndim >= 2}
"""Whether a parameter decays, by `optim.decay`."""


def param_groups(config: OptimConfig, named: dict[str, nn.Parameter], peak_lr: float) -> list[dict[str, Any]]:
    """The parameters in one group, or in two, with and without weight decay.

    `optim.decay=matrices` decays the weights of linear layers and of the patch embedding; biases, norms, CLS tokens,
    registers and positions are left alone.
    """
    decayed = {name: DECAYED[config.decay](name, p) for name, p in named.items()}
    groups = []
    for decays in (True, False):
        parameters = [p for name, p in named.items() if decayed[name] == decays]
        if parameters:
            lr = torch.zeros((), device=parameters[0].device)
            decay = config.weight_decay if decays else 0.0
            groups.append({"params": parameters, "lr": lr, "peak_lr": peak_lr, "weight_decay": decay})
    return groups
