"""Check a data set: counts, statistics, and whether it is the real CIFAR-10."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pocketvit.config.checks import describe_size
from pocketvit.data.dataset import Dataset, channel_stats, class_counts, is_cifar10, note_shared
from pocketvit.data.fetch.paths import data_home
from pocketvit.data.sources import DIGITS, format_of, load_dataset, locate
from pocketvit.terminal import NAME, aligned, printable

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LOOKALIKE = "CAUTION: same classes and counts as CIFAR-10, but other pixels or labels"


@dataclass(frozen=True)
class CheckReport:
    """The content of a data set."""

    name: str
    format: str
    num_train: int
    num_test: int
    image_size: tuple[int, int]
    """Height and width in pixels."""
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    """Training images of each class."""
    test_counts: tuple[int, ...]
    """Test images of each class."""
    mean: tuple[float, float, float]
    """Mean of each channel of the training images; 255 counts as 1."""
    std: tuple[float, float, float]
    """Standard deviation of each channel of the training images; 255 counts as 1."""
    fingerprint: str
    multilabel: bool
    """Whether an image may have several classes."""
    is_cifar10: bool
    """Whether these are exactly the images, labels and splits of CIFAR-10."""
    notes: tuple[str, ...]

    def text(self) -> str:
        """The report as lines to print."""
        head, *names = aligned(["class", *(printable(name, NAME) for name in self.class_names)])
        counts = zip(names, self.train_counts, self.test_counts, strict=True)
        lines = [
            f"{printable(self.name, NAME)} ({self.format}): {self.num_train:,} training and {self.num_test:,} test images "
            f"of {describe_size(self.image_size)} in {len(self.class_names)} classes"
            + (", several for an image" if self.multilabel else ""),
            f"{head}  {'train':>9}  {'test':>9}",
            *(f"{name}  {train:>9,}  {test:>9,}" for name, train, test in counts),
            "mean of the channels (training, 255 = 1)  " + "  ".join(f"{value:.8f}" for value in self.mean),
            "standard deviation                        " + "  ".join(f"{value:.8f}" for value in self.std),
            f"fingerprint {self.fingerprint}: {'the real CIFAR-10' if self.is_cifar10 else 'not CIFAR-10'}",
            *map(printable, self.notes),
        ]
        return "\n".join(lines)


def check(source: str | Path, **options: Any) -> CheckReport:
    """Load a data set and count its content; the arguments are those of `load_dataset`.

    Raises:
        InputError: as `load_dataset`.
    """
    path = None if source == DIGITS else locate(source, options.get("cache_dir") or data_home())
    kind = "built in" if path is None else format_of(path, options.get("format")).name
    dataset = load_dataset(source, **options)
    mean, std = channel_stats(dataset.train.images)
    counts = [class_counts(split.labels, dataset.num_classes) for split in (dataset.train, dataset.test)]
    looks_like = dataset.class_names == CIFAR10_CLASSES and bool((np.stack(counts).T == (5_000, 1_000)).all())
    return CheckReport(
        name=dataset.name,
        format=kind,
        num_train=len(dataset.train),
        num_test=len(dataset.test),
        image_size=dataset.image_size,
        class_names=dataset.class_names,
        train_counts=tuple(counts[0].tolist()),
        test_counts=tuple(counts[1].tolist()),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        fingerprint=dataset.fingerprint,
        multilabel=dataset.train.multilabel,
        is_cifar10=is_cifar10(dataset),
        notes=(
            *dataset.notes,
            *note_shared("test images", dataset.test.digests, dataset.train.digests),
            *_note_relabeled(dataset),
            *([LOOKALIKE] if looks_like and not is_cifar10(dataset) else []),
        ),
    )


def _note_relabeled(dataset: Dataset) -> list[str]:
    """A line if some test images are training images but for their label."""
    pixels = [replace(split, labels=np.zeros_like(split.labels)).digests for split in (dataset.test, dataset.train)]
    number = np.count_nonzero(np.isin(pixels[0], pixels[1]) & ~np.isin(dataset.test.digests, dataset.train.digests))
    verb = "is" if number == 1 else "are"
    line = f"{number:,} of the {len(dataset.test):,} test images {verb} among the training images with another label"
    return [line] if number else []
