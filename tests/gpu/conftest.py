"""A data set on which a step can be run, and a small run on it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from pocketvit.config import RunConfig, override
from pocketvit.data import Split, Splits
from pocketvit.recipes import recipe

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # `survival`, `launcher`


@pytest.fixture(scope="session")
def synthetic_splits() -> Splits:
    """512 noisy images of CIFAR-10's size in ten classes told apart by brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    images = rng.integers(0, 150, (512, 32, 32, 3)) + labels[:, None, None, None] * 10
    train = Split(images.astype(np.uint8), labels)
    return Splits(train, None, train, tuple("abcdefghij"), "synthetic", ())


@pytest.fixture
def small(synthetic_splits, tmp_path) -> RunConfig:
    """The recipe of the paper on a small model and 512 synthetic images, plain PyTorch and one CUDA graph, repeatable."""
    images, labels = synthetic_splits.train.images, synthetic_splits.train.labels
    source = tmp_path / "made.npz"
    np.savez(source, train_images=images, train_labels=labels, test_images=images[:64], test_labels=labels[:64])
    return override(
        recipe("paper"),
        {
            "out": tmp_path / "run",
            "batch_size": 64,
            "model.width": 64,
            "model.depth": 2,
            "model.num_heads": 4,
            "data.source": str(source),
            "data.cache_dir": tmp_path / "cache",
            "schedule.passes": 3,
            "schedule.warmup_passes": 1,
            "train.device": "cuda",
            "train.compile": False,
            "train.deterministic": True,
        },
    )
