"""Read image folders, one per class: `train/<class>/*` and `test/<class>/*` (or `val/`), or only `<class>/*`.

The name of a split's folder may contain the word, such as `training_set` and `test_set`. It may be nested in itself
(`training_set/training_set/<class>/*`), and all of them may be in one more folder, as archives unpack. Instead of class
folders, `val/` may have a table of its images' classes, `val_annotations.txt`, as in Tiny ImageNet.

Classes are numbered in the alphabetical order of their folders; an accented letter is the same in one character or in
two. Images may be deeper inside a class folder. Files and folders whose name starts with a dot are skipped; for other
files that are not images of a class, a note says so.
"""

import dataclasses
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketvit.config.checks import FEW
from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, Conversions, decode, one_line
from pocketvit.data.raw_splits import (
    SPLIT_OF_WORD,
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

LEFT_BEHIND = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
"""Folders that archive programs, cameras and file servers create."""
ANNOTATIONS = "val_annotations.txt"
"""Tiny ImageNet's table: in each line the name of an image, a tab, its class, and more that is not read."""


NO_HEIC = "HEIC, as some phones write it, cannot be read; convert it to JPEG"


def matches(path: Path) -> bool:
    """Whether the path is a folder with subfolders."""
    return path.is_dir() and bool(_subfolders(path))


def is_whole(path: Path) -> bool:
    """Whether the path is a folder with at least two training classes, each with images."""
    try:
        return path.is_dir() and len(find(path).get("train", ())) > 1
    except InputError:
        return False


def files(path: Path) -> list[Path]:
    """The files that are read, by split and class, and tables of classes."""
    return [*_flatten(find(path)), *_tables(path)]


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read all splits.

    Raises:
        InputError: no images, a test class without training images, an image that cannot be read.
    """
    found = find(path)
    raw = {split: _raw_split(classes, config) for split, classes in found.items()}
    decoded = assemble(raw, tuple(found.get("train", ())), str(path), config, store)
    others = sorted(set(visible_files(path)) - {*_flatten(found), *_tables(path)})
    decoded = note_left_aside(decoded, NO_HEIC, [file for file in others if _is_heic(file)])
    decoded = note_left_aside(decoded, "not an image of a class", [file for file in others if not _is_heic(file)])
    notes = (*_notes(path, found), *decoded.notes)
    if named := [name for name in decoded.class_names if split_of(name)]:
        what = "a class is named like a split" if len(named) == 1 else "classes are named like splits"
        notes += (f"CAUTION: {what}: {', '.join(named)}; for splits, name the folders train and test",)
    return dataclasses.replace(decoded, notes=notes)


def _notes(path: Path, found: Mapping[str, Mapping[str, list[Path]]]) -> list[str]:
    """Notes to print on folders without an image of a class, such as an unlabeled split."""
    used = {parent for file in _flatten(found) for parent in file.parents}
    splits = _split_folders(path)
    roots, unlabeled = {path, *splits.values()}, [folder for split, folder in splits.items() if split not in found]
    notes = [f"{folder} holds no class of the training images: ignored as unlabeled" for folder in unlabeled]
    aside = sorted(folder for root in roots for folder in _folders(root) if folder not in used)
    nested = {*aside, *unlabeled}
    aside = [folder for folder in aside if folder not in unlabeled and nested.isdisjoint(folder.parents)]
    if not aside:
        return notes
    some = [str(folder.relative_to(path)) for folder in aside[:FEW]] + ["…"] * (len(aside) > FEW)
    are = "s are" if len(aside) > 1 else " is"
    return [*notes, f"{len(aside):,} folder{are} ignored, without an image of a class: {', '.join(some)}"]


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, except hidden ones and `LEFT_BEHIND`."""
    return [entry for entry in _folders(folder) if entry.name not in LEFT_BEHIND]


def find(path: Path) -> dict[str, dict[str, list[Path]]]:
    """The images by split and class; a test split without any of train's classes is unlabeled, and val is used instead.

    Raises:
        InputError: a folder for a split without class folders, or without images in them.
    """
    folders = _split_folders(path)
    if {"train", "test", "val"} <= folders.keys():
        train, test = ({_class_name(folder) for folder in _subfolders(folders[split])} for split in ("train", "test"))
        if not train & test:
            del folders["test"]
    return {split: _find_classes(folder) for split, folder in folders.items()}


def would_read(path: Path, inner: Path) -> bool:
    """Whether a new folder would be read as a class of these image folders, or as part of one."""
    inner = inner.resolve()
    roots = [root.resolve() for root in _split_folders(path).values()]
    below = [inner.relative_to(root).parts for root in roots if inner.is_relative_to(root)]
    return any(not any(part.startswith(".") for part in parts) for parts in below)


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders with the class folders of each split; without splits, all is "train".

    Raises:
        InputError: there is a split among other folders, but no training split, or two folders stand for one split.
    """
    subfolders = _subfolders(path)
    if len(subfolders) == 1 and "train" in (inner := _named_splits(subfolders[0])) and len(inner) > 1:
        path, subfolders = subfolders[0], _subfolders(subfolders[0])
    folders = _named_splits(path)
    # A class may be called "train", as among cars and planes; then its folder contains images, not folders.
    if len(folders) < len(subfolders) and not ("train" in folders and _subfolders(folders["train"])):
        parted = [folder for folder in folders.values() if _subfolders(folder)]
        if parted:
            raise InputError(
                f"{parted[0]} contains class folders, like a split, but {path / 'train'} does not: name the folder of the "
                f"training images train, or rename {parted[0].name} if it is a class"
            )
        return {"train": path}
    return {split: _innermost(folder, split) for split, folder in folders.items()}


def _named_splits(path: Path) -> dict[str, Path]:
    """The subfolders whose names stand for splits: a single word or, if they contain folders, a word among others.

    The latter count only if one of them is a training split, and another one if there are more folders: a class may be
    called train_station.
    """
    subfolders = _subfolders(path)
    named: dict[str, Path] = {}
    for folder in sorted(subfolders, key=lambda folder: folder.name.lower() not in SPLIT_OF_WORD):
        split, exact = split_of(folder.name), folder.name.lower() in SPLIT_OF_WORD
        if split is None or not exact and (split in named or not _subfolders(folder)):
            continue
        if split in named and _subfolders(folder) and _subfolders(named[split]):
            raise InputError(f"{named[split]} and {folder} both stand for the {split} split: rename or remove one")
        named[split] = folder
    if "train" in named and (len(named) > 1 or len(subfolders) == 1):
        return named
    return {split: folder for split, folder in named.items() if folder.name.lower() in SPLIT_OF_WORD}


def _innermost(folder: Path, split: str) -> Path:
    """The folder with the class folders of a split: its own, or the only one in it if that is named like it."""
    inner = _subfolders(folder)
    return inner[0] if len(inner) == 1 and split_of(inner[0].name) == split and _subfolders(inner[0]) else folder


def _flatten(found: Mapping[str, Mapping[str, list[Path]]]) -> list[Path]:
    return [file for classes in found.values() for members in classes.values() for file in members]


def _find_classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder below `folder`, or those of each class in its table."""
    if (table := folder / ANNOTATIONS).is_file():
        return _annotated(table)
    classes: dict[str, list[Path]] = {}
    for subfolder in sorted(_subfolders(folder), key=_class_name):
        members = classes.setdefault(_class_name(subfolder), [])
        members += (file for file in visible_files(subfolder) if is_image(file))
    if not classes:
        raise InputError(f"{folder} contains no class folders: expected {folder.name}/<class>/<image>")
    if not any(classes.values()):
        heic = f"; {NO_HEIC}" if any(map(_is_heic, visible_files(folder))) else ""
        raise InputError(f"{folder}: its folders contain no images; expected {folder.name}/<class>/<image>{heic}")
    return {name: members for name, members in classes.items() if members}


def _is_heic(file: Path) -> bool:
    return file.suffix.lower() in (".heic", ".heif")


def _tables(path: Path) -> list[Path]:
    """The tables of classes that stand for class folders."""
    return [table for folder in _split_folders(path).values() if (table := folder / ANNOTATIONS).is_file()]


def _annotated(table: Path) -> dict[str, list[Path]]:
    """The images of each class in a table, in the order of its lines.

    Raises:
        InputError: it is not text in UTF-8, a line lacks a class, or there is no such image.
    """
    images = {file.name: file for file in visible_files(table.parent) if is_image(file)}
    classes: dict[str, list[Path]] = {}
    try:
        lines = read_bytes(table).decode().splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{table} is not a table in UTF-8: {one_line(error)}") from error
    for number, line in enumerate(lines, 1):
        name, tab, rest = line.partition("\t")
        label = unicodedata.normalize("NFC", rest.partition("\t")[0].strip())
        if not (tab and label):
            raise InputError(f"{table}, line {number}: expected the name of an image, a tab and its class")
        if name not in images:
            raise InputError(f"{table}, line {number}: there is no image {name!r}")
        classes.setdefault(label, []).append(images[name])
    if not classes:
        raise InputError(f"{table} is empty: expected the name of an image, a tab and its class in each line")
    return dict(sorted(classes.items()))


def _class_name(folder: Path) -> str:
    """The class of a folder, with each accented letter as one character."""
    return unicodedata.normalize("NFC", folder.name)


def _raw_split(classes: Mapping[str, list[Path]], config: DataConfig) -> RawSplit:
    members = [file for files in classes.values() for file in files]
    labels = [name for name, files in classes.items() for _ in files]
    converted = Conversions()

    def image(file: Path) -> np.ndarray:
        return decode(file, str(file), converted, config)

    return RawSplit(np.array(labels), map(image, members), lambda i: str(members[i]), converted)
