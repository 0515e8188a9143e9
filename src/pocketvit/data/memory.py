"""Data sets in memory: arrays or PyTorch data sets, with the same checks as files."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from PIL import Image

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Dataset
from pocketvit.data.formats import npz
from pocketvit.data.pixels import PLAIN, Conversions, one_line, to_rgb
from pocketvit.data.raw_splits import RawSplit, assemble
from pocketvit.data.sources import finish
from pocketvit.errors import InputError

NAME = "data"  # the name of such a data set in messages, that of the argument

FORMS = (
    "give (images, labels), (train_images, train_labels, test_images, test_labels), a mapping of arrays named as in an "
    ".npz file, a PyTorch data set of (image, label), or two of them, the second to test on"
)


class Array(Protocol):
    """A NumPy array as in an .npz file (`formats/npz.py`), or a tensor with channels first."""

    @property
    def shape(self) -> tuple[int, ...]: ...


class Examples(Protocol):
    """Pairs of image and label by index: a map-style PyTorch data set, or a list. Each is read once.

    The image is a Pillow image or an `Array`, not converted to floats by a transform.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


Arrays: TypeAlias = Array | Sequence[int | str]
Data: TypeAlias = Dataset | Mapping[str, Arrays] | tuple[Arrays, ...] | Examples | tuple[Examples, Examples]
"""What `train` and `evaluate` take, see `FORMS`."""


def load_from_memory(
    data: Data, config: DataConfig = PLAIN, *, test_frac: float | None = None, class_names: Sequence[str] | None = None
) -> Dataset:
    """Make a data set of images in memory, which are copied; a loaded `Dataset` is returned as it is.

    Args:
        data: the images and labels.
        config: how to read and split them.
        test_frac: as for `load_dataset`; by default that of `config`.
        class_names: the classes in their order, if the data do not name them; by default those that occur.
    Raises:
        InputError: as `load_dataset`, or `data` has another form.
    """
    test_frac = config.test_frac if test_frac is None else test_frac
    if isinstance(data, Dataset):
        if config.resize is not None and data.image_size != (config.resize, config.resize):
            raise InputError(f"data.resize={config.resize}, but {data.name} is already loaded; give it to load_dataset")
        return data
    if isinstance(data, Mapping):
        arrays = dict(data)
    elif isinstance(data, tuple) and len(data) in (2, 4) and hasattr(data[0], "shape"):
        splits = ("",) if len(data) == 2 else ("train_", "test_")
        arrays = dict(zip([split + part for split in splits for part in ("images", "labels")], data, strict=True))
    else:
        sets = data if isinstance(data, tuple) else (data,)
        if len(sets) not in (1, 2):
            raise InputError(f"data is a tuple of {len(sets)}; {FORMS}")
        raw = {split: _raw_split(each, split, config) for split, each in zip(("train", "test"), sets)}
        named = getattr(sets[0], "classes", None)  # of torchvision's
        names = [str(name) for name in named] if isinstance(named, list | tuple) else class_names
        return finish(NAME, assemble(raw, names, NAME, config), test_frac, config.split_seed)
    try:
        arrays = {name: _array(value, 4) for name, value in arrays.items()}
    except ValueError as error:  # such as a list of arrays that differ in size
        raise InputError(f"data is not arrays: {one_line(error)}; {FORMS}") from error
    if class_names is not None:
        arrays.setdefault("class_names", np.array(class_names))
    return finish(NAME, npz.decode(arrays, NAME, config), test_frac, config.split_seed)


def _raw_split(examples: Any, split: str, config: DataConfig) -> RawSplit:
    """The images and labels of a data set, each read once."""
    if isinstance(examples, str | Mapping) or not (hasattr(examples, "__len__") and hasattr(examples, "__getitem__")):
        raise InputError(f"{examples!r} is not a data set; load it: pocketvit.load_dataset(SOURCE); or {FORMS}")
    converted, images, labels = Conversions(), [], []
    for i in range(len(examples)):
        where, example = f"{NAME}, {split}[{i}]", examples[i]
        if not isinstance(example, tuple | list) or len(example) != 2:
            raise InputError(f"{where} is of type {type(example).__name__}, not (image, label); {FORMS}")
        images.append(_pixels(example[0], where, converted, config))
        labels.append(_array(example[1], 0))
        if labels[-1].ndim:
            raise InputError(f"{where}: the label has shape {labels[-1].shape}; give an integer or a class name")
    return RawSplit(np.array(labels), images, lambda i: f"{NAME}, {split}[{i}]", converted)


def _pixels(image: Any, where: str, converted: Conversions, config: DataConfig) -> np.ndarray:
    """One image as uint8 RGB pixels, (H, W, 3)."""
    if isinstance(image, Image.Image):
        try:
            return to_rgb(image, converted, config)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    pixels = _array(image, 3)
    if pixels.dtype.kind == "f":
        raise InputError(f"{where}: the image is {pixels.dtype}: remove ToTensor and other transforms, or give uint8")
    return next(npz.rgb_images(pixels[None], where, "image", converted, config))


def _array(value: Any, num_axes: int) -> np.ndarray:
    """An array or tensor as array; in a tensor with `num_axes` axes, images get their channels last."""
    if not hasattr(value, "detach"):
        array = np.asarray(value)
        texts = array.dtype == object and all(isinstance(item, str) for item in array.flat)  # as pandas keeps them
        return array.astype(str) if texts else array
    array = value.detach().cpu().numpy()
    is_image = num_axes and array.ndim == num_axes and array.shape[-3] in (1, 3, 4)
    return np.moveaxis(array, -3, -1) if is_image else array
