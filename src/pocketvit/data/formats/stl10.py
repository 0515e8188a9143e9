"""Read STL-10 as its authors published it: a folder with `train_X.bin`, `train_y.bin`, `test_X.bin` and `test_y.bin`.

Images are 96 × 96 pixels, each color column by column; labels count from 1. The folder may be the one named `stl10_binary`
or hold it. The unlabeled images are not read.

Source: https://cs.stanford.edu/~acoates/stl10/
"""

from pathlib import Path

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN
from pocketvit.data.raw_splits import CLASS_NAMES, RawSplit, Store, assemble, class_names_beside, in_memory
from pocketvit.errors import InputError
from pocketvit.files import read_bytes

SIDE = 96
_FOLDER = "stl10_binary"
_SPLITS = ("train", "test")


def matches(path: Path) -> bool:
    """Whether the path is such a folder, or holds it."""
    return (_place(path) / "train_X.bin").is_file()


def files(path: Path) -> list[Path]:
    """The files that are read."""
    names = [f"{split}_{part}.bin" for split in _SPLITS for part in "Xy"]
    return [file for name in (*names, CLASS_NAMES) if (file := _place(path) / name).is_file()]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read both splits.

    Raises:
        InputError: a file is missing, too large, or not whole images.
    """
    place = _place(path)
    raw = {split: _raw_split(place, split) for split in _SPLITS}
    return assemble(raw, class_names_beside(place), str(path), config, store)


def _place(path: Path) -> Path:
    return path / _FOLDER if (path / _FOLDER).is_dir() else path


def _raw_split(place: Path, split: str) -> RawSplit:
    images, labels = place / f"{split}_X.bin", place / f"{split}_y.bin"
    try:
        pixels, numbers = (np.frombuffer(read_bytes(file), np.uint8) for file in (images, labels))
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read: {error.strerror}") from error
    if len(pixels) != len(numbers) * 3 * SIDE**2:
        wanted = f"{len(numbers):,} images of {SIDE} × {SIDE} pixels, as many as {labels.name} has labels"
        raise InputError(f"{images} has {len(pixels):,} bytes, not {wanted}")
    pixels = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 3, 2, 1)  # (N, C, W, H) -> (N, H, W, C)
    where, where_label = lambda i: f"{images}, image {i}", lambda i: f"{labels}, label {i}"
    return RawSplit(numbers.astype(np.int64) - 1, map(np.ascontiguousarray, pixels), where, where_label=where_label)
