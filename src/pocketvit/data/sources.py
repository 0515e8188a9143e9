"""Where a set comes from: a known name, the Hugging Face Hub, or a path.

`load_dataset` gives any of them the one form of `dataset.py`. Nothing is downloaded unasked: `get` does that.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

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

DIGITS = "digits"
"""The set that is always there: it comes with scikit-learn."""


@dataclass(frozen=True)
class SourceInfo:
    """A set that is known by name."""

    name: str
    description: str
    size: str
    """What is downloaded, or that it is built in."""
    present: bool
    """Whether it can be loaded now."""


def load_dataset(
    source: str | Path,
    *,
    format: str | None = None,
    test_frac: float = 0.2,
    split_seed: int = 0,
    cache_dir: Path | None = None,
    **reading: Unpack[ReadingFields],
) -> Dataset:
    """Load a set.

    Args:
        source: a known name (see `known_sources`), "hf:OWNER/NAME" once fetched, or a path.
        format: what a path holds, the name of one of `FORMATS`; found out if None.
        test_frac: fraction of each class to hold out for testing where the source has no test split; 1 leaves nothing
            to train on.
        split_seed: which images those are.
        cache_dir: folder for downloaded and decoded sets; see `data_home` for where it is if None.
        reading: the fields of `DataConfig` that say how images are read, such as `resize`.
    Raises:
        InputError: the source is unknown, missing, not fetched yet, truncated, corrupt, or of a kind that cannot be
            trained on; the message says which file and row.
    """
    config = DataConfig(**reading)
    if source == DIGITS:
        return finish(DIGITS, _digits(config), test_frac, split_seed)
    home = cache_dir or data_home()
    path = locate(source, home)
    decoded = _decode(path, format_of(path, format), config, home)
    return finish(name_of(source), decoded, test_frac, split_seed)


def name_of(source: str | Path) -> str:
    """What to call the set of a source: as it is known, or a folder's name, or a file's without its endings."""
    if is_known(str(source)):
        return str(source)
    path = path_of(source).resolve()
    stem = path.name if path.is_dir() else path.name.partition(".")[0]
    return stem or path.name or str(path)


def lasting_source(source: str) -> str:
    """A source that means the same from every working directory: a path becomes absolute, a known name stays."""
    if is_known(source):
        return source
    return os.path.abspath(path_of(source))


def known_sources() -> list[SourceInfo]:
    """The sets known by name."""
    digits = SourceInfo(DIGITS, "1,797 grey digits of 8 × 8 pixels in 10 classes", "built in", True)
    fetchable = (
        SourceInfo(known.name, known.description, known.size, (data_home() / "fetched" / known.name).is_dir())
        for known in remote.REMOTE_SETS.values()
    )
    return [digits, *fetchable]


def get(name: str, *, data_dir: Path | None = None, progress: Progress | None = None) -> Path:
    """Fetch a set, unless it is there already.

    Args:
        name: a known name or "hf:OWNER/NAME".
        data_dir: folder for downloaded and decoded sets; see `data_home` for where it is if None.
        progress: told after every block of each file; for the Hub, its own library shows progress instead.
    Returns:
        the folder of the set's files.
    Raises:
        InputError: the name is unknown, the set cannot be fetched or written, or another process is fetching it.
    """
    home = data_dir or data_home()
    if name == DIGITS:
        raise InputError("digits comes with scikit-learn: there is nothing to fetch")
    folder = _fetched_folder(name, home)
    if folder is None:
        raise _unknown(name)
    if folder.is_dir():
        return folder
    with _alone(name, remote.scratch_of(folder)):
        if folder.is_dir():  # by another process meanwhile
            return folder
        if name not in remote.REMOTE_SETS:
            hub.fetch(name, folder)
            return folder
        decoded = remote.fetch(remote.REMOTE_SETS[name], folder, progress)
        _decode(folder, format_of(folder, None), PLAIN, home, decoded)  # it was decoded to be checked: keep that
        return folder


@contextlib.contextmanager
def _alone(name: str, scratch: Path) -> Iterator[None]:
    """Keep the folder that a set is fetched into to this process: two would write into one file.

    Raises:
        InputError: another process fetches the set, or the folder cannot be made.
    """
    try:
        scratch.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(scratch, error) from error
    with locked(scratch, f"another process is fetching {name} into {scratch}; wait for it", say=lambda _: None):
        yield


def _digits(config: DataConfig) -> Decoded:
    """scikit-learn's digits: 1,437 to train and 360 to test on, 36 of each class, the same whatever the seed.

    Their grey values 0 … 16 are scaled to 0 … 255.

    Source: Alpaydin & Kaynak 1998, https://doi.org/10.24432/C50P49
    """
    from sklearn.datasets import load_digits

    digits: Any = load_digits()  # scikit-learn's type leaves open what comes back
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (N, 8, 8)
    images = np.repeat(grey[..., None], 3, axis=-1)  # (N, 8, 8) -> (N, 8, 8, 3)
    labels = digits.target.astype(np.int64)
    train, test = hold_out(labels, np.full(10, 36), seed=0)
    raw = {
        split: RawSplit(labels[indices], images[indices], lambda i: f"digits, image {i}")
        for split, indices in (("train", train), ("test", test))
    }
    return assemble(raw, [str(digit) for digit in range(10)], DIGITS, config)


def _decode(path: Path, kind: Format, config: DataConfig, home: Path, decoded: Decoded | None = None) -> Decoded:
    """The set at `path`, from the cache if it is there; `decoded` spares decoding it if it isn't."""
    for column in ("image_column", "label_column"):
        if getattr(config, column) is not None and kind.name in ("folder", "npz"):
            raise InputError(
                f"data.{column}={getattr(config, column)}, but {path} has no columns: it is {kind.description}"
            )
    others = {name: getattr(config, name) for name in READING[1:] if getattr(config, name) != getattr(PLAIN, name)}
    key = entry_key(path, kind.files(path), (kind.name, config.resize, *map(str, others.items())))
    said: list[str] = []
    found = load_or_build(home / "decoded", key, lambda store: decoded or kind.read(path, config, store), said.append)
    return replace(found, notes=(*said, *found.notes))


