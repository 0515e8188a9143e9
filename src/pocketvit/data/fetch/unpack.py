"""Unpack an archive from the internet: only files, within a folder, and no more than expected.

Tar archives are read from front to back and zip archives member by member, so that only what is written takes space.
"""

import gzip
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from pocketvit.data.fetch.paths import write_error
from pocketvit.data.pixels import one_line
from pocketvit.errors import InputError
from pocketvit.files import regular_size

MOST_FILES = 400_000  # CINIC-10 has 270,000
_AT_ONCE = 2**20  # bytes that are copied
_MOST_HEAD = 2**24  # bytes that are read at once, such as the head of a member


def unpack(archive: Path, folder: Path, wanted: str, most_bytes: int) -> None:
    """Write the wanted members of an archive, .zip or .tar.gz, into an empty folder; replaces what is there.

    Args:
        wanted: regular expression of the members' paths.
        most_bytes: that all members may have together, wanted or not.
    Raises:
        InputError: the archive is broken, larger than that, or names a place outside the folder; or the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    left, files = most_bytes, 0
    try:
        for name, size, open_member in _members(archive, most_bytes):
            left, files = left - size, files + 1
            if left < 0 or files > MOST_FILES:
                raise InputError(f"{archive.name} unpacks to more than {most_bytes:,} bytes or {MOST_FILES:,} files")
            if not re.fullmatch(wanted, name):
                continue
            target = folder / _inside(archive, name)
            with open_member() as content:
                _write(content, target, size)
    except InputError:
        raise
    # A broken archive raises BadZipFile, ReadError, EOFError, zlib.error, ValueError and more.
    except Exception as error:
        raise InputError(f"{archive.name} is truncated or corrupt: {one_line(error)}") from error


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of a member, which is below the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise InputError(f"{archive.name} holds a file outside of it: {name!r:.80}")
    return path


def _write(content: IO[bytes], target: Path, size: int) -> None:
    """Copy a member, which has as many bytes as it said."""
    done = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            while block := content.read(_AT_ONCE):
                done += len(block)
                if done > size:
                    break
                file.write(block)
    except FileExistsError as error:
        raise InputError(f"it holds {target.name} twice") from error
    except OSError as error:
        if error.errno is None:  # the archive's, not the disk's
            raise
        raise write_error(target, error) from error
    if done != size:
        raise EOFError(f"{target.name} has not the {size:,} bytes that it should have")


def _members(archive: Path, most_bytes: int) -> Iterator[tuple[str, int, Callable[[], IO[bytes]]]]:
    """Path, size and opener of each file in an archive."""
    regular_size(archive)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if not member.is_dir():
                    yield member.filename, member.file_size, lambda member=member: packed.open(member)
        return
    limit = most_bytes + most_bytes // 4 + _MOST_HEAD  # with heads and fillings
    with archive.open("rb") as raw, _Bounded(raw, limit) as stream, tarfile.open(fileobj=stream, mode="r:") as opened:
        packed: Any = opened  # whose list of members its type does not know
        for member in packed:
            if member.isfile() and not member.issparse():
                yield member.name, member.size, lambda member=member: packed.extractfile(member)
            packed.members.clear()  # else hundreds of thousands stay in memory


class _Bounded(gzip.GzipFile):
    """An unpacked stream that ends in an error beyond some bytes, and where a head claims an enormous length."""

    def __init__(self, raw: IO[bytes], most_bytes: int) -> None:
        super().__init__(fileobj=raw)
        self.most_bytes = most_bytes

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEAD or self.tell() + size > self.most_bytes:
            raise EOFError(f"{size} bytes at {self.tell():,} are too many")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset > self.most_bytes:
            raise EOFError(f"a place at {offset:,} is too far")
        return super().seek(offset, whence)
