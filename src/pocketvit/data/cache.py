"""Decoded sets, kept on disk as plain arrays and mapped into memory.

Decoding 60,000 small images takes about ten seconds; mapping the result takes milliseconds and shares its pages
between processes. An entry is a folder of `.npy` files and a `meta.json`. Its key is a hash of the format, the options,
and the name, size and time of every source file, so a changed source makes a new entry.

An entry is written into a folder of its own and renamed into place when it is whole: two processes that decode the
same set at once don't disturb each other, and one that is killed leaves nothing that looks like an entry.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pocketvit.data.dataset import Decoded, Split
from pocketvit.data.disk import write_error
from pocketvit.errors import InputError

VERSION = 1
"""Raised when decoding or the layout of an entry changes, so that older entries are not used."""


def entry_key(root: Path, files: Sequence[Path], options: Sequence[str | int | None]) -> str:
    """Name what decoding these files with these options gives; 32 hex digits.

    Args:
        root: the folder (or the one file) that the user named.
        files: every file that is read, at or below `root`.
        options: whatever else changes the result, as JSON holds it.
    """
    sources = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:  # a link that leads nowhere
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
        sources.append((os.path.relpath(file, root), status.st_size, status.st_mtime_ns))
    # The root counts too: files unpacked with fixed times may agree in name, size and time and yet differ.
    text = json.dumps([VERSION, str(root.resolve()), sorted(sources), list(options)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_or_build(folder: Path, key: str, build: Callable[[], Decoded]) -> Decoded:
    """Map the entry `key` into memory, building and storing it first if there is none, or only a torn one.

    The images are mapped copy-on-write: writing to them in memory never reaches the file.

    Args:
        folder: where entries are kept.
        key: the entry's name.
        build: decodes the set.
    Raises:
        InputError: the entry cannot be written, for want of space or of permission.
    """
    entry = folder / key
    stored = _load(entry)
    if stored is not None:
        return stored
    decoded = build()
    try:
        _store(decoded, entry)
    except OSError as error:
        raise write_error(folder, error) from error
    return _load(entry) or decoded


def _load(entry: Path) -> Decoded | None:
    """The stored set, or None if it isn't there or not whole."""
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        splits = {
            split: Split(np.load(entry / f"{split}_images.npy", mmap_mode="c"), np.load(entry / f"{split}_labels.npy"))
            for split in meta["splits"]
        }
        return Decoded(splits["train"], splits.get("test"), tuple(meta["class_names"]), tuple(meta["notes"]))
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None


def _store(decoded: Decoded, entry: Path) -> None:
    """Write a set beside its place, then move it there."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    splits = {"train": decoded.train} | ({"test": decoded.test} if decoded.test is not None else {})
    meta = {"splits": list(splits), "class_names": decoded.class_names, "notes": decoded.notes}
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=entry.parent) as scratch:
        whole = Path(scratch) / "entry"
        whole.mkdir()
        for split, content in splits.items():
            _write(whole / f"{split}_images.npy", content.images)
            _write(whole / f"{split}_labels.npy", content.labels)
        (whole / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            whole.rename(entry)
        except OSError:
            # Either another process was first, and its entry serves as well, or a torn one is in the way.
            if _load(entry) is None:
                shutil.rmtree(entry)
                whole.rename(entry)


def _write(file: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`.

    Not `np.save`, which loses the reason when a disk is full.
    """
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(array))
        stream.write(np.ascontiguousarray(array).data)
        stream.flush()
        os.fsync(stream.fileno())  # else a power cut after the renaming may leave an entry full of zeros
