"""Objectives with which a small run trains, and models and batches in float64 to call one directly."""

import torch

from pocketvit.augment.batch import Batch
from pocketvit.config import ModelConfig
from pocketvit.model import ViT

OBJECTIVES = {"drloc": {"objective.drloc": 0.5}}
"""The fields that choose each of them."""


def model_of(image_size: tuple[int, int] = (16, 16), **fields) -> ViT:
    """A model of small width with weights that are far from their start, in float64."""
    config = ModelConfig(**{"width": 24, "depth": 2, "num_heads": 2} | fields)
    model = ViT(config, image_size=image_size, num_classes=3, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        for n, parameter in enumerate(model.parameters()):
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
    return model


def batch_of(model: ViT, num_draws: int, size: int = 6) -> Batch:
    """A random batch for a model, with stochastic depth."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(size, 3, *model.image_size, generator=generator, dtype=torch.float64)
    targets = torch.rand(size, model.num_classes, generator=generator, dtype=torch.float64).softmax(dim=1)
    drop_path = 1.5 * (torch.rand(model.config.depth, 2, size, generator=generator) < 0.7)
    return Batch(images, targets, drop_path, torch.rand(size, num_draws, generator=generator))
