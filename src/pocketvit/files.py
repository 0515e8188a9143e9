"""Writing files that are there whole or not at all, reading such as others made, and paths as people write them."""

import contextlib
import errno
import io
import json
import os
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from pocketvit.errors import InputError

MOST_BYTES = 2**28
"""A file that is read at once holds no more; an image, a configuration or a result is far smaller."""


FREELY_UNPACKED = 2**26
"""Bytes that a compressed array may unpack to anyway, however small it is."""
MOST_UNPACKED = 100
"""How many times its size a larger one may unpack to; of images it is rarely ten."""


def path_of(text: str | os.PathLike) -> Path:
    """A path as it is written; ~ is the home folder, which a shell leaves alone in --out=~/runs, and YAML always."""
    return Path(os.path.expanduser(text))


def regular_size(path: Path) -> int:
    """The size of a file in bytes, before it is opened: reading a pipe may never begin, reading /dev/zero never ends.

    Raises:
        OSError: it is no regular file (or a folder, which fails when it is opened), or there is none.
    """
    status = path.stat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return status.st_size


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """What a regular file holds, at most so many bytes.

    Raises:
        OSError: it is no regular file, it holds more, or it cannot be read.
    """
    if regular_size(path) > most:
        raise OSError(errno.EFBIG, f"it holds more than {most:,} bytes", str(path))
    return path.read_bytes()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a regular file, as `read_bytes`.

    Raises:
        OSError: likewise.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, most).decode("utf-8")


@contextlib.contextmanager
def utf8_name(path: Path) -> Iterator[str]:
    """A name of a file for a library that takes names in UTF-8 alone."""
    with contextlib.ExitStack() as kept:
        try:
            name = str(path)
            name.encode()
        except UnicodeEncodeError:
            name = f"/dev/fd/{kept.enter_context(path.open('rb')).fileno()}"
        yield name


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, even through a power cut.

    While it is being written it is called `<name>.partial`; that is what a killed process leaves.

    Raises:
        InputError: no space left, or the folder cannot be written.
    """
    partial = target.with_name(target.name + ".partial")
    try:
        target.parent.mkdir(exist_ok=True)  # not its parents: a run folder that was removed must not come back empty
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
        raise InputError(f"cannot write {target}: {why}; what was saved before is still whole") from error


def write_json(target: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file as `write_atomically` does."""
    write_atomically(target, (json.dumps(content, indent=2) + "\n").encode())


def write_arrays(target: Path, **arrays: Any) -> None:
    """Write named arrays as an .npz file, as `write_atomically` does."""
    import numpy as np  # the configuration, which writes files as well, does without

    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(target, content.getvalue())


def read_arrays(path: Path, choose: Callable[[Collection[str]], Collection[str]]) -> dict[str, Any]:
    """Arrays of an .npz file, by name; None stands for one that was not chosen.

    Args:
        choose: takes the names of all arrays, gives those to read.
    Raises:
        Exception: whatever zipfile and NumPy say of a broken file, and ValueError where one is no array, or could take far
            more memory than its file has bytes.
    """
    import numpy as np

    with zipfile.ZipFile(path) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        arrays = dict.fromkeys(members)
        for name in members.keys() & choose(members):
            info = members[name]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed as NumPy never does")
            if info.file_size > max(FREELY_UNPACKED, MOST_UNPACKED * info.compress_size):
                raise ValueError(f"{name} would unpack from {info.compress_size:,} bytes to {info.file_size:,}")
            with archive.open(info) as member:  # without pickles, which could run anything their maker liked
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
        return arrays


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds one mapping; `InputError` names the file and the line that is wrong."""
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON (line {error.lineno}: {error.msg}); was it cut off?") from error
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a number of thousands of digits
        raise InputError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a JSON object with named fields")
    return content
