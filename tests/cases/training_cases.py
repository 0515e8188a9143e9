"""The gradients of a training step and what they are measured by, and an objective that logs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pocketvit.objectives.objective import Objective
from pocketvit.training.trainer import Trainer

TRICKS = {
    "optim.name": "soap_muon",
    "optim.soap_blocks": True,
    "optim.cautious_decay": True,
    "optim.grad_clip": 0.5,
    "optim.layer_decay": 0.9,
    "optim.ema_decay": 0.9,
    "optim.ema_start": 0.4,
    "optim.ema_share": 0.6,
    "augment.flips": "alternating",
    "model.patch_drop": 0.25,
    "model.dropout": 0.1,
    "schedule.sides": (8, 12),
    "train.flip_average": True,
    "train.micro_batch": 3,
}
"""Fields that change what a step or a pass does, all at once, for images of at least 12 pixels a side."""

ZERO = 1e-7
"""A gradient that is so much smaller than all together is zero but for rounding: those of a key's bias, which adds the
same to all scores of a softmax."""


def first_gradients(trainer: Trainer) -> dict[str, Tensor]:
    """The gradient of every parameter, float64, in the step that the trainer would take next; it is not taken."""
    trainer.step.backward()
    found = {}
    for name, parameter in trainer.model.named_parameters():
        found[name], parameter.grad = parameter.grad.double(), None
    trainer.objective.layers.zero_grad()
    return found


def gradient_errors(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Norm of the difference over norm of the wanted, by name: 1 where a gradient is lost.

    The error of a gradient that is to be zero is measured by a hundredth of the norm of all.
    """
    norms = {name: float(grad.norm()) for name, grad in wanted.items()}
    total = torch.tensor(list(norms.values())).norm().item()
    sizes = {name: norm if norm > ZERO * total else total / 100 for name, norm in norms.items()}
    return {name: float((found[name] - grad).norm()) / sizes[name] for name, grad in wanted.items()}


@dataclass(frozen=True)
class Spread(Objective):
    """An objective that works on tokens, and logs beside the loss."""

    batch_size: int
    weights: Tensor | None = None  # of the classes, which count alike here
    logged: tuple[str, ...] = ("spread", "pixels")

    def __call__(self, model, batch):
        tokens = model.features(batch.images, batch.drop_path)  # (B, N, D)
        loss = -(batch.targets * model.classify(tokens).log_softmax(dim=1)).sum() / self.batch_size
        spread = tokens.var(dim=1).mean(dim=1).sum() / self.batch_size
        pixels = batch.images.abs().mean(dim=(1, 2, 3)).sum() / self.batch_size
        return loss + 0.1 * spread, {"pixels": pixels, "spread": spread.detach()}
