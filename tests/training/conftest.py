"""A run small enough to train in a second on one core."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketvit.config import RunConfig, override
from pocketvit.recipes import recipe

sys.path.insert(0, str(Path(__file__).parent))  # started processes import `worker_processes` by its name


@pytest.fixture(autouse=True)
def pages_undrawn(undrawn: None) -> None:
    """Every run here ends with a page, and few tests look at it."""


@pytest.fixture(scope="session")
def synthetic_set(tmp_path_factory) -> Path:
    """An .npz file of 16 × 16 images in three classes told apart by colour: 96 to train on, 30 to test on."""

    def images(count, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 120, (count, 16, 16, 3))
        pixels[np.arange(count), :, :, labels] += 100
        return pixels.astype(np.uint8), labels

    path = tmp_path_factory.mktemp("set") / "made.npz"
    (train_images, train_labels), (test_images, test_labels) = images(96, 0), images(30, 1)
    np.savez(
        path,
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        class_names=np.array(["red", "green", "blue"]),
    )
    return path


@pytest.fixture(scope="session")
def small_in(synthetic_set) -> Callable[[Path], RunConfig]:
    """Makes the configuration of a small run in a folder."""

    def small_in(folder: Path) -> RunConfig:
        return override(
            recipe("paper"),
            {
                "out": folder / "run",
                "batch_size": 16,
                "model.width": 32,
                "model.depth": 2,
                "model.num_heads": 2,
                "data.source": str(synthetic_set),
                "data.cache_dir": folder / "cache",
                "optim.lr": 2e-3,
                "schedule.passes": 5,
                "schedule.warmup_passes": 1,
                "train.device": "cpu",
                "train.eval_every_passes": 2,
                "train.checkpoint_every_passes": 2,
            },
        )

    return small_in


@pytest.fixture
def small(small_in, tmp_path) -> RunConfig:
    """The whole recipe of the paper on a small model: five passes of six steps, with every augmentation on."""
    return small_in(tmp_path)
