"""Synthetic images, and a trainer on them.

Speed does not depend on what the images show, so it is measured on noise with the image size and the number of classes
of the configuration's data set: no download, and the same bytes everywhere.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from pocketvit.augment.batch import Chunk
from pocketvit.config import DataConfig, RunConfig
from pocketvit.data import Split, Splits, open_dataset
from pocketvit.training.progress import SilentReporter
from pocketvit.training.trainer import Trainer


class Shape(NamedTuple):
    """The properties of a data set that affect speed; height and width in pixels."""

    height: int
    width: int
    num_classes: int


KNOWN = {"digits": Shape(8, 8, 10), "cifar10": Shape(32, 32, 10), "cifar100": Shape(32, 32, 100)}
"""Data sets that do not have to be downloaded for a measurement."""


@cache
def shape_of(data: DataConfig) -> Shape:
    """The shape of a data set; one that is not in `KNOWN` is opened.

    Raises:
        InputError: it cannot be opened.
    """
    known = KNOWN.get(data.source)
    if known is None:
        dataset = open_dataset(data)
        return Shape(*dataset.image_size, dataset.num_classes)
    return known if data.resize is None else Shape(data.resize, data.resize, known.num_classes)


def synthetic_splits(num_images: int, shape: Shape) -> Splits:
    """Random pixels and labels; the training images are also the test images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, shape.height, shape.width, 3), dtype=np.uint8)
    split = Split(images, rng.integers(0, shape.num_classes, num_images))
    return Splits(split, None, split, tuple(f"class {k}" for k in range(shape.num_classes)), "synthetic", ())


def synthetic_trainer(config: RunConfig, device: torch.device, num_images: int) -> Trainer:
    """A trainer for `config` on `num_images` synthetic images of the shape of its data.

    Raises:
        InputError: the data cannot be opened.
    """
    trainer = Trainer(config, synthetic_splits(num_images, shape_of(config.data)), device, SilentReporter())
    trainer.model.train()
    return trainer


def run_steps(trainer: Trainer, num_steps: int) -> None:
    """Run the first steps of the chunk that is set, as the first ones of the run."""
    trainer.step.position.zero_()
    trainer.step.step.zero_()
    for _ in range(num_steps):
        trainer.step()


def first_chunk(trainer: Trainer) -> Chunk:
    """The first steps of the first pass, on the device."""
    return trainer.chunks.load(0, 0, trainer.loader.chunk_steps)
