"""Image folders: one folder a class, `train/<class>/*` beside `test/<class>/*` (or `val/`), or `<class>/*` alone.

Classes are numbered in the alphabetical order of their folders; an accented letter is the same letter in one character
or in two, as different systems write it. Images may lie deeper inside a class's folder. Files and folders whose name
starts with a dot are ignored; other files that are no image of a class are left aside, and that is said aloud.
"""

import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketvit.config.data import DataConfig
from pocketvit.data.dataset import Decoded
from pocketvit.data.pixels import PLAIN, BrokenImage, Conversions, decode
from pocketvit.data.raw_splits import (
    SPLIT_OF_WORD,
    RawSplit,
    Store,
    assemble,
    in_memory,
    is_image,
    note_left_aside,
    visible_files,
)
from pocketvit.errors import InputError

MOST_LISTED = 20
"""Broken images that `refuse_broken` lists."""


def matches(path: Path) -> bool:
    """Whether the path is a folder that holds folders."""
    return path.is_dir() and bool(_subfolders(path))


def is_whole(path: Path) -> bool:
    """Whether the path is a folder with two or more classes to train on, each with images."""
    try:
        return path.is_dir() and len(_find(path).get("train", ())) > 1
    except InputError:
        return False


def files(path: Path) -> list[Path]:
    """The files that are read, by split and class."""
    return _flatten(_find(path))


def read(path: Path, config: DataConfig = PLAIN, store: Store = in_memory) -> Decoded:
    """Read all splits.

    Raises:
        InputError: a class without images, a test class that train lacks, an image that cannot be read.
    """
    found = _find(path)
    raw = {split: _raw_split(classes, config) for split, classes in found.items()}
    decoded = assemble(raw, tuple(found.get("train", ())), str(path), config, store)

    aside = sorted(set(visible_files(path)) - set(_flatten(found)))
    return note_left_aside(decoded, "no image of a class", aside)


def refuse_broken(path: Path) -> None:
    """Read every image of a set, and list those that cannot be read.

    Raises:
        InputError: there are several; a line each.
    """
    broken = []
    for file in files(path):
        try:
            decode(file, str(file))
        except BrokenImage as error:
            broken.append(str(error))
    if len(broken) < 2:
        return
    lines = [f"{len(broken):,} images of {path} cannot be read:", *broken[:MOST_LISTED]]
    if len(broken) > MOST_LISTED:
        lines.append(f"and {len(broken) - MOST_LISTED:,} more")
    raise InputError("\n".join(lines))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _find(path: Path) -> dict[str, dict[str, list[Path]]]:
    """The images by split and class.

    Raises:
        InputError: a folder for a split without class folders, or a class folder without images.
    """
    return {split: _find_classes(folder) for split, folder in _split_folders(path).items()}


def would_read(path: Path, inner: Path) -> bool:
    """Whether a folder that is to be made would be taken for a class of these image folders, or a part of one."""
    inner = inner.resolve()
    roots = [root.resolve() for root in _split_folders(path).values()]
    below = [inner.relative_to(root).parts for root in roots if inner.is_relative_to(root)]
    return any(not any(part.startswith(".") for part in parts) for parts in below)


def _split_folders(path: Path) -> dict[str, Path]:
    """The folders that hold the class folders of each split; a flat `<class>/*` is all "train".

    Raises:
        InputError: there is a split beside other folders, but none to train on.
    """
    subfolders = _subfolders(path)
    folders = {SPLIT_OF_WORD[f.name.lower()]: f for f in subfolders if f.name.lower() in SPLIT_OF_WORD}
    # A class may be called "train" too, as among cars and planes; then its folder holds images, not folders.
    if len(folders) < len(subfolders) and not ("train" in folders and _subfolders(folders["train"])):
        parted = [folder for folder in folders.values() if _subfolders(folder)]
        if parted:
            raise InputError(
                f"{parted[0]} holds class folders, as a split does, but there is no {path / 'train'} that does: name the "
                f"folder of the training images train, or {parted[0].name} differently if it is a class"
            )
        folders = {"train": path}
    return folders


def _flatten(found: Mapping[str, Mapping[str, list[Path]]]) -> list[Path]:
    return [file for classes in found.values() for members in classes.values() for file in members]


def _find_classes(folder: Path) -> dict[str, list[Path]]:
    """The images of each class folder below `folder`."""
    classes: dict[str, list[Path]] = {}
    for subfolder in sorted(_subfolders(folder), key=_class_name):
        members = classes.setdefault(_class_name(subfolder), [])
        members += (file for file in visible_files(subfolder) if is_image(file))
    if not classes:
        raise InputError(f"{folder} holds no class folders: expected {folder.name}/<class>/<image>")
    for name, members in classes.items():
        if not members:
            raise InputError(f"{folder / name} holds no images: remove the folder or fill it")
    return classes


def _class_name(folder: Path) -> str:
    """The class of a folder, its accented letters in one character each."""
    return unicodedata.normalize("NFC", folder.name)


def _raw_split(classes: Mapping[str, list[Path]], config: DataConfig) -> RawSplit:
    members = [file for files in classes.values() for file in files]
    labels = [name for name, files in classes.items() for _ in files]
    converted = Conversions()
    images = (decode(file, str(file), converted, config) for file in members)
    return RawSplit(np.array(labels), images, lambda i: str(members[i]), converted)
