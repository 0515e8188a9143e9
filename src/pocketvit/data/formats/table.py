"""Read images with a table of labels: `labels.csv` or `metadata.csv`, with a column of file names and one of labels.

The images are in the table's folder, at any depth. The table may have a column `split`, or each split's folder has its
own table (`train/metadata.csv`, `test/metadata.csv`). Rows name an image by its path, its name, or its name without the
ending. Classes are in the order of their numbers, or else in alphabetical order.

An image may have several classes, or none: in the column of labels between separators (`data.label_separator`), or, in a
table without a column of labels, by a column of 0 and 1 for each class.

Source: https://huggingface.co/docs/datasets/image_dataset (metadata.csv)
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, Conversions, decode, one_line
from pocketvit.data.raw_splits import (
    RawSplit,
    Store,
    assemble,
    find_column,
    in_memory,
    is_image,
    note_left_aside,
    split_of,
    visible_files,
)
from pocketvit.errors import InputError
from pocketvit.files import MOST_BYTES, read_bytes

NAMES = ("labels.csv", "metadata.csv")
MOST_LETTERS = 1_000
_IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_id", "id")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "breed", "target")
_YES, _NO = {"1", "1.0"}, {"0", "0.0"}
"""How a column says whether an image has its class."""


def matches(path: Path) -> bool:
    """Whether the path is a folder with a table of labels, or a training folder with one."""
    return path.is_dir() and "train" in _tables(path)


def files(path: Path) -> list[Path]:
    """The files that are read, and other images in their folders."""
    tables = _tables(path).values()
    return sorted({*tables, *(file for table in tables for file in visible_files(table.parent) if is_image(file))})


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read all splits.

    Raises:
        InputError: a table lacks these columns, a row lacks an image or label, or an image cannot be read.
    """
    tables = {split: _Table(file, config) for split, file in _tables(path).items()}
    rows: dict[str, list[_Row]] = {}
    for split, table in tables.items():
        for row in table.rows:
            rows.setdefault(row.split or split, []).append(row)
    for table in tables.values():
        if table.class_columns != tables["train"].class_columns:
            raise InputError(f"{table.file} and {tables['train'].file} do not have the same columns of classes")
    raw, class_names = _raw_splits(path, rows, tables["train"], config)
    decoded = assemble(raw, class_names, str(path), config, store)
    used = {row.image for members in rows.values() for row in members} | {table.file for table in tables.values()}
    decoded = note_left_aside(decoded, "in no row of a table", [f for f in visible_files(path) if f not in used])
    aside = [f"{column} of {table.file.name}" for table in tables.values() for column in table.columns_aside]
    return note_left_aside(decoded, "not only 0 and 1", aside, "column")


def _tables(path: Path) -> dict[str, Path]:
    """The table of each split; a single one, which may have a column of splits, is "train"."""
    own = [path / name for name in NAMES if (path / name).is_file()]
    if own:
        return {"train": own[0]}
    splits = ((split_of(folder.name), folder) for folder in sorted(path.iterdir()) if folder.is_dir())
    found = ((split, folder / name) for split, folder in splits if split for name in reversed(NAMES))
    return {split: table for split, table in found if table.is_file()}


@dataclass(frozen=True)
class _Row:
    """A row of a table."""

    image: Path
    label: str
    """As it is written; not read if the table has a column for each class."""
    classes: tuple[str, ...]
    """The classes in it; a single one unless an image may have several."""
    split: str | None
    """None if the table has no column of splits."""
    where: str
    """The row's name in messages."""


