"""A run small enough to train in a second on one core."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pocketvit.config import RunConfig, override
from pocketvit.recipes import recipe

sys.path.insert(0, str(Path(__file__).parent))  # started processes import `worker_processes` by its name


@pytest.fixture
def made_set(tmp_path):
    """An .npz file of 16 × 16 images in three classes told apart by colour: 96 to train on, 30 to test on."""

    def images(count, seed):
        rng = np.random.default_rng(seed)
        labels = np.arange(count) % 3
        pixels = rng.integers(0, 120, (count, 16, 16, 3))
        pixels[np.arange(count), :, :, labels] += 100
        return pixels.astype(np.uint8), labels

    path = tmp_path / "made.npz"
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


@pytest.fixture
def small(made_set, tmp_path) -> RunConfig:
    """The whole recipe of the paper on a small model: five passes of six steps, with every augmentation on."""
    return override(
        recipe("paper"),
        {
            "out": tmp_path / "run",
            "batch_size": 16,
            "model.width": 32,
            "model.depth": 2,
            "model.num_heads": 2,
            "data.source": str(made_set),
            "data.cache_dir": tmp_path / "cache",
            "optim.lr": 2e-3,
            "schedule.passes": 5,
            "schedule.warmup_passes": 1,
            "train.device": "cpu",
            "train.eval_every_passes": 2,
            "train.checkpoint_every_passes": 2,
        },
    )
