"""From configuration to optimizers: each has a module, named as the value of `optim.name`, with a function `build`."""

from importlib import import_module

import torch
from torch import nn

from pocketvit.config import OptimConfig
from pocketvit.optim.custom import check_optimizer, make_optimizer
from pocketvit.optim.groups import param_groups
from pocketvit.usercode import Code


def build_optimizers(config: OptimConfig, model: nn.Module, *, fused: bool = False) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every trained parameter of the model once.

    Args:
        config: which, and their settings.
        model: on its device.
        fused: use the kernels for AdamW and Lion, on a GPU; they move the parameters' memory.
    Raises:
        InputError: Muon is asked for and the model has no matrices in its blocks, or the user's own optimizer does
            not do what it must.
    """
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if isinstance(config.name, Code):
        check_optimizer(config.name, config)
        return [make_optimizer(config.name, param_groups(config, named, config.lr), config)]
    return import_module(f"pocketvit.optim.{config.name}").build(config, named, fused=fused)
