"""Where downloaded and decoded sets are kept, and what to say when they cannot be written."""

import errno
import os
from pathlib import Path

from pocketvit.errors import InputError
from pocketvit.files import path_of


def data_home() -> Path:
    """The folder for downloaded and decoded sets.

    It is `$POCKETVIT_DATA`, else `$XDG_CACHE_HOME/pocketvit`, else `~/.cache/pocketvit`.
    """
    if home := os.environ.get("POCKETVIT_DATA"):
        return path_of(home)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "pocketvit"


def write_error(path: Path, error: OSError) -> InputError:
    """The exception to raise when `path` could not be written."""
    what = f"{path} cannot be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(f"{what}; free some space, or set POCKETVIT_DATA to a folder on another disk")
    return InputError(f"{what}; set POCKETVIT_DATA to a folder that can be")
