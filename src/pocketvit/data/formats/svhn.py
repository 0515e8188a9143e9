"""Read SVHN's cropped digits as their authors published them: a folder with `train_32x32.mat` and `test_32x32.mat`.

These are files of MATLAB 5 with two arrays: X, uint8 (32, 32, 3, N), and y, (N, 1), where 10 stands for the digit 0. Only
arrays of numbers are read, within bounds; scipy's reader would also make objects, and unpack anything.

Source: http://ufldl.stanford.edu/housenumbers/; MathWorks, "MAT-File Format", version 5
"""

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, one_line
from pocketvit.data.raw_splits import RawSplit, Store, assemble, in_memory
from pocketvit.errors import InputError
from pocketvit.files import MOST_BYTES, read_bytes

_FILES = {split: f"{split}_32x32.mat" for split in ("train", "test")}
_HEAD = 128  # bytes before the first element
_MATRIX, _PACKED = 14, 15
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
"""The types of elements that hold numbers."""
_CLASSES = range(6, 16)  # of arrays: double, single, and integers


def matches(path: Path) -> bool:
    """Whether the path is a folder with the training images."""
    return (path / _FILES["train"]).is_file()


def files(path: Path) -> list[Path]:
    """The files that are read."""
    return [file for name in _FILES.values() if (file := path / name).is_file()]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read both splits.

    Raises:
        InputError: a file is truncated, corrupt, or has other arrays than X and y of these shapes.
    """
    raw = {split: _raw_split(path / name) for split, name in _FILES.items() if (path / name).is_file()}
    return assemble(raw, [str(digit) for digit in range(10)], str(path), config, store)


def _raw_split(file: Path) -> RawSplit:
    arrays = read_mat(file, ("X", "y"))
    for name in ("X", "y"):
        if name not in arrays:
            raise InputError(f"{file} has no array {name}; it is not one of SVHN's cropped digits")
    pixels, labels = arrays["X"], arrays["y"]
    if pixels.ndim != 4 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise InputError(f"{file}: X is {pixels.dtype} {pixels.shape}, not uint8 (height, width, 3, images)")
    if labels.shape != (pixels.shape[3], 1):
        raise InputError(f"{file}: y has the shape {labels.shape}, but there are {pixels.shape[3]:,} images")
    if not ((labels >= 1) & (labels <= 10) & (labels == np.floor(labels))).all():
        raise InputError(f"{file}: y holds other labels than 1 to 10")
    images = map(np.ascontiguousarray, pixels.transpose(3, 0, 1, 2))  # (H, W, C, N) -> (N, H, W, C)
    return RawSplit(labels[:, 0].astype(np.int64) % 10, images, lambda i: f"{file}, image {i}")


def read_mat(file: Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Some arrays of numbers in a file of MATLAB 5, by name.

    Raises:
        InputError: it is truncated, corrupt, too large, or not such a file.
    """
    try:
        content = read_bytes(file)
        order = {b"IM": "<", b"MI": ">"}.get(content[_HEAD - 2 : _HEAD])
        if order is None:
            raise ValueError("it has not the head of a file of MATLAB 5")
        arrays = {}
        for kind, data in _elements(memoryview(content)[_HEAD:], order):
            if kind == _PACKED:
                unpacker = zlib.decompressobj()
                unpacked = unpacker.decompress(data, MOST_BYTES + 1)
                if len(unpacked) > MOST_BYTES:
                    raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes")
                ((kind, data),) = _elements(memoryview(unpacked), order)
            if kind == _MATRIX and (found := _array(data, order, wanted)):
                arrays[found[0]] = found[1]
    except (OSError, ValueError, zlib.error) as error:
        raise InputError(f"{file} is truncated or corrupt: {one_line(error)}") from error
    return arrays


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The elements in some bytes: the type and the content of each."""
    while len(data):
        if len(data) < 8:
            raise ValueError("it ends within the head of an element")
        kind, size = np.frombuffer(data[:8], f"{order}u4").tolist()
        start = 8
        if kind >> 16:  # a small element, whose content is in the second half of its head
            kind, size, start = kind & 0xFFFF, kind >> 16, 4
        if start + size > (8 if start == 4 else len(data)):
            raise ValueError(f"an element claims {size:,} bytes, more than there are")
        yield kind, data[start : start + size]
        end = start + size
        data = data[end if kind == _PACKED else -(-end // 8) * 8 :]  # others are filled up to a multiple of 8


def _array(data: memoryview, order: str, wanted: tuple[str, ...]) -> tuple[str, np.ndarray] | None:
    """The name and the values of an array; None for one that is not wanted.

    Raises:
        ValueError: it is not one of real numbers, or its shape does not fit its content.
    """
    (_, flags), (_, shape), (_, name), *rest = _elements(data, order)
    label = bytes(name).decode("latin1")
    if label not in wanted:
        return None
    (kind, values), *imaginary = rest
    array_class = int(np.frombuffer(flags[:4], f"{order}u4")[0]) & 0xFF
    if array_class not in _CLASSES or kind not in _NUMBERS or imaginary:
        raise ValueError(f"its array {label!r:.20} does not hold real numbers")
    numbers = np.frombuffer(values, order + _NUMBERS[kind])
    return label, numbers.reshape(np.frombuffer(shape, f"{order}i4").tolist(), order="F")
