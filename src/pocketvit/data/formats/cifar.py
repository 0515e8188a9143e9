"""Read CIFAR-10 and CIFAR-100 as their author published them: pickled batches, in a .tar.gz or unpacked.

Loading a pickle can run any code. So the batches are read by an unpickler that only knows the few names that rebuild a
NumPy array. Each stands for a function of our own, because NumPy's functions would make arrays of objects out of any
bytes, which is as good as running code. Only arrays of integers and booleans are made.

Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import functools
import gzip
import io
import itertools
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, one_line
from pocketvit.data.raw_splits import RawSplit, Store, assemble, in_memory, name_row
from pocketvit.data.unpickler import RestrictedUnpickler
from pocketvit.errors import InputError
from pocketvit.files import MOST_BYTES, read_bytes


@dataclass(frozen=True)
class _Layout:
    """The layout of one of the two data sets."""

    unpacked: str
    """The folder in the archive."""
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    label: str
    """As in the Hub's files; here the keys are `labels` in batches and `label_names` in the meta file."""

    @property
    def names(self) -> tuple[str, ...]:
        """All files that are needed."""
        return (*self.train, *self.test, self.meta)


_CIFAR10 = _Layout(
    unpacked="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    meta="batches.meta",
    label="label",
)
_CIFAR100 = _Layout(
    unpacked="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test=("test",),
    meta="meta",
    label="fine_label",
)
_LAYOUTS = (_CIFAR10, _CIFAR100)

_NUMBERS = re.compile(r"[biu][1248]")
"""The allowed types of arrays, as NumPy writes them into a pickle: booleans and integers with their bytes."""


class _Type:
    """Replaces `numpy.dtype`, which could hold objects: only booleans and integers."""

    def __init__(self, name: object) -> None:
        name = name.decode("latin1") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not _NUMBERS.fullmatch(name):
            kind = repr(name) if isinstance(name, str) else type(name).__name__  # the repr of lists may never end
            raise InputError(
                f"its pickle holds an array of {kind}, but only integers and booleans are allowed: refused"
            )
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take the byte order, the only relevant part of the state."""
        _, order, *composition, _, _, _ = state
        if composition != [None, None, None]:
            raise InputError(
                "its pickle holds an array with fields, but only integers and booleans are allowed: refused"
            )
        text: Any = order.decode("latin1") if isinstance(order, bytes) else order
        self.dtype = self.dtype.newbyteorder(text)


class _Array:
    """Replaces `numpy.ndarray`, which would accept any shape: one that fits its bytes."""

    def __init__(self) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Take shape, type and content."""
        _, shape, kind, fortran, content = state
        if not isinstance(kind, _Type) or not isinstance(content, bytes):
            raise InputError("its pickle holds an array of more than integers and booleans: refused")
        self.array = np.frombuffer(content, kind.dtype).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    """Replaces NumPy's function of that name: always an empty array, whose state comes next."""
    return _Array()


def _ndarray(*_: object) -> None:
    """Replaces `numpy.ndarray`, which a pickle names as the class to make but never calls."""
    raise InputError("its pickle calls numpy.ndarray: refused")


def _dtype(name: object, *_: object) -> _Type:
    """Replaces `numpy.dtype`."""
    return _Type(name)


def _latin1(text: object, encoding: object) -> bytes:
    """Replaces `_codecs.encode`, which could use any codec: only bytes, as Python 3 writes them at protocols 0 to 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise InputError("its pickle asks for _codecs.encode on more than Latin-1 text: refused")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # as NumPy 1 wrote it, so also in the official archives
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # as NumPy 2 writes it
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _dtype,
}


class ArrayUnpickler(RestrictedUnpickler):
    """Unpickles plain values, bytes and NumPy arrays."""

    wanted = "NumPy arrays"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # The same text makes the same bytes, or a short pickle that encodes a long text again and again fills the memory.
        self.stand_ins = _STAND_INS | {("_codecs", "encode"): functools.cache(_latin1)}


def matches(path: Path) -> bool:
    """Whether the path is a tar archive, a folder of CIFAR batches, or a folder with one of these."""
    return path.name.endswith((".tar.gz", ".tgz", ".tar")) if path.is_file() else bool(_places(path))


def files(path: Path) -> list[Path]:
    """The files that are read."""
    place = _place(path)
    if place.is_file():
        return [place]
    return [place / name for layout in _LAYOUTS for name in layout.names if (place / name).is_file()]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read both splits.

    Raises:
        InputError: a file is missing, truncated, corrupt, or contains anything but arrays and plain values.
    """
    place = _place(path)
    batches = {name: _unpickle(content, f"{place}, {name}") for name, content in _contents(place)}
    layout = next((layout for layout in _LAYOUTS if not batches.keys().isdisjoint(layout.names)), None)
    if layout is None:
        raise InputError(f"{place} contains no CIFAR batches")
    missing = [name for name in layout.names if name not in batches]
    if missing:
        raise InputError(f"{place} is not a complete CIFAR data set: {missing[0]} is missing")

    label = layout.label if config.label_column is None else config.label_column.removesuffix("s")
    meta = _field(batches[layout.meta], f"{label}_names", f"{place}, {layout.meta}")
    if not isinstance(meta, list) or not all(isinstance(name, bytes | str) for name in meta):
        raise InputError(f"{place}, {layout.meta}: its {label}_names are not a list of names")
    class_names = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in meta]
    raw = {
        split: _raw_split({f"{place}, {name}": batches[name] for name in names}, f"{label}s")
        for split, names in (("train", layout.train), ("test", layout.test))
    }
    return assemble(raw, class_names, str(place), config, store)


