"""The three parts of a data set that a run uses: train, perhaps validation, and test."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from pocketvit.config import DataConfig
from pocketvit.config.checks import FEW
from pocketvit.data.dataset import Dataset, Split, class_counts, note_shared, stratified_split
from pocketvit.data.formats.folders import would_read
from pocketvit.data.formats.registry import detect
from pocketvit.data.memory import Data, load_from_memory
from pocketvit.data.sources import lasting_source, open_dataset
from pocketvit.errors import InputError


@dataclass(frozen=True)
class Splits:
    """A data set, split for a run."""

    train: Split
    val: Split | None
    """Held out of the training images, if asked for."""
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    """Of the whole data set, whatever was held out."""
    notes: tuple[str, ...]
    """Notes to print."""
    train_fingerprint: str | None = None
    """Of the training images before any were held out for validation; None for synthetic images."""
    cautions: tuple[str, ...] = ()
    """The notes about evaluation images among the training images."""

    def counts(self) -> str:
        """The number of images of each class, in one line."""
        parts = [class_counts(part.labels, len(self.class_names)) for part in (self.train, self.test)]
        each = [f"{name} ({train:,} + {test:,})" for name, train, test in zip(self.class_names, *parts, strict=True)]
        some = ", ".join(each[:FEW] + ["…"] * (len(each) > FEW))
        return f"{len(each)} classes (training + test images): {some}"


def open_splits(config: DataConfig, data: Data | None = None) -> Splits:
    """Load a run's data and hold out its validation images.

    Args:
        data: images in memory, instead of those of the source.
    Raises:
        InputError: the source cannot be found or read, or `data` cannot be used, or comes with a file format.
    """
    if data is None:
        return split_dataset(open_dataset(config), config)
    if config.format is not None:
        raise InputError(f"data.format={config.format}: only files have a format; leave it out for images in memory")
    return split_dataset(load_from_memory(data, config), config)


def open_to_measure(config: DataConfig, trained_on: str) -> Dataset:
    """Load a data set to evaluate a trained model on.

    Without a test split, all images are used, except if the model was trained on this data set: then only those that
    were held out.

    Args:
        config: of the data set, with the splits of the model's training.
        trained_on: the fingerprint of the model's training data.
    Raises:
        InputError: the source cannot be found or read.
    """
    whole = open_dataset(config, test_frac=1)
    if not len(whole.train):
        with contextlib.suppress(InputError):  # none can be held out, so no model was trained on this
            held_out = open_dataset(config)
            if held_out.fingerprint == trained_on:
                return held_out
    return whole


def refuse_among_classes(config: DataConfig, folder: Path) -> None:
    """Refuse to create a folder among the class folders of a data set, which would become unreadable.

    Raises:
        InputError: it is among them.
    """
    path = Path(lasting_source(config.source))  # absolute, but for a known name
    if path.is_absolute() and (config.format or detect(path)) == "folder" and would_read(path, folder):
        raise InputError(
            f"{folder} would be among the class folders of {config.source} and be read as one; choose another --out"
        )


def split_dataset(dataset: Dataset, config: DataConfig) -> Splits:
    """Hold out `val_frac` of the training images of each class, by `split_seed`."""
    train, val, notes, cautions, digests = dataset.train, None, dataset.notes, (), dataset.train.digests
    if config.val_frac:
        kept, held = stratified_split(train.labels, config.val_frac, config.split_seed, dataset.class_names)
        train, val = train.take(kept), train.take(held)
        notes = (*notes, f"held out {len(val):,} of {len(dataset.train):,} training images for validation")
        cautions += note_shared("validation images", digests[held], digests[kept])
        digests = digests[kept]
    cautions += note_shared("test images", dataset.test.digests, digests)
    return Splits(
        train,
        val,
        dataset.test,
        dataset.class_names,
        dataset.fingerprint,
        notes=notes + cautions,
        train_fingerprint=dataset.train.fingerprint,
        cautions=cautions,
    )