def finish(name: str, decoded: Decoded, test_frac: float, split_seed: int) -> Dataset:
    """A set ready to train on: a test split is carved where its source has none."""
    if len(decoded.class_names) < 2:
        raise InputError(
            f"{name} has a single class, {next(iter(decoded.class_names))!r}: there is nothing to tell apart"
        )
    if decoded.test is not None:
        return Dataset(name, decoded.train, decoded.test, decoded.class_names, decoded.notes)
    if test_frac == 1:
        nothing, note = decoded.train.take(np.arange(0)), f"{name} has no test split: all its images serve as one"
        return Dataset(name, nothing, decoded.train, decoded.class_names, (*decoded.notes, note))
    try:
        kept, held = stratified_split(decoded.train.labels, test_frac, split_seed, decoded.class_names)
    except InputError as error:
        raise InputError(f"{name} has no test split, and none can be carved from its images: {error}") from error
    note = (
        f"{name} has no test split: {len(held):,} of its {len(decoded.train):,} images are held out as one "
        f"({test_frac:g} of each class, seed {split_seed})"
    )
    train, test = decoded.train.take(kept), decoded.train.take(held)
    return Dataset(name, train, test, decoded.class_names, (*decoded.notes, note))


def locate(source: str | Path, home: Path) -> Path:
    """The file or folder to read."""
    if source == MEMORY:
        raise InputError(
            f"data.source={MEMORY}: these images were given from Python; give them again by pocketvit.train(config, "
            "data=...), with the same `out` to go on, or by pocketvit.evaluate(trained, data); else name a source by --data"
        )
    folder = _fetched_folder(str(source), home)
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"{source} is not here yet: pocketvit data get {source}")
        return folder
    path = path_of(source)
    if not path.exists():
        raise _unknown(str(source))
    return path


def is_known(source: str) -> bool:
    """Whether a source is a set's name rather than a path."""
    return source in (DIGITS, MEMORY) or _fetched_folder(source, Path()) is not None


def _fetched_folder(name: str, home: Path) -> Path | None:
    """The folder that `get` puts a set into; None if it is none that can be fetched."""
    if name in remote.REMOTE_SETS:
        return home / "fetched" / name
    return home / "fetched" / hub.folder_name(name) if name.startswith(hub.PREFIX) else None


def _unknown(source: str) -> InputError:
    """The exception to raise for what is neither a known name nor a path that exists."""
    if Path(source).name != source:
        return InputError(f"{source} does not exist")
    known = unknown("data set", source, [DIGITS, *remote.REMOTE_SETS])
    return InputError(f"{known} (or give a path, or hf:OWNER/NAME)")


def format_of(path: Path, name: str | None) -> Format:
    """The format called `name`, or else the one that `path` holds."""
    detected = detect(path)
    if name is None:
        return find_format(detected)
    kind = find_format(name)
    if not kind.matches(path):
        raise InputError(f"{path} is not {kind.description}: it looks like {detected}")
    return kind
