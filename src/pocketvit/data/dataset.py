"""The form of every data set in memory: uint8 RGB pixels, integer labels, class names, a train and a test split.

However a data set was stored, it becomes an array of uint8 pixels (N, H, W, 3) and an array of int64 labels (N,).
Everything else, from augmentation to the report, uses only this form. The pixels may be mapped from a file larger than
memory, so loops over a whole data set work in `pieces`.

The *fingerprint* of a data set depends only on its images and labels: each image is hashed with its size and label, and
the sorted hashes are hashed again. So the official CIFAR-10 archive, the Hub's parquet files and a folder of PNGs with
the same images have the same fingerprint, in whatever order, and `is_cifar10` recognizes the real one.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from pocketvit.config.checks import describe_size
from pocketvit.errors import InputError
from pocketvit.randomness import Stream, permutation

CIFAR10_TRAIN_FINGERPRINT = "76ea728cb49ae2929f6b4265d23f882f"  # the fingerprint of CIFAR-10's 50,000 training images
CIFAR10_TEST_FINGERPRINT = "855849acd53c2be072e324c6751bbb86"  # the fingerprint of CIFAR-10's 10,000 test images
PIECE_BYTES = 2**24  # bytes of pixels per piece


class MappedRows:
    """Selected images of a mapped array, in any order, read only when indexed.

    It replaces an array (N, H, W, 3): it has a shape, and slices and index arrays give arrays.

    Args:
        images: the mapped array, uint8, (M, H, W, 3).
        rows: the selected images, int64, (N,).
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, images: np.ndarray, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows
        self.shape = (len(rows), *images.shape[1:])
        self.size = math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        return self.images[self.rows[index]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.images[row] for row in self.rows)


