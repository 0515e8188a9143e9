"""A data set on which a step can be run."""

import numpy as np
import pytest

from pocketvit.data import Split, Splits


@pytest.fixture(scope="session")
def made_splits() -> Splits:
    """512 noisy images of CIFAR-10's size in ten classes told apart by brightness."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    images = rng.integers(0, 150, (512, 32, 32, 3)) + labels[:, None, None, None] * 10
    train = Split(images.astype(np.uint8), labels)
    return Splits(train, None, train, tuple("abcdefghij"), "made", ())
