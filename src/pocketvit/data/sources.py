"""Sources of data sets: a known name, the Hugging Face Hub, or a path.

`load_dataset` loads any of them. It downloads nothing; `get` does.
"""

import os
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Unpack

import numpy as np

from pocketvit.config.checks import unknown
from pocketvit.config.data import MEMORY, READING, DataConfig, ReadingFields
from pocketvit.data.cache import entry_key, load_or_build
from pocketvit.data.dataset import Dataset, Decoded, hold_out, stratified_split
from pocketvit.data.fetch import catalogue as remote
from pocketvit.data.fetch import hub
from pocketvit.data.fetch.download import Progress
from pocketvit.data.fetch.paths import data_home, write_error
from pocketvit.data.formats.registry import Format, detect, find_format
from pocketvit.data.pixels import PLAIN
from pocketvit.data.raw_splits import RawSplit, assemble
from pocketvit.errors import InputError
from pocketvit.files import path_of
from pocketvit.lock import locked

DIGITS = "digits"  # the built-in data set: it comes with scikit-learn


@dataclass(frozen=True)
class SourceInfo:
    """A data set known by name."""

    name: str
    description: str
    size: str
    """Size of the download, or that it is built in."""
    present: bool
    """Whether it can be loaded now."""
    licence: str
    train: str
    """A command that trains on it, with a recipe for the size and kind of its images."""


def load_dataset(
    source: str | Path,
    *,
    format: str | None = None,
    test_frac: float = 0.2,
    split_seed: int = 0,
    cache_dir: Path | None = None,
    **reading: Unpack[ReadingFields],
) -> Dataset:
    """Load a data set.

    Args:
        source: a known name (see `known_sources`), "hf:OWNER/NAME" once downloaded, or a path.
        format: of a path, the name of one of `FORMATS`; None detects it.
        test_frac: fraction of each class to hold out for testing if the source has no test split; with 1, there are no
            training images.
        split_seed: seed of that choice.
        cache_dir: folder for downloaded and decoded data sets; by default `data_home()`.
        reading: fields of `DataConfig` on how images are read, such as `resize`.
    Raises:
        InputError: the source is unknown, missing, not downloaded yet, truncated, corrupt, or cannot be trained on; the
            message names the file and row.
    """
    if isinstance(source, Path):  # never a known name
        source = os.path.abspath(path_of(source))
    config = DataConfig(source=source, format=format, split_seed=split_seed, cache_dir=cache_dir, **reading)
    return open_dataset(config, test_frac)


def open_dataset(config: DataConfig, test_frac: float | None = None) -> Dataset:
    """Load the data set of a run's configuration; otherwise as `load_dataset`.

    Args:
        test_frac: by default that of the configuration.
    """
    test_frac = config.test_frac if test_frac is None else test_frac
    if config.source == DIGITS:
        return finish(DIGITS, _digits(config), test_frac, config.split_seed)
    decoded = _decode(*locate(config), config)
    return finish(name_of(config.source), decoded, test_frac, config.split_seed)


def name_of(source: str) -> str:
    """The name of a source's data set: its known name, or the name of a folder or of a file without its endings."""
    if is_known(source):
        return source
    path = path_of(source).resolve()
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    return stem or path.name or str(path)


def lasting_source(source: str) -> str:
    """A source that means the same in every working directory: a path becomes absolute, a known name stays."""
    if is_known(source):
        return source
    return os.path.abspath(path_of(source))


def known_sources() -> list[SourceInfo]:
    """The data sets known by name."""
    about = "1,797 gray digits of 8 × 8 pixels in 10 classes", "built in", True, "CC BY 4.0", "pocketvit train digits"
    digits = SourceInfo(DIGITS, *about)
    fetchable = (
        SourceInfo(
            known.name,
            known.description,
            known.size,
            (data_home() / "fetched" / known.name).is_dir(),
            known.licence,
            f"pocketvit train paper --data {known.name} {known.flags}".strip(),
        )
        for known in remote.REMOTE_SETS.values()
    )
    return [digits, *fetchable]