class _Table:
    """A table, read.

    Raises:
        InputError: it is not a table, lacks a column, or a row lacks an image or label.
    """

    def __init__(self, file: Path, config: DataConfig) -> None:
        self.file, self.separator = file, config.label_separator
        rows = _read_csv(file)
        columns = [column for column in (rows[0] if rows else {}) if column is not None]
        self.image_column = find_column(file, columns, config.image_column, _IMAGE_COLUMNS)
        others = [column for column in columns if column not in (self.image_column, "split", "")]
        labeled = config.label_column is not None or self.separator is not None
        if labeled or not {*others}.isdisjoint(_LABEL_COLUMNS) or len(found := _class_columns(rows, others)) < 2:
            self.label_column, found = find_column(file, columns, config.label_column, _LABEL_COLUMNS), ()
        else:
            self.label_column = None
        self.class_columns = found  # the classes, if each has a column; else empty
        self.columns_aside = [column for column in others if found and column not in found]
        self.images = _index(file.parent)
        self.rows = [self._row(number, row) for number, row in enumerate(rows, 2)]

    def _row(self, number: int, row: Mapping[str | None, Any]) -> _Row:
        """A row by column."""
        where, name = f"{self.file}, row {number}", row[self.image_column] or ""
        file = self.images.get(name.strip().replace("\\", "/"))
        if file is None:
            how = "several images have that name; write its path" if name in self.images else "there is no such image"
            raise InputError(f"{where}: {self.image_column} is {name!r}: {how}")
        label, classes = self._classes(row, name, where)
        split = row.get("split")
        if split and split_of(split) is None:
            raise InputError(f"{where}: split is {split!r}: expected train, test or val")
        return _Row(file, label, classes, split_of(split) if split else None, where)

    def _classes(self, row: Mapping[str | None, Any], name: str, where: str) -> tuple[str, tuple[str, ...]]:
        """A row's label as it is written, and its classes."""
        if self.label_column is None:
            return "", tuple(column for column in self.class_columns if row[column].strip() in _YES)
        label = (row[self.label_column] or "").strip()
        if self.separator is None:
            if not 0 < len(label) <= MOST_LETTERS:
                has = f"{self.label_column} has {len(label)} letters"
                raise InputError(f"{where}: {has}; give {name} a label of 1 to {MOST_LETTERS}")
            return label, (label,)
        if row[self.label_column] is None or None in row:
            raise InputError(f"{where}: has other columns than the head; a label that contains a comma needs quotes")
        classes = tuple(part.strip() for part in label.split(self.separator) if part.strip())
        if max(map(len, classes), default=0) > MOST_LETTERS:
            raise InputError(f"{where}: {self.label_column} has a class of more than {MOST_LETTERS} letters")
        return label, classes


def _read_csv(file: Path) -> list[dict[str | None, Any]]:
    try:
        text = read_bytes(file).decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{file} is not a CSV table in UTF-8: {one_line(error)}") from error


def _class_columns(rows: Sequence[Mapping[str | None, Any]], columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that hold nothing but 0 and 1."""
    return tuple(column for column in columns if all((row[column] or "").strip() in _YES | _NO for row in rows))


def _index(folder: Path) -> dict[str, Path | None]:
    """The images below a folder by path, name, and name without the ending; None if several have that name."""
    place: dict[str, Path | None] = {}
    images = [file for file in visible_files(folder) if is_image(file)]
    for file in images:
        for name in {file.name, file.stem}:
            place[name] = None if name in place else file
    return place | {file.relative_to(folder).as_posix(): file for file in images}


def _raw_splits(
    path: Path, rows: Mapping[str, Sequence[_Row]], first: _Table, config: DataConfig
) -> tuple[dict[str, RawSplit], Sequence[str]]:
    """The splits, and the classes in their order: that of their columns, of their numbers, or of the alphabet."""
    found = {name for members in rows.values() for row in members for name in row.classes}
    numbers = all(name.isascii() and name.isdigit() for name in found)
    class_names = first.class_columns or sorted(found, key=(lambda name: (int(name), name)) if numbers else None)
    multilabel = bool(first.class_columns) or config.label_separator is not None
    if multilabel and (cells := sum(map(len, rows.values())) * len(class_names)) > MOST_BYTES:
        raise InputError(
            f"{path} has {len(class_names):,} classes; with its images, that is {cells:,} labels, too many"
        )
    place = {name: k for k, name in enumerate(class_names)}

    def labels(members: Sequence[_Row]) -> np.ndarray:
        if not multilabel:
            return np.array([row.label for row in members])
        table = np.zeros((len(members), len(class_names)), dtype=bool)
        for i, row in enumerate(members):
            table[i, [place[name] for name in row.classes]] = True
        return table

    def raw_split(members: Sequence[_Row]) -> RawSplit:
        converted = Conversions()

        def image(row: _Row) -> np.ndarray:
            return decode(row.image, str(row.image), converted, config)

        where, where_label = lambda i: str(members[i].image), lambda i: members[i].where
        return RawSplit(labels(members), map(image, members), where, converted, where_label)

    return {split: raw_split(members) for split, members in rows.items()}, class_names
