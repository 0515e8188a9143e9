"""Build optimizers from a configuration, with their learning rates on the device.

Each has a module in this folder, named like the value of `optim.name`, with a function `build`. Every param group has
`lr`, a 0-dim tensor that the step overwrites, and `peak_lr`, the float that the schedule scales. So a whole training
step, including its learning rate, can be captured in a CUDA graph.
"""

import itertools
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import torch
from torch import nn

from pocketvit.config import OptimConfig
from pocketvit.optim.custom import check_optimizer, make_optimizer
from pocketvit.usercode import Code


def build_optimizers(
    config: OptimConfig, model: nn.Module, *, layers: nn.Module | None = None, fused: bool = False
) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every trained parameter of the model once.

    Args:
        model: on its device.
        layers: of the objective, if it has some.
        fused: use the kernels for AdamW and Lion, on a GPU; they move the parameters' memory.
    Raises:
        InputError: the model has no matrices in its blocks for Muon, or a user-defined optimizer does
            not meet the requirements.
    """
    named = dict(named_parameters(model, layers))
    if isinstance(config.name, Code):
        check_optimizer(config.name, config)
        return [make_optimizer(config.name, param_groups(config, named, config.lr), config)]
    return import_module(f"pocketvit.optim.{config.name}").build(config, named, fused=fused)


def named_parameters(model: nn.Module, layers: nn.Module | None = None) -> Iterator[tuple[str, nn.Parameter]]:
    """The trained parameters of a model, and of its objective's layers under `objective.`."""
    named = itertools.chain(model.named_parameters(), (layers or nn.Module()).named_parameters(prefix="objective"))
    return ((name, parameter) for name, parameter in named if parameter.requires_grad)


DECAYED = {"all": lambda *_: True, "matrices": lambda name, p: name.endswith("weight") and p.ndim >= 2}
"""Whether a parameter decays, by `optim.decay`."""


def param_groups(config: OptimConfig, named: dict[str, nn.Parameter], peak_lr: float) -> list[dict[str, Any]]:
    """The parameters in one group, or in two, with and without weight decay.

    `optim.decay=matrices` decays the weights of linear layers and of the patch embedding; biases, norms, CLS tokens,
    registers and positions do not decay.
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
