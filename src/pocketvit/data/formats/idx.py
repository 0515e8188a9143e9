"""Read MNIST and its relatives: a folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, packed (.gz) or not.

The test images are in `t10k-…` or `test-…`. The files of EMNIST begin with the name of one of its sets, such as
`emnist-balanced-`; their images are transposed, and their classes known. Elsewhere classes have the names in a file
`class_names.txt`, one a line, or else their numbers.

Source: the end of http://yann.lecun.com/exdb/mnist/ (the IDX file format)
"""

import gzip
import re
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.formats.npz import rgb_images
from pocketvit.data.pixels import PLAIN, Conversions, one_line
from pocketvit.data.raw_splits import CLASS_NAMES, RawSplit, Store, assemble, class_names_beside, in_memory
from pocketvit.errors import InputError
from pocketvit.files import MOST_BYTES, regular_size

_NAME = re.compile(r"(?P<set>(.*-)?)(?P<split>train|t10k|test)-(?P<part>images|labels)[-.]idx[13]-ubyte(\.gz)?")
_MAGIC = {"images": (b"\0\0\x08\x03", 3), "labels": (b"\0\0\x08\x01", 1)}
"""The first bytes of each part, which stand for unsigned bytes and the number of axes, and that number."""
_MOST_PACKED = 1032  # times that deflate makes anything smaller, at most
_MERGED = digits + ascii_uppercase + "abdefghnqrt"
_EMNIST = {
    **dict.fromkeys(("emnist-balanced-", "emnist-bymerge-"), _MERGED),
    "emnist-byclass-": digits + ascii_uppercase + ascii_lowercase,
    "emnist-letters-": ascii_lowercase,
    **dict.fromkeys(("emnist-digits-", "emnist-mnist-"), digits),
}
"""The classes of EMNIST's sets, in order."""
_INNER = ("gzip", "raw")
"""Folders that they are in, in EMNIST's archive and as torchvision keeps them."""
_FROM_ONE = "emnist-letters-"
"""The set that numbers its classes from 1."""


def matches(path: Path) -> bool:
    """Whether the path is a folder with such training images."""
    return path.is_dir() and any(("train", "images") == (m["split"], m["part"]) for m, _ in _found(path))


def files(path: Path) -> list[Path]:
    """The files that are read."""
    found = [file for _, file in _found(path)]
    names = found[0].with_name(CLASS_NAMES)
    return [*found, *([names] if names.is_file() else [])]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read both splits.

    Raises:
        InputError: a file is missing, truncated, corrupt, or not what its head says.
    """
    parts: dict[str, dict[tuple[str, str], Path]] = {}
    for match, file in _found(path):
        split = "train" if match["split"] == "train" else "test"
        parts.setdefault(match["set"], {})[split, match["part"]] = file
    if len(parts) > 1:
        raise InputError(
            f"{path} holds several sets: {', '.join(name or 'mnist' for name in parts)}; keep one in a folder"
        )
    ((name, held),) = parts.items()
    for split, part in held:
        other = {"images": "labels", "labels": "images"}[part]
        if (split, other) not in held:
            raise InputError(f"{held[split, part]} has no {other} beside it; copy those of the {split} split there too")
    raw = {}
    for split in dict.fromkeys(split for split, _ in held):
        raw[split] = _raw_split(held[split, "images"], held[split, "labels"], name, config)
    images = held["train", "images"]
    class_names = [*_EMNIST[name]] if name in _EMNIST else class_names_beside(images.parent)
    return assemble(raw, class_names, str(path), config, store)


def _found(path: Path) -> list[tuple[re.Match, Path]]:
    """The files of such a folder, or of one of `_INNER` in it; of a packed and an unpacked one, the unpacked one."""
    found: dict[str, tuple[re.Match, Path]] = {}
    place = next((path / name for name in _INNER if (path / name).is_dir()), path)
    for file in sorted(place.iterdir(), reverse=True):
        if (match := _NAME.fullmatch(file.name)) and file.is_file():
            found[file.name.removesuffix(".gz")] = match, file
    return list(found.values())


def _raw_split(images: Path, labels: Path, name: str, config: DataConfig) -> RawSplit:
    pixels, numbers = read_idx(images, "images"), read_idx(labels, "labels").astype(np.int64)
    if len(pixels) != len(numbers):
        raise InputError(f"{images} has {len(pixels):,} images, but {labels} {len(numbers):,} labels")
    if name.startswith("emnist-"):
        pixels = pixels.transpose(0, 2, 1)
    if name == _FROM_ONE:
        numbers -= 1
    converted = Conversions()
    rgb = rgb_images(pixels, str(images), "images", converted, config)
    return RawSplit(numbers, rgb, lambda i: f"{images}, image {i}", converted, lambda i: f"{labels}, label {i}")


def read_idx(file: Path, part: str) -> np.ndarray:
    """The array in a file, uint8, of one axis (labels) or three (images).

    Raises:
        InputError: it is truncated, corrupt, too large, or not such a file.
    """
    magic, axes = _MAGIC[part]
    try:
        size = regular_size(file)
        with file.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"  # the first bytes of every gzip file
            raw.seek(0)
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            head = stream.read(4 + 4 * axes)
            if head[:4] != magic or len(head) < 4 + 4 * axes:
                raise InputError(
                    f"{file} is not an IDX file of {part}: it begins with {head[:4].hex(' ') or 'nothing'}"
                )
            shape = [int.from_bytes(head[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
            count = int(np.prod([*map(float, shape)]))  # as floats, or a product could wrap around
            if count > MOST_BYTES or count > size * (_MOST_PACKED if packed else 1):  # before any memory is taken
                raise InputError(f"{file} claims {count:,} bytes, and has {size:,}{' when packed' if packed else ''}")
            content = stream.read(count + 1)
    except InputError:
        raise
    except Exception as error:  # BadGzipFile, EOFError, zlib.error or OSError, depending on where it is broken
        raise InputError(f"{file} is truncated or corrupt: {one_line(error)}") from error
    if len(content) != count:
        raise InputError(f"{file} is not as long as its head says: {count:,} bytes for {' × '.join(map(str, shape))}")
    return np.frombuffer(content, np.uint8).reshape(shape)
