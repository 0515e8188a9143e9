"""Read parquet files in the layout of the Hugging Face Hub: one row per image, encoded as PNG, WebP, JPEG, ….

A single file has no splits. In a folder, a file belongs to the split that its name stands for
(`train-00000-of-00005.parquet`), or else that of its folder (`train/0000.parquet`); if no name stands for a split, the
files together have no splits. The class names come from the Hub's metadata in the schema, if any.

Source: https://huggingface.co/docs/datasets/about_dataset_features
"""

import dataclasses
import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketvit.config.checks import FEW
from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.formats.parquet_pages import rows_at_once
from pocketvit.data.pixels import PLAIN, BrokenImage, Conversions, decode, one_line
from pocketvit.data.raw_splits import (
    RawSplit,
    Store,
    assemble,
    find_column,
    in_memory,
    is_image,
    name_row,
    note_left_aside,
    split_of,
    visible_files,
)
from pocketvit.errors import InputError
from pocketvit.files import regular_size

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_IMAGE_COLUMNS = ("img", "image")
MOST_LETTERS = 1_000  # of a class name, because the array of all labels reserves the longest for each
_LABEL_COLUMNS = ("label", "fine_label", "labels")
_KINDS = ("Image", "ClassLabel")  # of such columns in the Hub's metadata


def matches(path: Path) -> bool:
    """Whether the path is a parquet file or a folder with parquet files."""
    return path.suffix == ".parquet" if path.is_file() else bool(files(path))


def files(path: Path) -> list[Path]:
    """The files that are read."""
    return [path] if path.is_file() else [file for file in visible_files(path) if file.suffix == ".parquet"]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read all splits.

    Raises:
        InputError: a file is missing, truncated or corrupt, there is no column of images or labels, an image cannot be
            read, or pyarrow is not installed.
    """
    by_split = {"train": [path]} if path.is_file() else _files_by_split(path)
    first = by_split.get("train", next(iter(by_split.values())))[0]
    schema = _open(first).schema_arrow
    features = _features(schema)
    images, labels = ([name for name, each in features.items() if each.get("_type") == kind] for kind in _KINDS)
    image_column = find_column(first, schema.names, config.image_column, (*_IMAGE_COLUMNS, *images))
    label_column = find_column(first, schema.names, config.label_column, (*_LABEL_COLUMNS, *labels))
    class_names = features.get(label_column, {}).get("names")
    raw = {
        split: _raw_split(members, image_column, label_column, class_names, config)
        for split, members in by_split.items()
    }
    decoded = assemble(raw, class_names, str(path), config, store)
    others = [name for name in labels if name != label_column]
    if others and config.label_column is None:
        line = f"labels are those of {label_column}; --data.label-column takes {' or '.join(others)} instead"
        decoded = dataclasses.replace(decoded, notes=(*decoded.notes, line))
    aside = [file for file in visible_files(path) if is_image(file)] if path.is_dir() else []
    return note_left_aside(decoded, "not among the parquet files", aside)


def require_pyarrow() -> None:
    """Raise an `InputError` that says how to install pyarrow if it is missing."""
    if importlib.util.find_spec("pyarrow") is None:
        raise InputError("reading parquet needs pyarrow: pip install 'pocketvit[data]'")


def _files_by_split(folder: Path) -> dict[str, list[Path]]:
    """The folder's files by split, checked to be one complete data set."""
    by_split, sets = defaultdict(list), set()
    for file in files(folder):
        in_split_folder = split_of(file.parent.name) is not None and file.parent != folder
        sets.add(file.parent.parent if in_split_folder else file.parent)
        by_split[split_of(file.stem) or (split_of(file.parent.name) if in_split_folder else None)].append(file)
    if len(sets) > 1:
        names = ", ".join(str(member) for member in sorted(sets))
        raise InputError(f"{folder} contains several data sets: name one of {names}")
    if None in by_split and len(by_split) > 1:
        raise InputError(f"{by_split[None][0]}: its name says neither train nor test, but other names do")
    for members in by_split.values():
        _check_shards(members)
    return {split or "train": members for split, members in by_split.items()}


def _check_shards(members: Sequence[Path]) -> None:
    """Refuse a split with a missing shard."""
    for file in members:
        numbered = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})", file.stem)
        if numbered is None:
            continue
        for i in range(int(numbered[2])):
            shard = file.with_stem(f"{numbered[1]}-{i:05d}-of-{numbered[2]}")
            if not shard.is_file():
                raise InputError(f"{shard} is missing")