@dataclass(frozen=True)
class Split:
    """Images with their labels."""

    images: np.ndarray | MappedRows
    """Pixels, uint8, (N, H, W, 3), C-contiguous; from the cache, a `np.memmap` or rows of one."""
    labels: np.ndarray
    """Class numbers, int64, (N,); or, where an image may have several classes, whether it has each, bool, (N, K)."""
    names: np.ndarray | None = None
    """Each image's file or row in its source, as UTF-8, (N,); None for images without a source."""

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[3] != 3:
            raise ValueError(f"images must be uint8 (N, H, W, 3), not {self.images.dtype} {self.images.shape}")
        kind = np.bool_ if self.multilabel else np.int64
        if self.labels.dtype != kind or len(self.labels) != len(self.images) or self.labels.ndim > 2:
            wanted = f"int64 ({len(self.images)},) or bool ({len(self.images)}, K)"
            raise ValueError(f"labels must be {wanted}, not {self.labels.dtype} {self.labels.shape}")
        if self.names is not None and (self.names.dtype.kind != "S" or self.names.shape != (len(self.images),)):
            raise ValueError(f"names must be bytes ({len(self.images)},), not {self.names.dtype} {self.names.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"Split({len(self):,} images of {describe_size(self.images.shape[1:3])})"  # not all of its labels

    @property
    def multilabel(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.labels.ndim == 2

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, the same for every image."""
        return self.images.shape[1], self.images.shape[2]

    def take(self, indices: np.ndarray) -> Self:
        """The images and labels at `indices`, int64, in that order; mapped images stay on disk, others are copied."""
        if isinstance(self.images, MappedRows):
            images = MappedRows(self.images.images, self.images.rows[indices])
        elif isinstance(self.images, np.memmap):
            images = MappedRows(self.images, indices)
        else:
            images = self.images[indices]
        taken = type(self)(images, self.labels[indices], None if self.names is None else self.names[indices])
        if "digests" in vars(self):  # computed already
            vars(taken)["digests"] = self.digests[indices]
        return taken

    @property
    def files(self) -> list[str]:
        """The name of each image: its file or row, or else its position."""
        if self.names is None:
            return [f"image {i}" for i in range(len(self))]
        return [name.decode(errors="replace") for name in self.names.tolist()]

    @cached_property
    def fingerprint(self) -> str:
        """The identity of the images and labels, independent of their order; 32 hex digits."""
        return _digest(np.sort(self.digests).tobytes()).hex()

    @cached_property
    def digests(self) -> np.ndarray:
        """The hash of each image with its size and label, 16 bytes, (N,). Takes about 5 µs per image of 32×32."""
        height, width = self.images.shape[1:3]
        if self.multilabel:
            labels = [np.packbits(row).tobytes() for row in self.labels]
        else:
            labels = [b"%d" % label for label in self.labels.tolist()]
        digests = [
            _digest(b"%d %d %b " % (height, width, label), image.data)
            for image, label in zip(self.images, labels, strict=True)
        ]
        return np.frombuffer(b"".join(digests), dtype="S16")


@dataclass(frozen=True)
class Decoded:
    """The content of files, before a missing test split is held out of the training images."""

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Notes to print: what was decided while reading."""


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """Notes to print: what was decided while reading."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels, the same for every image."""
        return self.train.image_size

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """The identity of train and test, independent of file format and order; 32 hex digits."""
        return _digest(f"{self.train.fingerprint} {self.test.fingerprint}".encode()).hex()


def class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The number of images of each class, int64, (K,); labels as in `Split`."""
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=num_classes)


def note_shared(
    measured: str, digests: np.ndarray, trained_digests: np.ndarray, trained: str = "the training images"
) -> tuple[str, ...]:
    """A note if some evaluation images are training images, else nothing.

    Args:
        measured: name of the evaluation images.
        digests: their `Split.digests`, (N,).
        trained_digests: those of the training images, (M,).
        trained: name of the training images.
    """
    shared = np.count_nonzero(np.isin(digests, trained_digests))
    if not shared:
        return ()
    among = f"{'is' if shared == 1 else 'are'} among {trained}, pixel for pixel and with the same label"
    return (f"{shared:,} of the {len(digests):,} {measured} {among}: on new images the accuracy may be lower",)


def _digest(*parts: bytes | memoryview) -> bytes:
    """The 16-byte BLAKE2b digest of the parts, joined."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        state.update(part)
    return state.digest()


CIFAR10_FINGERPRINT = "cd93b3364ccc49dc3507a6eff642bd1a"  # `Dataset.fingerprint` of the real CIFAR-10


def is_cifar10(dataset: Dataset | Decoded) -> bool:
    """Whether the pixels and labels are those of the real CIFAR-10, split as published."""
    return (
        dataset.test is not None
        and dataset.test.fingerprint == CIFAR10_TEST_FINGERPRINT
        and dataset.train.fingerprint == CIFAR10_TRAIN_FINGERPRINT
    )


def stratified_split(
    labels: np.ndarray, frac: float, seed: int, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out the same fraction of every class, chosen at random; of all images where they may have several classes.

    Args:
        labels: as in `Split`.
        frac: fraction to hold out, in (0, 1). Of a class of n images, round(frac · n) are held out, at least one and
            at most n − 1.
        seed: of the draw.
        class_names: for messages; by default the class numbers.
    Returns:
        the indices kept and the indices held out, each sorted, int64.
    Raises:
        InputError: `frac` is outside (0, 1), or a class has a single image.
    """
    if not 0 < frac < 1:
        raise InputError(f"the fraction to hold out is {frac}: it must be between 0 and 1")
    if labels.ndim == 2:
        labels = np.zeros(len(labels), np.int64)
    sizes = np.bincount(labels)
    if (sizes == 1).any():
        label = int(np.flatnonzero(sizes == 1)[0])
        name = class_names[label] if class_names else label
        raise InputError(f"class {name} has a single image: to hold out images, each class needs at least two")
    held_per_class = np.clip(np.rint(frac * sizes).astype(np.int64), 1, sizes - 1)
    return hold_out(labels, np.where(sizes > 0, held_per_class, 0), seed)


def hold_out(labels: np.ndarray, held_per_class: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a given number of images of each class, (K,), chosen at random.

    Returns:
        the indices kept and the indices held out, each sorted, int64.
    """
    sizes = np.bincount(labels, minlength=len(held_per_class))
    members_by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(sizes)[:-1])
    held = np.zeros(len(labels), dtype=bool)
    for label, (members, count) in enumerate(zip(members_by_class, held_per_class, strict=True)):
        held[members[permutation(seed, Stream.SPLIT, label, len(members))[:count]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


def pieces(images: np.ndarray | MappedRows, num_bytes: int = PIECE_BYTES) -> Iterator[slice]:
    """Consecutive slices over all images (N, H, W, 3), of about `num_bytes` of pixels each."""
    length = max(1, num_bytes * len(images) // images.size)
    return (slice(start, start + length) for start in range(0, len(images), length))


def channel_stats(images: np.ndarray | MappedRows) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel over all pixels, scaled so that 255 is 1.

    The sums are integers, so the result does not depend on the order of the images or on rounding. Takes about a second
    per GiB.

    Args:
        images: pixels, uint8, (N, H, W, 3).
    Returns:
        mean and (population) standard deviation, float64, (3,) each.
    """
    total, squares = [0, 0, 0], [0, 0, 0]
    for piece in pieces(images, 2**18):  # small enough for the processor's cache
        pixels = images[piece].reshape(-1, images.shape[2] * 3).astype(np.uint16)  # (n·H, W·3)
        sums = pixels.sum(axis=0, dtype=np.uint64)
        square_sums = np.square(pixels).sum(axis=0, dtype=np.uint64)  # 255² fits into 16 bits
        for channel in range(3):
            total[channel] += int(sums[channel::3].sum())
            squares[channel] += int(square_sums[channel::3].sum())
    count = images.size // 3
    mean = [t / (255 * count) for t in total]
    std = [math.sqrt(count * s - t * t) / (255 * count) for t, s in zip(total, squares, strict=True)]
    return np.array(mean), np.array(std)
