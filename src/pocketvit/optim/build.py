"""Build optimizers from a configuration, with their learning rates on the device.

Each has a module in this folder, named like the value of `optim.name`, with a function `build`. Every param group has
`lr`, a 0-dim tensor that the step overwrites, and `peak_lr`, the float that the schedule scales. So a whole training
step, including its learning rate, can be captured in a CUDA graph.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
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
    scales = lr_scales(named, config.layer_decay)
    if isinstance(config.name, Code):
        check_optimizer(config.name, config)
        return [make_optimizer(config.name, param_groups(config, named, config.lr, scales), config)]
    return import_module(f"pocketvit.optim.{config.name}").build(config, named, scales, fused=fused)


def offer_gradient_memory(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Let the flat ones offer their memory to the kernels that compute gradients, see `FlatOptimizer`."""
    from pocketvit.optim.flat import FlatOptimizer  # needs Triton

    for optimizer in optimizers:
        if isinstance(optimizer, FlatOptimizer):
            optimizer.offer_gradient_memory()


def named_parameters(model: nn.Module, layers: nn.Module | None = None) -> Iterator[tuple[str, nn.Parameter]]:
    """The trained parameters of a model, and of its objective's layers under `objective.`."""
    named = itertools.chain(model.named_parameters(), (layers or nn.Module()).named_parameters(prefix="objective"))
    return ((name, parameter) for name, parameter in named if parameter.requires_grad)


DECAYED = {"all": lambda *_: True, "matrices": lambda name, p: name.endswith("weight") and p.ndim >= 2}
"""Whether a parameter decays, by `optim.decay`."""


def lr_scales(names: Collection[str], layer_decay: float) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by, by name: `layer_decay` to the power of the layers above its own.

    Layers are the tokens with their positions, each block, the last norm being part of the last one, and what follows
    the norm, which keeps its learning rate, as an objective's layers do.

    Source: BEiT, Bao et al. 2021, https://arxiv.org/abs/2106.08254; the layers are timm's
    """
    blocks = {name: int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))}
    depth = 1 + max(blocks.values(), default=-1)

    def above(name: str) -> int:
        if name in blocks:
            return depth - blocks[name]
        return depth + 1 if name.startswith("tokens.") else int(name.startswith("norm."))

    return {name: layer_decay ** above(name) for name in names}


def param_groups(
    config: OptimConfig, named: dict[str, nn.Parameter], peak_lr: float, scales: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The parameters in groups of the same weight decay and learning rate.

    `optim.decay=matrices` decays the weights of linear layers and of the patch embedding; biases, norms, CLS tokens,
    registers and positions do not decay.

    Args:
        peak_lr: of parameters whose scale is 1.
        scales: from `lr_scales`.
    """
    alike: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, p in named.items():
        alike.setdefault((DECAYED[config.decay](name, p), scales[name]), []).append(p)
    return [
        {
            "params": parameters,
            "lr": torch.zeros((), device=parameters[0].device),
            "peak_lr": peak_lr * scale,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (decays, scale), parameters in sorted(alike.items(), reverse=True)
    ]
