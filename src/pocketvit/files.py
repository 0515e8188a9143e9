"""Write files atomically, read files safely, and expand paths."""

import contextlib
import errno
import hashlib
import io
import json
import os
import stat
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pocketvit.errors import InputError

MOST_BYTES = 2**28  # greatest size of a file that is read at once; images, configurations and results are far smaller
FREELY_UNPACKED = 2**26  # bytes that any compressed array may unpack to, however small it is
MOST_UNPACKED = 100  # greatest ratio that a larger one may unpack by; for images, it is rarely ten


def path_of(text: str | os.PathLike) -> Path:
    """A path with ~ as the home folder, which shells do not expand in --out=~/runs, and YAML never does."""
    return Path(os.path.expanduser(text))


def digest_of(content: bytes) -> str:
    """What stands for a file's content in names and hashes: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def regular_size(path: Path) -> int:
    """The size of a regular file in bytes, checked before opening: a pipe may block, and /dev/zero never ends.

    Raises:
        OSError: it does not exist, or is not a regular file (or a folder, which fails when it is opened).
    """
    try:
        status = path.stat()
    except ValueError as error:
        raise OSError(errno.EINVAL, "a name with a zero byte", str(path)) from error
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_bytes(path: Path, most: float = MOST_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        OSError: it is not a regular file, is larger, or cannot be read.
    """
    if regular_size(path) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return path.read_bytes()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a regular file, read by `read_bytes`.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of a file for a library that only takes names in UTF-8."""
    with contextlib.ExitStack() as kept:
        try:
            name = str(path)
            name.encode()
        except UnicodeEncodeError:
            name = f"/dev/fd/{kept.enter_context(path.open('rb')).fileno()}"
        yield name


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file atomically: it exists completely or not at all, even after a power cut.

    While it is being written, it is called `<name>.partial`, which a killed process leaves behind.

    Raises:
        InputError: no space left, or the folder cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(exist_ok=True)  # not its parents: a removed run folder must not come back empty
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
        if hasattr(os, "O_DIRECTORY"):  # not on Windows, which opens no folders
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        why = error.strerror or error
        raise InputError(f"cannot write {target}: {why}; earlier files are intact") from error


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_atomically(target, (json.dumps(content, indent=2) + "\n").encode())


def write_arrays(target: Path, **arrays: Any) -> None:
    """Write named arrays as an .npz file, atomically."""
    import numpy as np  # not needed by the configuration, which also writes files

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(target, content.getvalue())


def read_arrays(path: Path, choose: Callable[[Collection[str]], Collection[str]]) -> dict[str, Any]:
    """The arrays of an .npz file, by name; None for those not chosen.

    Args:
        choose: takes the names of all arrays, returns those to read.
    Raises:
        Exception: any error of zipfile and NumPy on a broken file, and ValueError if one is not an array, or could take far
            more memory than its file has bytes.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = dict.fromkeys(members)
        for name in members.keys() & choose(members):
            info = members[name]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed in a way that NumPy never uses")
            if info.file_size > max(FREELY_UNPACKED, MOST_UNPACKED * info.compress_size):
                raise ValueError(f"{name} would unpack from {info.compress_size:,} bytes to {info.file_size:,}")
            with archive.open(info) as member:  # without pickles, which could run any code
                array = np.lib.format.read_array(member, allow_pickle=False)
            native = array.astype(array.dtype.newbyteorder("=")).tobytes() if array.dtype.kind == "U" else b""
            if np.frombuffer(native, np.uint32).max(initial=0) > sys.maxunicode:  # NumPy makes broken texts of it
                raise ValueError(f"{name} contains letters that do not exist")
            arrays[name] = array
        return arrays


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file with one mapping; an `InputError` names the file and the line of an error."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON (line {error.lineno}: {error.msg}); was it cut off?") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a number of thousands of digits
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} contains a {type(content).__name__}; expected a JSON object with named fields")
    return content
