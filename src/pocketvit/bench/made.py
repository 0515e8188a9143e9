"""Made images, and a trainer on them that is about to take its first step.

Speed does not depend on what the images show, so it is measured on noise: no download, and the same bytes everywhere.
"""

import numpy as np
import torch

from pocketvit.config import RunConfig
from pocketvit.data import Split, Splits
from pocketvit.training.chunks import Work
from pocketvit.training.progress import Silent
from pocketvit.training.trainer import Trainer

NUM_CLASSES = 10
IMAGE_SIZES = {"digits": 8}
"""Side of the images of a data source, pixels; that of CIFAR-10's where it is not listed."""
CIFAR_SIZE = 32


def made_splits(num_images: int, image_size: int = CIFAR_SIZE) -> Splits:
    """Random pixels and labels; the training images are the test images as well."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, image_size, image_size, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, NUM_CLASSES, num_images))
    return Splits(split, None, split, tuple(f"class {k}" for k in range(NUM_CLASSES)), "made", ())


def made_trainer(config: RunConfig, device: torch.device, num_images: int) -> Trainer:
    """A trainer for `config` on `num_images` made images of the size of its data."""
    image_size = config.data.resize or IMAGE_SIZES.get(config.data.source, CIFAR_SIZE)
    trainer = Trainer(config, made_splits(num_images, image_size), device, Silent())
    trainer.model.train()
    return trainer


def first_chunk(trainer: Trainer) -> Work:
    """The first steps of the first pass, on the device."""
    return trainer.chunks.load(*trainer.chunks.plan(0), 0, trainer.loader.chunk_steps)
