"""Objectives with which a small run trains, and models and batches in float64 to call one directly."""

from pathlib import Path

import torch

from pocketvit.augment.batch import Batch
from pocketvit.config import ModelConfig
from pocketvit.inference.trained_model import TrainedModel
from pocketvit.model import ViT

TEACHER = "a trained model"
"""Stands for the file of one, from `save_teacher`."""
OBJECTIVES = {
    "drloc": {"objective.drloc": 0.5},
    "teacher": {"objective.teacher": TEACHER},
    "dino": {"objective.name": "dino"},
    "mae": {"objective.name": "mae", "model.num_registers": 1},
    "both": {"objective.teacher": TEACHER, "objective.drloc": 0.1, "model.pool": "mean", "model.num_registers": 1},
}
"""The fields that choose each of them."""


def save_teacher(path: Path, class_names: tuple[str, ...], side: int = 16) -> Path:
    """Save an untrained model whose answers differ between images."""
    config = ModelConfig(width=32, depth=1, num_heads=2, pool="mean")
    model = ViT(
        config, image_size=(side, side), num_classes=len(class_names), generator=torch.Generator().manual_seed(0)
    )
    undecided(model)
    TrainedModel(model, class_names, (0.3, 0.5, 0.4), (0.3, 0.2, 0.25), images=1000).save(path)
    return path


@torch.no_grad()
def undecided(model: ViT) -> ViT:
    """The model with a head that answers differently for different images, noise included."""
    images = torch.randn(64, 3, *model.image_size, generator=torch.Generator().manual_seed(2))
    model.head.weight *= 50
    model.head.bias -= model(images.to(model.head.bias.dtype)).mean(dim=0)
    return model


def with_teacher(values: dict, path: Path) -> dict:
    """The fields with a teacher's file in place of `TEACHER`."""
    return {name: path if value == TEACHER else value for name, value in values.items()}


def convert(objective: object, dtype: torch.dtype) -> None:
    """Convert all weights that an objective computes with."""
    for value in vars(objective).values():
        if isinstance(value, torch.nn.Module):
            value.to(dtype)
        elif hasattr(value, "prepare"):
            convert(value, dtype)


def model_of(image_size: tuple[int, int] = (16, 16), *, distilled: bool = False, **fields) -> ViT:
    """A model of small width with weights that are far from their start, in float64."""
    config = ModelConfig(**{"width": 24, "depth": 2, "num_heads": 2} | fields)
    generator = torch.Generator().manual_seed(0)
    model = ViT(config, image_size=image_size, num_classes=3, generator=generator, distilled=distilled).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
    return model


def batch_of(model: ViT, num_draws: int, size: int = 6) -> Batch:
    """A random batch for a model, with stochastic depth."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, *model.image_size, generator=generator, dtype=torch.float64)
    targets = torch.rand(size, model.num_classes, generator=generator, dtype=torch.float64).softmax(dim=1)
    drop_path = 1.5 * (torch.rand(model.config.num_layers, 2, size, generator=generator) < 0.7)
    return Batch(images, targets, drop_path, torch.rand(size, num_draws, generator=generator))
