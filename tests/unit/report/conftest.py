"""Made run folders: what training leaves behind, from the digits and a classifier that takes milliseconds."""

import json
from collections.abc import Callable
from math import cos, pi
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

PASSES = 30
CONFIG = """\
schema: 1
recipe: digits
seed: 0
batch_size: 64
model: {width: 64, depth: 6}
data: {source: digits, val_frac: 0.0}
augment: {flip: false}
optim: {lr: 0.002}
schedule: {passes: 30, warmup_passes: 3}
train: {}
"""


def write_metrics(folder: Path, accuracy: float) -> list[dict]:
    """A line per pass, with the shape that training has: loss falls, `accuracy` is approached every fifth pass."""
    lines = []
    for n in range(1, PASSES + 1):
        lr = 2e-3 * min(n / 3, 0.5 + 0.5 * cos(pi * n / PASSES))
        line = {"pass": n, "step": 22 * n, "images": 1408 * n, "train_s": 0.9 * n, "loss": 0.6 + 1.7 * 0.88**n,
                "lr": lr, "images_per_s": 1560.0}  # fmt: skip
        if n % 5 == 0:
            line["test_accuracy"] = accuracy - 0.7 * (0.8**n - 0.8**PASSES)
        lines.append(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return lines


def fake_logits(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (T, 10) and labels of the last 360 images: by the nearest training image of each class."""
    pixels = images.reshape(len(images), -1)
    train, rest = pixels[:-360], pixels[-360:]
    distances = (rest**2).sum(axis=1)[:, None] - 2 * rest @ train.T + (train**2).sum(axis=1)  # (360, 1437)
    nearest = [distances[:, labels[:-360] == k].min(axis=1) for k in range(10)]
    return (-0.01 * np.stack(nearest, axis=1)).astype(np.float32), labels[-360:].astype(np.int64)


def write_samples(folder: Path, images: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> None:
    """32 shifted digits as training images, and the errors of the classifier, highest loss first."""
    rgb = np.repeat((images * 255 / 16).astype(np.uint8)[..., None], 3, axis=-1)
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    worst = wrong[np.argsort(-loss[wrong])][:24]
    np.savez(
        folder / "samples.npz",
        train_images=np.stack([np.roll(image, i % 3 - 1, axis=1) for i, image in enumerate(rgb[:32])]),
        train_captions=np.array([f"{i % 10}" if i % 3 else f"0.7 × {i % 10} + 0.3 × 4" for i in range(32)]),
        error_images=rgb[-360:][worst],
        error_indices=worst,
    )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a complete run folder on the digits; `class_names` and fields of result.json can be replaced."""

    def make(name: str = "run", class_names: list[str] | None = None, **fields) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        digits = load_digits()
        logits, labels = fake_logits(digits.images, digits.target)
        accuracy = float((logits.argmax(axis=1) == labels).mean())
        (folder / "config.yaml").write_text(CONFIG)
        env = {"commit": "0123456789abcdef", "dirty": True, "python": "3.11.9", "torch": "2.10.0", "cuda": None,
               "folder": "runs/digits-000", "code": {}}  # fmt: skip
        (folder / "env.json").write_text(json.dumps(env))
        lines = write_metrics(folder, accuracy)
        np.savez(
            folder / "predictions.npz", logits=logits, labels=labels, indices=np.arange(1437, 1797),
            class_names=np.array(class_names or [str(k) for k in range(10)]),
        )  # fmt: skip
        write_samples(folder, digits.images, logits, labels)
        curve = [
            {"images": line["images"], "train_s": line["train_s"], "accuracy": line["test_accuracy"], "split": "test"}
            for line in lines
            if "test_accuracy" in line
        ]
        result = {
            "test_accuracy": accuracy, "val_accuracy": None, "best_test_accuracy": accuracy, "train_s": 27.0,
            "total_s": 31.5, "images_seen": 42240, "images_per_s": 1564.4, "peak_memory_gib": None,
            "num_params": 203530, "num_gpus": 0, "seed": 0, "config_hash": "5f0c9be2a1d34e77",
            "data_fingerprint": "c0ffee1234567890", "recipe": "digits", "curve": curve,
            "device": "AMD EPYC, 2 cores", "versions": {"pocketvit": "0.1.0", "torch": "2.10.0", "numpy": "2.4.6"},
            "commit": "0123456789abcdef", "command": "pocketvit train --seed 0",
        }  # fmt: skip
        (folder / "result.json").write_text(json.dumps(result | fields))
        return folder

    return make