def get(name: str, *, data_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Download a data set, unless it is already there.

    Args:
        name: a known name or "hf:OWNER/NAME".
        data_dir: folder for downloaded and decoded data sets; by default `data_home()`.
        progress: called after every block of each file; for the Hub, its own library shows progress instead.
    Returns:
        the folder of the files.
    Raises:
        InputError: the name is unknown, the data set cannot be downloaded or written, or another process downloads it.
    """
    home = path_of(data_dir or data_home())
    if name == DIGITS:
        raise InputError("digits comes with scikit-learn: there is nothing to download")
    folder = _fetched_folder(name, home)
    if folder is None:
        raise _unknown(name)
    if folder.is_dir():
        return folder
    scratch = remote.scratch_of(folder)
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(scratch, error) from error
    # Two processes would write into one file.
    with locked(scratch, f"another process is downloading {name} to {scratch}; wait for it", say=lambda _: None):
        if folder.is_dir():  # by another process meanwhile
            return folder
        if name not in remote.REMOTE_SETS:
            hub.fetch(name, folder)
            return folder
        decoded = remote.fetch(remote.REMOTE_SETS[name], folder, progress)
        _decode(
            folder, format_of(folder, None), DataConfig(cache_dir=home), decoded
        )  # cache what was decoded for the check
        return folder


def _digits(config: DataConfig) -> Decoded:
    """scikit-learn's digits: 1,437 training and 360 test images, 36 of each class, the same for every seed.

    Their gray values 0 … 16 are scaled to 0 … 255.

    Source: Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49
    """
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    rows = np.loadtxt(str(file), delimiter=",")  # as `load_digits`, whose import takes most of a second
    grey = np.rint(rows[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # (N, 8, 8)
    images = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8) -> (N, 8, 8, 3)
    labels = rows[:, -1].astype(np.int64)
    train, test = hold_out(labels, np.full(10, 36), seed=0)
    raw = {
        split: RawSplit(labels[indices], images[indices], lambda i: f"digits, image {i}")
        for split, indices in (("train", train), ("test", test))
    }
    return assemble(raw, [str(digit) for digit in range(10)], DIGITS, config)


def _decode(path: Path, kind: Format, config: DataConfig, decoded: Decoded | None = None) -> Decoded:
    """The data set at `path`, from the cache if possible; `decoded` is used if it is not cached."""
    if config.label_separator is not None and kind.name != "csv":
        raise InputError(
            f"data.label_separator={config.label_separator!r} is for labels.csv, but {path} is {kind.description}"
        )
    for column in ("image_column", "label_column"):
        if getattr(config, column) is not None and kind.name not in ("csv", "parquet", "cifar"):
            raise InputError(
                f"data.{column}={getattr(config, column)}, but {path} has no columns: it is {kind.description}"
            )
    others = {name: getattr(config, name) for name in READING[1:] if getattr(config, name) != getattr(PLAIN, name)}
    key = entry_key(path, kind.files(path), (kind.name, config.resize, *map(str, others.items())))
    notes: list[str] = []
    folder = (config.cache_dir or data_home()) / "decoded"
    found = load_or_build(folder, key, lambda store: decoded or kind.read(path, config, store), notes.append)
    return replace(found, notes=(*notes, *found.notes))


def finish(name: str, decoded: Decoded, test_frac: float, split_seed: int) -> Dataset:
    """A data set ready for training: a test split is held out if its source has none."""
    if len(decoded.class_names) < 2:
        raise InputError(f"{name} has a single class, {next(iter(decoded.class_names))!r}: there is nothing to learn")
    if decoded.test is not None:
        return Dataset(name, decoded.train, decoded.test, decoded.class_names, decoded.notes)
    if test_frac == 1:
        nothing, note = decoded.train.take(np.arange(0)), f"{name} has no test split: all its images are test images"
        return Dataset(name, nothing, decoded.train, decoded.class_names, (*decoded.notes, note))
    try:
        kept, held = stratified_split(decoded.train.labels, test_frac, split_seed, decoded.class_names)
    except InputError as error:
        raise InputError(f"{name} has no test split, and none can be held out of its images: {error}") from error
    note = (
        f"{name} has no test split: {len(held):,} of its {len(decoded.train):,} images are held out for testing "
        f"({test_frac:g} of {'them' if decoded.train.multilabel else 'each class'}, seed {split_seed})"
    )
    train, test = decoded.train.take(kept), decoded.train.take(held)
    return Dataset(name, train, test, decoded.class_names, (*decoded.notes, note))


def locate(config: DataConfig) -> tuple[Path, Format]:
    """The file or folder to read, and its format."""
    source = config.source
    if source == MEMORY:
        raise InputError(
            f"data.source={MEMORY}: these images came from Python; give them again with pocketvit.train(config, data=...), "
            "with the same `out` to resume, or pocketvit.evaluate(trained, data); or name a source with --data"
        )
    folder = _fetched_folder(source, config.cache_dir or data_home())
    if folder is not None and not folder.is_dir():
        raise InputError(f"{source} is not downloaded yet; run: pocketvit data get {source}")
    path = folder or path_of(source)
    if not path.exists():
        raise _unknown(source)
    return path, format_of(path, config.format)


def is_known(source: str) -> bool:
    """Whether a source is the name of a data set, not a path."""
    return source in (DIGITS, MEMORY) or _fetched_folder(source, Path()) is not None


def _fetched_folder(name: str, home: Path) -> Path | None:
    """The folder that `get` downloads a data set to; None if it cannot be downloaded."""
    if name in remote.REMOTE_SETS:
        return home / "fetched" / name
    return home / "fetched" / hub.folder_name(name) if name.startswith(hub.PREFIX) else None


def _unknown(source: str) -> InputError:
    """The exception for a source that is neither a known name nor an existing path."""
    if Path(source).name != source:
        return InputError(f"{source} does not exist")
    known = unknown("data set", source, [DIGITS, *remote.REMOTE_SETS])
    return InputError(f"{known} (or give hf:OWNER/NAME, or a path: nothing here is called {source!r})")


def format_of(path: Path, name: str | None) -> Format:
    """The format `name`, or by default the one that `path` has."""
    detected = detect(path)
    if name is None:
        return find_format(detected)
    kind = find_format(name)
    if not kind.matches(path):
        raise InputError(f"{path} is not {kind.description}: it looks like {detected}")
    return kind