def _places(path: Path) -> list[Path]:
    """The places at or below the folder `path` of each of the two data sets."""
    places = []
    for layout in _LAYOUTS:
        for folder in (path, path / layout.unpacked):
            if any((folder / name).is_file() for name in layout.names):
                places.append(folder)
                break
        else:
            if (path / layout.archive).is_file():
                places.append(path / layout.archive)
    return places


def _place(path: Path) -> Path:
    """The archive, or the folder of batches, to read."""
    if path.is_file():
        return path
    places = _places(path)
    if len(places) > 1:
        raise InputError(f"{path} contains both {places[0].name} and {places[1].name}: name the one to use")
    return places[0]


def _contents(place: Path) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of each batch in an archive or folder."""
    if place.is_dir():
        for file in files(place):
            try:
                yield file.name, read_bytes(file)
            except OSError as error:
                raise InputError(f"{file} cannot be read: {error.strerror}") from error
        return
    known = {name for layout in _LAYOUTS for name in layout.names}
    with place.open("rb") as raw:
        try:
            packed = raw.read(2) == b"\x1f\x8b"  # the first bytes of every gzip file
            raw.seek(0)
            file = gzip.GzipFile(fileobj=raw) if packed else raw
            content = file.read(MOST_BYTES + 1)  # with the checksum at its end
            if len(content) <= MOST_BYTES:
                with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
                    for member in archive:
                        name = PurePosixPath(member.name).name
                        listed = name in known and member.isfile() and not member.issparse()
                        if listed and (file := archive.extractfile(member)):
                            yield name, file.read()
        # A broken archive raises ReadError, EOFError, zlib.error or OSError, depending on where it is broken.
        except Exception as error:
            size = place.stat().st_size
            raise InputError(
                f"{place} is truncated or corrupt at byte {raw.tell():,} of {size:,}: {one_line(error)}"
            ) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{place} unpacks to more than {MOST_BYTES:,} bytes: it is not a CIFAR data set")


def _unpickle(content: bytes, where: str) -> object:
    stream = io.BytesIO(content)
    try:
        # The official pickles come from Python 2, whose strings are bytes.
        return ArrayUnpickler(stream, encoding="bytes").load()
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    # Broken pickles raise UnpicklingError, EOFError, ValueError, TypeError and more.
    except Exception as error:
        raise InputError(
            f"{where} is truncated or corrupt near byte {stream.tell():,} of {len(content):,}: {one_line(error)}"
        ) from error


def _field(batch: object, key: str, where: str) -> object:
    """The entry `key` of an unpickled batch, whose keys are strings or, from Python 2, bytes."""
    for form in (key, key.encode()):
        if isinstance(batch, Mapping) and form in batch:
            value = batch[form]
            return value.array if isinstance(value, _Array) else value
    raise InputError(f"{where} has no entry {key!r}")


def _raw_split(batches: Mapping[str, object], labels_key: str) -> RawSplit:
    """The images and labels of several unpickled batches, by their names in messages."""
    images, labels, rows = [], [], []
    for where, batch in batches.items():
        pixels = _field(batch, "data", where)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
            raise InputError(f"{where}: its data is not uint8 pixels of 32 × 32 color images")
        listed = _field(batch, labels_key, where)
        if not isinstance(listed, np.ndarray) and not (
            isinstance(listed, list) and {type(label) for label in listed} <= {int}
        ):
            raise InputError(f"{where}: its {labels_key} are not a list of integers")
        batch_labels = np.asarray(listed)
        if batch_labels.shape != pixels.shape[:1]:
            raise InputError(f"{where}: {len(pixels)} images but labels of shape {batch_labels.shape}")
        pixels = pixels.reshape(-1, 3, 32, 32)  # (N, C·H·W) -> (N, C, H, W)
        images.append(pixels.transpose(0, 2, 3, 1))  # (N, C, H, W) -> (N, H, W, C)
        labels.append(batch_labels)
        rows.append((where, len(pixels)))
    return RawSplit(np.concatenate(labels), itertools.chain.from_iterable(images), lambda i: name_row(rows, i))
