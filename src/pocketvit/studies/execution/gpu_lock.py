"""A lock by which training runs take turns on one device.

While one cell trains, the next one on the same GPU imports, compiles and captures, and trains as soon as it gets the
lock. So no two runs of studies train on a GPU at once, and their times stay comparable. The locks are in the machine's
folder for temporary files and hold for the studies of all users.
"""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from rich.console import Console

from pocketvit.errors import InputError
from pocketvit.training.progress import LineReporter


def device_lock() -> Path:
    """The lock file of this process's device; a GPU's is named after its UUID, however the user named the GPU."""
    import torch

    given, name = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip(), "mps"
    if torch.cuda.is_available():  # for a part of a GPU, PyTorch may give the UUID of the whole
        name = given if given.startswith("MIG-") else f"gpu-{torch.cuda.get_device_properties().uuid}"
    return Path(tempfile.gettempdir()) / f"pocketvit-{re.sub(r'[^A-Za-z0-9.-]+', '-', name)}.lock"


def open_lock(path: str | Path, flags: int = os.O_RDONLY) -> int:
    """Open a lock file for reading, which is enough to lock it; if absent, create it for all users. An opener for `open`.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return os.open(path, flags)  # Linux forbids O_CREAT on another user's file in /tmp
        os.fchmod(descriptor, 0o644)  # whatever the umask is
    except OSError as error:
        raise InputError(f"cannot open {path}: {error.strerror}; remove it, or set TMPDIR to another folder") from error
    return descriptor


class LockingReporter(LineReporter):
    """Prints a line now and then, and trains only while it holds the lock.

    Args:
        lock: finds the lock file of the device; None trains at once.
    """

    def __init__(self, console: Console, lock: Callable[[], Path] | None) -> None:
        super().__init__(console)
        self.lock = lock
        self.file: IO[str] | None = None

    def start(self, total_steps: int, done_steps: int) -> None:
        """Wait for the device.

        Raises:
            InputError: its lock cannot be opened.
        """
        if self.lock:
            import fcntl  # not on Windows, where no lock is given

            self.file = open(self.lock(), opener=open_lock)
            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.note(f"training from step {done_steps} of {total_steps}")

    def stop(self) -> None:
        """Leave the device to the next run: what is still to do needs little of it."""
        if self.file:
            self.file.close()