def _open(file: Path) -> "pq.ParquetFile":
    require_pyarrow()
    import pyarrow.parquet as pq

    try:
        regular_size(file)
        return pq.ParquetFile(file)
    except Exception as error:  # broken bytes can raise any of Arrow's errors, or MemoryError
        size = file.stat().st_size
        raise InputError(f"{file} ({size:,} bytes) is truncated or not a parquet file: {one_line(error)}") from error


def _features(schema: "pa.Schema") -> dict[str, dict]:
    """The Hub's metadata on the columns, by name, without lists."""
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"].items()
    # There is no metadata, none of the Hub's, or another form of it.
    except (TypeError, KeyError, ValueError, AttributeError, RecursionError):
        return {}
    return {
        name: feature
        for name, feature in features
        if isinstance(feature, dict)
        and isinstance(names := feature.get("names", []), list)
        and all(isinstance(each, str) for each in names)
    }


def _raw_split(
    members: Sequence[Path], image_column: str, label_column: str, class_names: Sequence[str] | None, config: DataConfig
) -> RawSplit:
    labels = [_by_name(_labels(file, label_column), file, label_column, class_names) for file in members]
    rows = [(str(file), len(values)) for file, values in zip(members, labels, strict=True)]
    converted = Conversions()
    cells = (cell for file in members for cell in _cells(file, image_column))

    def image(cell: tuple[object, str]) -> np.ndarray:
        value, where = cell
        content = value.get("bytes") if isinstance(value, dict) else value  # the Hub's mapping, or bytes
        if not isinstance(content, bytes):
            raise BrokenImage(f"{where}: column {image_column} contains no image bytes")
        return decode(content, where, converted, config)

    return RawSplit(np.concatenate(labels), map(image, cells), lambda i: name_row(rows, i), converted)


def _labels(file: Path, column: str) -> np.ndarray:
    """The labels of one file, integers or strings, (N,)."""
    values: list[object] = []
    kind: type = int
    for row, (value, where) in enumerate(_cells(file, column)):
        if row == 0 and isinstance(value, str):
            kind = str
        if (
            type(value) is not kind
            or (isinstance(value, int) and abs(value) >= 2**63)
            or (isinstance(value, str) and len(value) > MOST_LETTERS)
        ):
            raise InputError(f"{where}: label {value!r:.80} is not {'a class name' if kind is str else 'an integer'}")
        values.append(value)
    return np.array(values, dtype=str if kind is str else np.int64)


def _by_name(labels: np.ndarray, file: Path, column: str, class_names: Sequence[str] | None) -> np.ndarray:
    """The labels of a file, which may list its classes in another order, as numbers in the order of the data set.

    Raises:
        InputError: it lists a class that the data set does not.
    """
    own = _features(_open(file).schema_arrow).get(column, {}).get("names")
    if own is None or class_names is None or labels.dtype.kind != "i":
        return labels
    if all(one == other for one, other in zip(own, class_names)):  # a list may go on where another ends
        return labels
    if len(set(own)) < len(own):
        raise InputError(f"{file} lists two classes of one name: give every class a different name")
    if not set(own) <= set(class_names):
        lists = f"{', '.join(own[:FEW])}, but the first file {', '.join(class_names[:FEW])}"
        raise InputError(f"{file} lists other classes: it lists {lists}; give all files the same classes")
    if labels.max(initial=-1) >= len(own):
        row = int((labels >= len(own)).argmax())
        raise InputError(f"{file}, row {row}: label {labels[row]} is outside the {len(own)} classes that it lists")
    number = np.array([class_names.index(name) for name in own])
    return np.where(labels < 0, labels, number[labels])


def _cells(file: Path, column: str) -> Iterator[tuple[object, str]]:
    """The values of a column of one file, or only its bytes if it has several inner ones, with their names in messages."""
    parquet = _open(file)
    if column not in parquet.schema_arrow.names:
        raise InputError(f"{file} has no column {column}, which other files of the data set have")
    paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    inner = next((path for path in (column, f"{column}.bytes") if path in paths), None)
    if inner is None:
        raise InputError(f"{file}: column {column} contains neither bytes, text nor integers")
    row = 0
    try:
        for batch in parquet.iter_batches(batch_size=rows_at_once(parquet, file, inner), columns=[inner]):
            for value in batch.column(0).to_pylist():
                yield value, f"{file}, row {row}"
                row += 1
    except InputError:
        raise
    except Exception as error:  # as in _open
        raise InputError(f"{file} is corrupt after row {row}: {one_line(error)}") from error
