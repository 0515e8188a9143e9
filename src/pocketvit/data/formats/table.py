"""Read images with a table of labels: `labels.csv` or `metadata.csv`, with a column of file names and one of labels.

The images are in the table's folder, at any depth. The table may have a column `split`, or each split's folder has its
own table (`train/metadata.csv`, `test/metadata.csv`). Rows name an image by its path, its name, or its name without the
ending. Classes are in the order of their numbers, or else in alphabetical order.

Source: https://huggingface.co/docs/datasets/image_dataset (metadata.csv)
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, Conversions, decode, one_line
from pocketvit.data.raw_splits import (
    RawSplit,
    Store,
    assemble,
    in_memory,
    is_image,
    note_left_aside,
    split_of,
    visible_files,
)
from pocketvit.errors import InputError
from pocketvit.files import read_bytes

NAMES = ("labels.csv", "metadata.csv")
MOST_LETTERS = 1_000
_IMAGE_COLUMNS = ("file_name", "filename", "file", "path", "image", "image_id", "id")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "breed", "target")


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
    rows: dict[str, list[tuple[Path, str, str]]] = {}
    for split, table in _tables(path).items():
        for own, file, label, where in _rows(table, config):
            rows.setdefault(own or split, []).append((file, label, where))
    labels = {label for members in rows.values() for _, label, _ in members}
    numbers = all(label.isascii() and label.isdigit() for label in labels)
    class_names = sorted(labels, key=(lambda label: (int(label), label)) if numbers else None)
    raw = {split: _raw_split(members, config) for split, members in rows.items()}
    decoded = assemble(raw, class_names, str(path), config, store)
    used = {file for members in rows.values() for file, _, _ in members} | set(_tables(path).values())
    return note_left_aside(decoded, "in no row of a table", [file for file in visible_files(path) if file not in used])


def _tables(path: Path) -> dict[str, Path]:
    """The table of each split; a single one, which may have a column of splits, is "train"."""
    own = [path / name for name in NAMES if (path / name).is_file()]
    if own:
        return {"train": own[0]}
    splits = ((split_of(folder.name), folder) for folder in sorted(path.iterdir()) if folder.is_dir())
    found = ((split, folder / name) for split, folder in splits if split for name in reversed(NAMES))
    return {split: table for split, table in found if table.is_file()}


def _rows(table: Path, config: DataConfig) -> Iterator[tuple[str | None, Path, str, str]]:
    """For each row its split, if the table has one, its image and label, and its name in messages."""
    try:
        text = read_bytes(table).decode("utf-8-sig")
        head = text.partition("\n")[0]
        delimiter = max(",;\t", key=head.count)
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InputError(f"{table} is not a CSV table in UTF-8: {one_line(error)}") from error
    columns = [column for column in (rows[0] if rows else {}) if column is not None]
    image_column = _find_column(table, columns, config.image_column, _IMAGE_COLUMNS)
    label_column = _find_column(table, columns, config.label_column, _LABEL_COLUMNS)
    place = _index(table.parent)
    for number, row in enumerate(rows, 2):
        where, name, label = f"{table}, row {number}", row[image_column] or "", (row[label_column] or "").strip()
        file = place.get(name.strip().replace("\\", "/"))
        if file is None:
            how = "several images have that name; write its path" if name in place else "there is no such image"
            raise InputError(f"{where}: {image_column} is {name!r}: {how}")
        if not 0 < len(label) <= MOST_LETTERS:
            raise InputError(
                f"{where}: {label_column} has {len(label)} letters; give {name} a label of 1 to {MOST_LETTERS}"
            )
        split = row.get("split")
        if split and split_of(split) is None:
            raise InputError(f"{where}: split is {split!r}: expected train, test or val")
        yield split_of(split) if split else None, file, label, where


def _find_column(table: Path, columns: Sequence[str], wanted: str | None, names: Sequence[str]) -> str:
    names = names if wanted is None else (wanted,)
    for name in names:
        if name in columns:
            return name
    raise InputError(f"{table} has the columns {', '.join(columns) or '(none)'}: expected {' or '.join(names)}")


def _index(folder: Path) -> dict[str, Path | None]:
    """The images below a folder by path, name, and name without the ending; None if several have that name."""
    place: dict[str, Path | None] = {}
    images = [file for file in visible_files(folder) if is_image(file)]
    for file in images:
        for name in {file.name, file.stem}:
            place[name] = None if name in place else file
    return place | {file.relative_to(folder).as_posix(): file for file in images}


def _raw_split(rows: Sequence[tuple[Path, str, str]], config: DataConfig) -> RawSplit:
    converted = Conversions()

    def image(row: tuple[Path, str, str]) -> np.ndarray:
        return decode(row[0], str(row[0]), converted, config)

    labels = np.array([label for _, label, _ in rows])
    return RawSplit(labels, map(image, rows), lambda i: str(rows[i][0]), converted, lambda i: rows[i][2])
