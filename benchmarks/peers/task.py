"""What all peers train: the images, the model's shape and the settings, the same for each.

`Task.write` puts them into a folder, `Task.read` takes them from there without importing PocketViT.
"""

import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = "PEERS_TASK"  # the environment variable that names the folder


@dataclass(frozen=True)
class Task:
    """Images (N, H, W, 3) in bytes with their labels, a vision transformer's shape, and how to train it."""

    recipe: str
    """PocketViT's recipe that all settings come from."""
    source: str
    """Where PocketViT reads the same images."""
    device: str
    num_workers: int
    """Processes that load images, where a peer has such."""
    side: int
    """Pixels a side of the images."""
    num_classes: int
    mean: list[float]
    """Of the training images' channels, 0 to 1."""
    std: list[float]
    patch_size: int
    width: int
    depth: int
    num_heads: int
    hidden: int
    """Channels of the MLP's hidden layer."""
    drop_path: float
    batch_size: int
    passes: int
    warmup: float
    """Fraction of the steps in which the learning rate rises."""
    lr: float
    weight_decay: float
    label_smoothing: float
    flip: float
    crop_pad: int
    autoaugment: bool
    """Whether images go through AutoAugment's policy for CIFAR-10."""
    erase: float
    mix: float
    """Probability that a batch is mixed, half of the time by CutMix, half by MixUp."""

    @classmethod
    def read(cls) -> "Task":
        """The task in the folder that the environment names."""
        return cls(**json.loads((Path(os.environ[FOLDER]) / "task.json").read_text()))

    def write(self, folder: Path, arrays: dict[str, np.ndarray]) -> None:
        """Write the settings and the arrays train_images, train_labels, test_images and test_labels."""
        (folder / "task.json").write_text(json.dumps(asdict(self)))
        np.savez(folder / "data.npz", **arrays)  # type: ignore[arg-type]

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """The images and labels."""
        return dict(np.load(Path(os.environ[FOLDER]) / "data.npz"))

    @property
    def steps_per_pass(self) -> int:
        """Whole batches in a pass."""
        return len(self.arrays["train_labels"]) // self.batch_size

    @property
    def gpu(self) -> bool:
        """Whether to train on a GPU: there, every peer runs in bf16 and through torch.compile."""
        return self.device == "cuda"

    def autocast(self) -> torch.autocast:
        """bf16 on a GPU, float32 on a CPU."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.gpu)
