"""The three parts of a data set that a run uses: train, perhaps validation, and test."""

from dataclasses import dataclass

from pocketvit.config import DataConfig
from pocketvit.data.dataset import Dataset, Split, stratified_split
from pocketvit.data.sources import load_dataset


@dataclass(frozen=True)
class Splits:
    """A data set, split for a run."""

    train: Split
    val: Split | None
    """Held out of the training images for choosing; none unless asked for."""
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    """Of the whole data set, whatever was held out."""
    notes: tuple[str, ...]
    """Lines to say aloud."""


def open_splits(config: DataConfig) -> Splits:
    """Load a run's data and hold out its validation images.

    Raises:
        InputError: the source cannot be found or read.
    """
    return split_dataset(open_dataset(config), config)


def open_dataset(config: DataConfig) -> Dataset:
    """Load the data set that a run's configuration names.

    Raises:
        InputError: the source cannot be found or read.
    """
    return load_dataset(
        config.source,
        format=config.format,
        resize=config.resize,
        test_frac=config.test_frac,
        split_seed=config.split_seed,
        cache_dir=config.cache_dir,
    )


def split_dataset(dataset: Dataset, config: DataConfig) -> Splits:
    """Hold out `val_frac` of the training images, as many of each class, by `split_seed`."""
    train, val, notes = dataset.train, None, dataset.notes
    if config.val_frac:
        kept, held = stratified_split(train.labels, config.val_frac, config.split_seed, dataset.class_names)
        train, val = train.take(kept), train.take(held)
        notes = (*notes, f"held out {len(val):,} of {len(dataset.train):,} training images for validation")
    return Splits(train, val, dataset.test, dataset.class_names, dataset.fingerprint, notes)
