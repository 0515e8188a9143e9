"""A configuration and images with which every check of the doctor takes a fraction of a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pocketvit.config import RunConfig, override
from pocketvit.recipes import recipe


def arrays(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise of 8 × 8 pixels in three classes told apart by color."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = rng.integers(0, 120, (count, 8, 8, 3))
    pixels[np.arange(count), :, :, labels] += 100
    return pixels.astype(np.uint8), labels


@pytest.fixture
def small(tmp_path) -> Callable[..., RunConfig]:
    """Writes the images, changed by some arrays of the file, and makes a configuration with some fields."""

    def make(changed: dict[str, np.ndarray] | None = None, **fields) -> RunConfig:
        (train_images, train_labels), (test_images, test_labels) = arrays(600, 0), arrays(90, 1)
        held = {"train_images": train_images, "train_labels": train_labels}
        held |= {"test_images": test_images, "test_labels": test_labels} | (changed or {})
        np.savez(tmp_path / "set.npz", **held)
        values = {
            "batch_size": 32, "model.width": 32, "model.depth": 1, "model.num_heads": 2, "schedule.passes": 4,
            "schedule.warmup_passes": 1, "data.source": str(tmp_path / "set.npz"), "train.device": "cpu",
            "data.cache_dir": tmp_path / "cache",
        }  # fmt: skip
        return override(recipe("digits"), values | {name.replace("__", "."): value for name, value in fields.items()})

    return make


@pytest.fixture
def block(tmp_path) -> Callable[[str], str]:
    """Writes a block of the user's own, whose forward ends with a line, and names it as `model.block` does."""

    def write(line: str) -> str:
        file = Path(tmp_path / "mine.py")
        file.write_text(
            "import torch\nfrom torch import nn\n\n\nclass Mine(nn.Module):\n"
            "    def __init__(self, config, rotary):\n        super().__init__()\n"
            "        self.first, self.second = nn.Linear(config.width, config.width), nn.Linear(config.width, config.width)\n\n"
            f"    def forward(self, x, keep=None):\n        {line}\n"
        )
        return f"{file}:Mine"

    return write
