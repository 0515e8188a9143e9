"""Read NumPy `.npz` files.

The arrays are found by name, in the first of these forms that fits:

- `train_images`, `train_labels` and optionally `test_images`, `test_labels` or `val_images`, `val_labels`;
- `x_train`, `y_train` and optionally `x_test`, `y_test` (Keras);
- `images`, `labels`, without splits.

`class_names` may have the names of the classes, text, (K,). Images are (N, H, W) or (N, H, W, C) with C = 1, 3 or 4, as
uint8, uint16 (only gray, scaled to 8 bits) or bool (0 and 255); labels are integers or class names, (N,) or (N, 1).
For other arrays, a note says that they are ignored.
"""

import zipfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import (
    GREY,
    PLAIN,
    Conversions,
    alpha_to_rgb,
    channels_last_remedy,
    grey16_to_rgb,
    one_line,
    uint8_remedy,
)
from pocketvit.data.raw_splits import RawSplit, Store, assemble, in_memory, note_left_aside
from pocketvit.errors import InputError
from pocketvit.files import read_arrays

_FORMS = (
    {split: (f"{split}_images", f"{split}_labels") for split in ("train", "test", "val")},
    {split: (f"x_{split}", f"y_{split}") for split in ("train", "test", "val")},
    {"train": ("images", "labels")},
)
"""From each split to the names of its arrays."""


def matches(path: Path) -> bool:
    """Whether the path is an `.npz` file."""
    return path.suffix == ".npz" and path.is_file()


def files(path: Path) -> list[Path]:
    """The files that are read."""
    return [path]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read all splits.

    Raises:
        InputError: truncated, corrupt, without the arrays named above, with only images or only labels, with invalid
            class names, or with pickled objects.
    """
    return decode(_load(path), str(path), config, store)


def decode(
    arrays: Mapping[str, np.ndarray], name: str, config: DataConfig = PLAIN, store: Store = in_memory
) -> Decoded:
    """The data set in some arrays by name.

    Raises:
        InputError: without the arrays named above, with only images or only labels, or with invalid class names.
    """
    form = _form_of(arrays)
    if not form:
        raise InputError(
            f"{name} contains the arrays {', '.join(map(str, arrays)) or '(none)'}: "
            "expected train_images and train_labels, x_train and y_train, or images and labels"
        )
    for pair in form.values():
        there = [each for each in pair if each in arrays]
        if len(there) == 1:
            (missing,) = set(pair) - set(there)
            raise InputError(f"{name} contains {there[0]} but no {missing}: add {missing}, or remove {there[0]}")
    raw = {split: _raw_split(arrays, name, *pair, config) for split, pair in form.items() if pair[0] in arrays}
    decoded = assemble(raw, _class_names(arrays.get("class_names"), name), name, config, store)
    aside = [each for each in arrays if each not in {"class_names"}.union(*form.values())]
    return note_left_aside(decoded, f"not part of a data set with {' and '.join(form['train'])}", aside, "array")


def _form_of(names: Collection[str]) -> Mapping[str, tuple[str, str]]:
    """The first form that fits the names of some arrays; empty if none does."""
    return next((form for form in _FORMS if set(names) >= set(form["train"])), {})


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the data set by name, and None for every other."""
    try:
        with open(path, "rb") as file:
            if file.read(2) != b"PK":  # the first bytes of every zip archive
                raise InputError(f"{path} is not an .npz file; write one with numpy.savez, from arrays without objects")
        return read_arrays(path, lambda names: {"class_names"}.union(*_form_of(names).values()))
    except InputError:
        raise
    # A broken file raises BadZipFile, ValueError, EOFError, zlib.error or OSError, depending on where it is broken.
    except Exception as error:
        if path.is_file() and not zipfile.is_zipfile(path):  # it lacks the table that ends every zip archive
            why = f"is truncated: it ends at byte {path.stat().st_size:,}; copy or write it again"
            raise InputError(f"{path} {why}") from error
        raise InputError(f"{path} is corrupt or contains pickled objects: {one_line(error)}") from error


def _class_names(names: np.ndarray | None, where: str) -> list[str] | None:
    """The names of the classes in the array `class_names`, (K,); None if there is none.

    Raises:
        InputError: they are not text, or not one per class.
    """
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise InputError(f"{where}: class_names is {names.dtype} {names.shape}: save one text for each class, (K,)")
    return [name.decode(errors="replace") if isinstance(name, bytes) else name for name in names.tolist()]


def _raw_split(
    arrays: Mapping[str, np.ndarray], where: str, images_name: str, labels_name: str, config: DataConfig
) -> RawSplit:
    images, labels = arrays[images_name], arrays[labels_name]
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras and MedMNIST keep them
        labels = labels[:, 0]
    if labels.ndim != 1 or images.shape[:1] != labels.shape:
        raise InputError(f"{where}: {images_name} is {images.shape} but {labels_name} is {labels.shape}")
    converted = Conversions()
    rgb = rgb_images(images, where, images_name, converted, config)
    image_name, label_name = f"{where}, {images_name}", f"{where}, {labels_name}"
    return RawSplit(labels, rgb, lambda i: f"{image_name}[{i}]", converted, lambda i: f"{label_name}[{i}]")


def rgb_images(
    images: np.ndarray, where: str, name: str, converted: Conversions, config: DataConfig
) -> Iterator[np.ndarray]:
    """The images of an array `name` in `where` as uint8 RGB, (H, W, 3) each.

    Raises:
        InputError: it does not contain images of the shapes and types named above.
    """
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or images.ndim == 4 and images.shape[3] not in (3, 4) or 0 in images.shape[1:]:
        what = f"{name} is {images.shape}, not (N, H, W) or (N, H, W, C) with C = 1, 3 or 4"
        channels_first = images.ndim == 4 and images.shape[1] in (1, 3, 4)
        how = f"; {channels_last_remedy(name)}" if channels_first else ""
        raise InputError(f"{where}: {what}{how}")
    if images.dtype not in (np.uint8, np.bool_) and not (images.dtype == np.uint16 and images.ndim == 3):
        expected = "expected uint8, bool, or uint16 gray"
        raise InputError(f"{where}: {name} is {images.dtype}: {expected}; {uint8_remedy(images, name)}")
    return (_to_rgb(image, converted, config) for image in images)


def _to_rgb(image: np.ndarray, converted: Conversions, config: DataConfig) -> np.ndarray:
    """One image, (H, W), (H, W, 3) or (H, W, 4), as uint8 RGB, (H, W, 3)."""
    if image.dtype == np.uint16:
        return grey16_to_rgb(image, converted, config)
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    if image.ndim == 2:
        converted[GREY] += 1
        return np.repeat(image[..., None], 3, axis=-1)
    if image.shape[2] == 4:
        return alpha_to_rgb(image, converted, config)
    return image
