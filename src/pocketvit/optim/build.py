"""From configuration to optimizers whose learning rates live on the device.

Every param group has `lr`, a 0-dim tensor that the step overwrites, and `peak_lr`, the float that the schedule
scales: a whole training step, its learning rate included, can then be captured in a CUDA graph.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pocketvit.config import OptimConfig


def build_optimizers(config: OptimConfig, model: nn.Module) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every trained parameter of the model once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    group = {"params": parameters, "lr": torch.zeros((), device=device), "peak_lr": config.lr}
    adamw = torch.optim.AdamW(
        [group],
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=device.type in ("cuda", "cpu"),
        capturable=device.type == "cuda",
    )
    return [adamw]


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
    for tensor in state_tensors(optimizers, {}).values():
        tensor.zero_()


def state_tensors(optimizers: Iterable[torch.optim.Optimizer], names: dict[Tensor, str]) -> dict[str, Tensor]:
    """Every state tensor by name, such as `adamw.exp_avg.head.weight`.

    Args:
        optimizers: whose state.
        names: the parameters' names; a parameter without one goes by its number.
    """
    tensors = {}
    for optimizer in optimizers:
        kind = type(optimizer).__name__.lower()
        for number, (parameter, state) in enumerate(optimizer.state.items()):
            for key, value in state.items():
                tensors[f"{kind}.{key}.{names.get(parameter, number)}"] = value
    return tensors
