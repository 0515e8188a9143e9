"""The folder of downloaded and decoded data sets, and the error if it cannot be written."""

import errno
import os
from pathlib import Path

from pocketvit.errors import InputError
from pocketvit.files import path_of


def data_home() -> Path:
    """The folder for data sets: `$POCKETVIT_DATA`, else `$XDG_CACHE_HOME/pocketvit`, else `~/.cache/pocketvit`."""
    if home := os.environ.get("POCKETVIT_DATA"):
        return path_of(home)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "pocketvit"


def write_error(path: Path, error: OSError) -> InputError:
    """The exception for a `path` that cannot be written."""
    what = f"{path} cannot be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{what}; free some space, or set POCKETVIT_DATA to a folder on another disk")
    return InputError(f"{what}; set POCKETVIT_DATA to a writable folder")
