"""The gradients of a training step, and what they are measured by."""

import torch
from torch import Tensor

from pocketvit.training.trainer import Trainer

ZERO = 1e-7
"""A gradient that is so much smaller than all together is zero but for rounding: those of a key's bias, which adds the
same to all scores of a softmax."""


def first_gradients(trainer: Trainer) -> dict[str, Tensor]:
    """The gradient of every parameter, float64, in the step that the trainer would take next; it is not taken."""
    trainer.step.backward()
    found = {}
    for name, parameter in trainer.model.named_parameters():
        found[name], parameter.grad = parameter.grad.double(), None
    return found


def gradient_errors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the wanted, by name: 1 where a gradient is lost.

    The error of a gradient that is to be zero is measured by a hundredth of the norm of all.
    """
    norms = {name: float(grad.norm()) for name, grad in wanted.items()}
    total = torch.tensor(list(norms.values())).norm().item()
    sizes = {name: norm if norm > ZERO * total else total / 100 for name, norm in norms.items()}
    return {name: float((found[name] - grad).norm()) / sizes[name] for name, grad in wanted.items()}
