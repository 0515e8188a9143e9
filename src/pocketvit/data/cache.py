"""A cache of decoded data sets: plain arrays on disk, mapped into memory.

Decoding 60,000 small images takes about ten seconds; mapping the result takes milliseconds and shares its pages
between processes. An entry is a folder of `.npy` files and a `meta.json`. Its key is a hash of the format, the options,
and the name, size and time of every source file, so a changed source makes a new entry.

An entry is written into a temporary folder, image by image, so that a data set may be larger than memory, and renamed
when it is complete: processes that decode the same data set at once do not disturb each other, and a killed one leaves
nothing that looks like an entry. What it leaves is removed by the next process that opens a data set.

An entry also stores the fingerprints of its images. Every run computes these anyway, so they are compared when an
entry is opened, and a damaged one is rebuilt.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from pocketvit.data.dataset import Decoded, Split
from pocketvit.data.fetch.paths import write_error
from pocketvit.data.raw_splits import Store
from pocketvit.errors import InputError
from pocketvit.files import read_text, regular_size

VERSION = 7  # raised when decoding, its notes or the layout of an entry changes, so that older entries are not used
WRITING = ".writing-"  # prefix of a folder in which an entry is being written
LOCK = "lock"
"""A file in such a folder, locked by its process. It contains the boot id, because other machines may not see the lock,
and is empty without locks."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # where Linux identifies this boot of this machine
ABANDONED_S = 86_400  # seconds without a write after which such a folder is abandoned, if no lock can tell


def entry_key(root: Path, files: Sequence[Path], options: Sequence[str | int | None]) -> str:
    """The name of the entry for these files and options; 32 hex digits.

    Args:
        root: the folder (or the one file) that the user named.
        files: every file that is read, at or below `root`.
        options: all else that affects the result, for JSON.
    """
    sources = []
    for file in files:
        try:
            status = file.stat()
        except OSError as error:  # a broken link
            raise InputError(f"{file} cannot be read: {error.strerror}") from error
        sources.append((os.path.relpath(file, root), status.st_size, status.st_mtime_ns))
    # The root counts too: files unpacked with fixed times may agree in name, size and time and yet differ.
    text = json.dumps([VERSION, str(root.resolve()), sorted(sources), list(options)])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def load_or_build(
    folder: Path, key: str, build: Callable[[Store], Decoded], say: Callable[[str], None] = lambda line: None
) -> Decoded:
    """Map the entry `key` into memory, building and storing it first if it is absent or damaged.

    The images are mapped copy-on-write: writing to them in memory never reaches the file.

    Args:
        build: decodes the data set, passing its images to a `Store` that writes them one by one; if they are already in
            memory, they are written afterwards.
        say: is told that a damaged entry is rebuilt.
    Raises:
        InputError: the entry cannot be written, for lack of space or permission.
    """
    entry = folder / key
    _remove_abandoned(folder)
    stored = _load(entry)
    if stored is not None:
        return stored
    if entry.exists():
        say(f"{entry}: the cached images are damaged; decoding them again")
    with _errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # On a network drive, a file that is still mapped can prevent the clean-up.
        scratch = tempfile.TemporaryDirectory(prefix=WRITING, dir=folder, ignore_cleanup_errors=True)
        whole = Path(scratch.name) / "entry"
        whole.mkdir()
        lock = _locked(Path(scratch.name))
    with scratch, lock:

        def store(split: str, images: Iterable[np.ndarray], count: int) -> np.ndarray:
            file = whole / f"{split}_images.npy"
            with _errors_named(folder):
                _write(file, images, count)
                return np.load(file, mmap_mode="c")

        decoded = build(store)
        with _errors_named(folder):
            _complete(decoded, whole)
            _move_in_place(whole, entry)
    return _load(entry) or decoded


def _load(entry: Path) -> Decoded | None:
    """The stored data set, or None if it is absent, incomplete or damaged."""
    try:
        meta = json.loads(read_text(entry / "meta.json"))
        splits = {split: _load_split(entry, split) for split in meta["splits"]}
        if any(split.fingerprint != meta["splits"][name] for name, split in splits.items()):
            return None
        class_names, notes = tuple(meta["class_names"]), tuple(meta["notes"])
        if not all(isinstance(text, str) for text in (*class_names, *notes)):
            return None
        if not all(_fits(split, len(class_names)) for split in splits.values()):
            return None
        decoded = Decoded(splits["train"], splits.get("test"), class_names, notes)
        return decoded if meta["checksum"] == _checksum(decoded) else None
    except Exception:  # with a damaged header, NumPy raises anything from SyntaxError to MemoryError
        return None


