"""From the raw splits of a file format (train, test, validation) to one decoded data set.

Every reader of a format passes on its raw splits: labels as numbers or names, images one by one. The rest is common to
all formats: choose the splits to train and test on, number the classes, resize the images. The images are passed one by
one to a `Store`, in memory or in a file.
"""

import dataclasses
import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pocketvit.config.checks import FEW
from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded, Split, class_counts
from pocketvit.data.labels import find_class_names, number_labels
from pocketvit.data.pixels import PLAIN, BrokenImage, Conversions, Fitter, one_line
from pocketvit.errors import InputError
from pocketvit.files import read_bytes

SPLIT_OF_WORD = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
}  # fmt: skip
"""The split that a word in a file or folder name stands for."""


def split_of(name: str) -> str | None:
    """The split that a name stands for, if any: "train-00000-of-00005", "training_set" and "TrainSet" are "train"."""
    words = (re.sub(r"(set|data|images|imgs)$", "", word) for word in re.split(r"[^a-z]+", name.lower()))
    return next((SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD), None)


_IMAGE_ENDINGS = {
    *(".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".webp", ".avif", ".jp2"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}

Store = Callable[[str, Iterable[np.ndarray], int], np.ndarray]
"""Takes a split's name, its images, uint8 (H, W, 3) of one size, and their greatest number; returns them as (N, H, W, 3)."""
MOST_NAMES_BYTES = 2**20  # of a file of class names
COLUMN_FLAGS = "; --data.image-column and --data.label-column name other columns"
MOST_LISTED = 20  # the most images that a message on broken ones lists


@dataclass(frozen=True)
class RawSplit:
    """One split of a file format."""

    labels: np.ndarray
    """Integers or class names, (N,); or whether an image has each of the classes, bool, (N, K)."""
    images: Iterable[np.ndarray]
    """N images, uint8, (H, W, 3) each, decoded on demand. One that cannot be read raises `BrokenImage`, after which the next
    can be asked for, as with `map` but not with a generator."""
    where: Callable[[int], str]
    """The name of the i-th image in messages, such as "train.parquet, row 7"."""
    converted: Conversions = field(default_factory=Conversions)
    """Conversions of images that are not 8-bit color, counted while they are decoded."""
    where_label: Callable[[int], str] | None = None
    """The name of the i-th label; by default that of its image."""

    def name_label(self, index: int) -> str:
        """The name of a label in messages."""
        return (self.where_label or self.where)(index)


def visible_files(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, except hidden ones and those in hidden folders."""
    found = []
    for place, folders, names in os.walk(folder):  # several times faster than Path.rglob
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if not name.startswith(".")]
    return sorted(found)


def is_image(file: Path) -> bool:
    """Whether a file's name ends like an image's."""
    return file.suffix.lower() in _IMAGE_ENDINGS


def note_left_aside(decoded: Decoded, why: str, members: Sequence[Path | str], kind: str = "file") -> Decoded:
    """Add a note that some files, or members of another kind, are ignored."""
    if not members:
        return decoded
    note = f"{len(members):,} {kind}{'s are' if len(members) > 1 else ' is'} ignored, such as {members[0]}: {why}"
    return dataclasses.replace(decoded, notes=(*decoded.notes, note))


CLASS_NAMES = "class_names.txt"
"""A file with the names of the classes in their order, one a line, beside files that only number them."""


def class_names_beside(folder: Path) -> list[str] | None:
    """The names in `CLASS_NAMES`, if a folder has it.

    Raises:
        InputError: it is no text in UTF-8, or too long.
    """
    try:
        lines = read_bytes(folder / CLASS_NAMES, MOST_NAMES_BYTES).decode().splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder / CLASS_NAMES} is not a list of names in UTF-8: {one_line(error)}") from error
    return [line.strip() for line in lines if line.strip()]


def find_column(file: Path, columns: Sequence[str], wanted: str | None, names: Sequence[str]) -> str:
    """The column of a file that is wanted, or else the first of some names.

    Raises:
        InputError: it has none of them.
    """
    names, hint = (names, COLUMN_FLAGS) if wanted is None else ((wanted,), "")
    for name in names:
        if name in columns:
            return name
    raise InputError(f"{file} has the columns {', '.join(columns) or '(none)'}: expected {' or '.join(names)}{hint}")


def name_row(files: Sequence[tuple[str, int]], index: int) -> str:
    """The name of a row, counted over several files of so many rows each: "train.parquet, row 7", from 0."""
    for name, num_rows in files:
        if index < num_rows:
            return f"{name}, row {index}"
        index -= num_rows
    raise IndexError("a row beyond the last file")


def in_memory(_split: str, images: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Keep the images of a split in memory, uint8, (N, H, W, 3)."""
    kept, i = np.empty(0), -1
    for i, image in enumerate(images):
        if i == 0:
            kept = np.empty((count, *image.shape), dtype=np.uint8)
        kept[i] = image
    return kept[: i + 1]


def assemble(
    raw_splits: Mapping[str, RawSplit],
    class_names: Sequence[str] | None,
    name: str,
    config: DataConfig = PLAIN,
    store: Store = in_memory,
) -> Decoded:
    """Decode the splits that are used into one data set.

    The test split is "test" if it has labels, else "val". If both are present, "val" is ignored, because validation
    images are held out of the training images on request (`--data.val-frac`).

    Args:
        raw_splits: "train", "test" and "val", as far as present.
        class_names: the classes in their order, if the format lists them.
        name: of the data set in messages.
    Raises:
        InputError: nothing to train on, an empty split or list of classes, a label outside the classes, a class with
            test images only, images of mixed size.
    """
    used, notes = _used_splits(raw_splits, name)
    listed = class_names is not None
    names = find_class_names(*(raw.labels for raw in used.values())) if class_names is None else class_names
    _check_names(names, name)
    labels = {
        split: raw.labels if raw.labels.ndim == 2 else number_labels(raw.labels, names, raw.name_label, listed=listed)
        for split, raw in used.items()
    }
    notes += _check_classes(labels, used, names, name)
    fitter, converted = Fitter(config), Conversions()
    splits: dict[str, Split] = {}
    broken: list[str] = []
    for split, raw in used.items():
        kept: list[int] = []
        images = store(split, _readable(raw, name, fitter, kept, broken), len(raw.labels))
        where = (raw.where(i).removeprefix(f"{name}{os.sep}") for i in kept)
        labels[split] = labels[split][kept]
        files = np.array([each.encode(errors="backslashreplace") for each in where])
        splits[split] = Split(images, labels[split], files)
        converted.join(raw.converted)
    if broken and not config.skip_unreadable:
        raise _unreadable(name, broken)
    if broken:
        notes.append(f"{len(broken):,} image{'s' * (len(broken) > 1)} left out as unreadable, such as {broken[0]}")
        notes += _check_classes(labels, used, names, name)
    notes += [*converted.notes(config.value_range), *fitter.notes()]
    train, test = splits.pop("train"), next(iter(splits.values()), None)
    return Decoded(train, test, tuple(names), tuple(notes))


def _used_splits(raw_splits: Mapping[str, RawSplit], name: str) -> tuple[dict[str, RawSplit], list[str]]:
    """The splits to train and to test on, and notes on those that are not used.

    Raises:
        InputError: no training images, or a split that has none.
    """
    if "train" not in raw_splits:
        raise InputError(f"{name} has no training images, only {' and '.join(sorted(raw_splits)) or 'nothing'}")
    used, notes = dict(raw_splits), []
    if "test" in used and is_unlabeled(used["test"]):
        notes.append(f"{name}: its test split has no labels and is ignored")
        del used["test"]
    if "test" in used and used.pop("val", None) is not None:
        notes.append(f"{name}: its validation split is ignored")
    elif "val" in used:
        notes.append(f"{name} has no test split: its validation split is used instead")
    for split, raw in used.items():
        if len(raw.labels) == 0:
            raise InputError(f"the {split} split of {name} has no images")
    return {split: used[split] for split in ("train", "test", "val") if split in used}, notes


def _check_names(class_names: Sequence[str], name: str) -> None:
    """Refuse an empty list of classes, and two classes of one name."""
    for each, count in Counter(class_names).most_common(1):
        if count > 1:
            raise InputError(f"{name}: class_names has {each!r} {count} times: give every class a different name")
    if not class_names:
        raise InputError(f"{name} has an empty list of class names: name every class, or leave the list out")


def _readable(raw: RawSplit, name: str, fitter: Fitter, kept: list[int], broken: list[str]) -> Iterator[np.ndarray]:
    """The images of a split that can be read, in the size of the set.

    Args:
        kept: is told which these are.
        broken: is told what is wrong with the others.
    Raises:
        BrokenImage: none can be read.
    """
    images = iter(raw.images)
    for i in itertools.count():
        try:
            image = next(images)
        except StopIteration:
            break
        except BrokenImage as error:
            broken.append(str(error))
            continue
        kept.append(i)
        yield fitter.fit(image, raw.where, i)
    if not kept:
        raise BrokenImage(f"{len(broken):,} images of {name}, all of a split, cannot be read:", *_listed(broken))


def _unreadable(name: str, broken: Sequence[str]) -> BrokenImage:
    """What to raise for images that cannot be read: for several a line each."""
    if len(broken) == 1:
        return BrokenImage(f"{broken[0]}; --data.skip-unreadable True leaves it out")
    head = f"{len(broken):,} images of {name} cannot be read; --data.skip-unreadable True leaves them out:"
    return BrokenImage(head, *_listed(broken))


def _listed(broken: Sequence[str]) -> list[str]:
    """The first images, a line each, and how many more there are."""
    more = [f"and {len(broken) - MOST_LISTED:,} more"] if len(broken) > MOST_LISTED else []
    return [*broken[:MOST_LISTED], *more]


def is_unlabeled(raw: RawSplit) -> bool:
    """Whether all labels are negative numbers, the Hub's mark of a split whose labels are withheld."""
    return len(raw.labels) > 0 and raw.labels.dtype.kind == "i" and bool((raw.labels < 0).all())


def _check_classes(
    labels: Mapping[str, np.ndarray], used: Mapping[str, RawSplit], class_names: Sequence[str], name: str
) -> list[str]:
    """Refuse test images of a class without training images; notes on the classes that lack images.

    Args:
        labels: of "train" and of the test split, if any, as in `Split`.
    """
    present = {split: class_counts(numbers, len(class_names)) > 0 for split, numbers in labels.items()}
    trained = present["train"]
    lacking = {"images": ~trained}
    for split in labels.keys() - {"train"}:
        multilabel = labels[split].ndim == 2  # then a class that is never seen is only noted: rare ones are common
        strange = np.flatnonzero(False if multilabel else ~trained[labels[split]])
        if len(strange):
            class_name = class_names[int(labels[split][strange[0]])]
            why = f"class {class_name} has no training images; add some, or remove its test images"
            raise InputError(f"{used[split].name_label(int(strange[0]))}: {why}")
        lacking["test images"] = trained & ~present[split]
    bare = {split: np.count_nonzero(~numbers.any(axis=1)) for split, numbers in labels.items() if numbers.ndim == 2}
    return [
        f"{name}: images without a class in the {split} split: {count:,}" for split, count in bare.items() if count
    ] + [f"{name} has no {what} of {_list_names(class_names, lacks)}" for what, lacks in lacking.items() if lacks.any()]


def _list_names(class_names: Sequence[str], chosen: np.ndarray) -> str:
    """The chosen classes, bool (K,), such as "the classes bee, cat"; at most the first few."""
    names = [name for name, is_chosen in zip(class_names, chosen, strict=True) if is_chosen]
    some = names[:FEW] + ["…"] * (len(names) > FEW)
    return f"the class{'es' * (len(names) > 1)} {', '.join(some)}"
