"""Check a data set: counts, statistics, and whether it is the real CIFAR-10."""

from dataclasses import dataclass, replace

import numpy as np

from pocketvit.config import DataConfig
from pocketvit.config.checks import describe_size
from pocketvit.data.dataset import Dataset, channel_stats, class_counts, is_cifar10, note_shared
from pocketvit.data.sources import DIGITS, locate, open_dataset
from pocketvit.terminal import NAME, aligned, printable

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LOOKALIKE = "CAUTION: same classes and counts as CIFAR-10, but other pixels or labels"


@dataclass(frozen=True)
class CheckReport:
    """A data set and what it contains."""

    dataset: Dataset
    format: str
    train_counts: tuple[int, ...]
    """Training images of each class."""
    test_counts: tuple[int, ...]
    """Test images of each class."""
    mean: np.ndarray
    """Of each channel of the training images, float64, (3,); 255 counts as 1."""
    std: np.ndarray
    """Standard deviation, likewise."""
    is_cifar10: bool
    """Whether these are exactly the images, labels and splits of CIFAR-10."""
    notes: tuple[str, ...]

    def text(self) -> str:
        """The report as lines to print."""
        dataset, num_train, num_test = self.dataset, len(self.dataset.train), len(self.dataset.test)
        head, *names = aligned(["class", *(printable(name, NAME) for name in dataset.class_names)])
        counts = zip(names, self.train_counts, self.test_counts, strict=True)
        lines = [
            f"{printable(dataset.name, NAME)} ({self.format}): {num_train:,} training and {num_test:,} test images "
            f"of {describe_size(dataset.image_size)} in {dataset.num_classes} classes"
            + (", several for an image" if dataset.train.multilabel else ""),
            f"{head}  {'train':>9}  {'test':>9}",
            *(f"{name}  {train:>9,}  {test:>9,}" for name, train, test in counts),
            "mean of the channels (training, 255 = 1)  " + "  ".join(f"{value:.8f}" for value in self.mean),
            "standard deviation                        " + "  ".join(f"{value:.8f}" for value in self.std),
            f"fingerprint {dataset.fingerprint}{self._verdict()}",
            *map(printable, self.notes),
        ]
        return "\n".join(lines)

    def _verdict(self) -> str:
        """Whether this is CIFAR-10; nothing of images that nobody would take for it."""
        if self.is_cifar10:
            return ": the real CIFAR-10"
        alike = self.dataset.image_size == (32, 32) and self.dataset.num_classes == len(CIFAR10_CLASSES)
        return ": not CIFAR-10" if alike else ""


def check(config: DataConfig) -> CheckReport:
    """Load a data set and count its content.

    Raises:
        InputError: as `load_dataset`.
    """
    kind = "built in" if config.source == DIGITS else locate(config)[1].name
    dataset = open_dataset(config)
    mean, std = channel_stats(dataset.train.images)
    counts = [class_counts(split.labels, dataset.num_classes) for split in (dataset.train, dataset.test)]
    looks_like = dataset.class_names == CIFAR10_CLASSES and bool((np.stack(counts).T == (5_000, 1_000)).all())
    return CheckReport(
        dataset=dataset,
        format=kind,
        train_counts=tuple(counts[0].tolist()),
        test_counts=tuple(counts[1].tolist()),
        mean=mean,
        std=std,
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