def _fits(split: Split, num_classes: int) -> bool:
    """Whether a split's labels are of so many classes."""
    return split.labels.shape[1] == num_classes if split.multilabel else bool(split.labels.max() < num_classes)


def _checksum(decoded: Decoded) -> str:
    """A hash of the names and notes, which are not in the fingerprints."""
    names = [
        split.names.tobytes().hex()
        for split in (decoded.train, decoded.test)
        if split is not None and split.names is not None
    ]
    return hashlib.blake2b(json.dumps([decoded.class_names, decoded.notes, names]).encode(), digest_size=16).hexdigest()


def _load_split(entry: Path, split: str) -> Split:
    for file in entry.glob(f"{split}_*.npy"):
        regular_size(file)  # a pipe would block
    images, names = np.load(entry / f"{split}_images.npy", mmap_mode="c"), entry / f"{split}_names.npy"
    named = np.load(names, mmap_mode="c")[0] if names.exists() else None
    return Split(images, np.load(entry / f"{split}_labels.npy"), named)


def _complete(decoded: Decoded, whole: Path) -> None:
    """Write the rest of an entry, whose images may already be written."""
    splits = {"train": decoded.train} | ({"test": decoded.test} if decoded.test is not None else {})
    for split, content in splits.items():
        if not (whole / f"{split}_images.npy").exists():
            _write(whole / f"{split}_images.npy", content.images, len(content))
        _write(whole / f"{split}_labels.npy", content.labels, len(content))
        if content.names is not None:
            _write(whole / f"{split}_names.npy", [content.names], 1)  # as one row: a row alone forgets its width
    stored = {split: np.load(whole / f"{split}_images.npy", mmap_mode="r") for split in splits}
    fingerprints = {split: Split(stored[split], splits[split].labels).fingerprint for split in splits}
    meta = {"splits": fingerprints, "class_names": decoded.class_names, "notes": decoded.notes}
    meta["checksum"] = _checksum(decoded)
    (whole / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _move_in_place(whole: Path, entry: Path) -> None:
    """Move a complete entry into place."""
    try:
        whole.rename(entry)
    except OSError:
        # Either another process was first, and its entry is as good, or an incomplete one is in the way.
        if _load(entry) is not None:
            return
        with contextlib.suppress(FileNotFoundError):  # another process was first to move it
            entry.rename(whole.with_name("torn"))  # which is removed with the folder that it is in
        try:
            whole.rename(entry)
        except OSError:
            if _load(entry) is None:
                raise


def _write(file: Path, rows: Iterable[np.ndarray], count: int) -> None:
    """Write the rows of an array as `.npy`, one by one.

    On a full disk, a mapped file would kill the process, and `np.save` would lose the reason.

    Args:
        rows: of one shape and dtype, at least one.
        count: their number, at most.
    """
    with file.open("wb") as stream:
        written, header = 0, {}
        for written, row in enumerate(rows, 1):
            if written == 1:
                header = {"descr": row.dtype.str, "fortran_order": False, "shape": (count, *row.shape)}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(row.tobytes())
        if written < count:
            stream.seek(0)  # a header of the same length: NumPy leaves room for the number to grow
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (written, *header["shape"][1:])})
        stream.flush()
        os.fsync(stream.fileno())  # else a power cut after renaming may leave an entry full of zeros


def _remove_abandoned(folder: Path) -> None:
    """Remove unfinished entries of killed processes, which may be as large as a data set."""
    for scratch in folder.glob(f"{WRITING}*"):
        with contextlib.suppress(OSError):  # its process has just finished, or it is another user's
            last_written = max(path.stat().st_mtime for path in (scratch, *scratch.rglob("*")))
            if time.time() - last_written > ABANDONED_S or _lost_its_process(scratch):
                shutil.rmtree(scratch, ignore_errors=True)


def _locked(scratch: Path) -> IO[bytes]:
    """Lock a folder until the returned file is closed, if there are locks."""
    file = open(scratch / LOCK, "wb", buffering=0)  # else closing it might fail on a full disk
    with contextlib.suppress(ImportError, OSError):  # Windows and some file systems have none
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(BOOT_ID.read_bytes())
    return file


def _lost_its_process(scratch: Path) -> bool:
    """Whether a process on this machine held the folder's lock and no longer does.

    Raises:
        OSError: it still holds it, or there are no locks, or the folder is another user's.
    """
    regular_size(scratch / LOCK)  # a pipe would block
    with open(scratch / LOCK, "rb") as file:
        if file.read() != BOOT_ID.read_bytes():
            return False
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True


@contextlib.contextmanager
def _errors_named(folder: Path) -> Iterator[None]:
    """Turn an `OSError` into an `InputError` that says why the folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise write_error(folder, error) from error
